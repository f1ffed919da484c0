//! The kernels' machine code, loaded into a context.

use std::collections::HashMap;
use std::ffi::CStr;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::sys::{self, CUfunction, CUfunction_attribute, CUmodule, CUresult};
use cudarc::driver::{CudaContext, DriverError, result};

use crate::cuda::launch::Kernel;

include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));

/// Machine code at an address that suits its headers.
#[repr(C, align(64))]
struct Image<T: ?Sized>(T);

/// Dynamic shared memory that a block may have unasked.
const SHARED_BYTES: u32 = 48 << 10;

/// The files of `kernels/` by name. All is loaded at the start: loading later may wait for the whole device, which
/// the driver refuses while a graph is captured.
pub(super) struct Kernels(HashMap<&'static str, File>);

impl Kernels {
    /// Loads every file.
    pub fn load(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        context.bind_to_thread()?;
        let load = |&(name, image): &(&'static str, _)| Ok((name, File::load(context.clone(), image)?));
        FATBINS.iter().map(load).collect::<Result<_, _>>().map(Self)
    }

    /// The function of a kernel.
    pub fn function(&self, kernel: &Kernel) -> Option<&Function> {
        self.0.get(kernel.file)?.functions.get(kernel.name)
    }
}

struct File {
    functions: HashMap<String, Function>,
    module: CUmodule,
    context: Arc<CudaContext>,
}

// SAFETY: the driver's handles may be used on any thread; `context` keeps them good.
unsafe impl Send for File {}
// SAFETY: as above, and at the same time.
unsafe impl Sync for File {}

impl File {
    /// Loads a file into the context, which is current.
    fn load(context: Arc<CudaContext>, image: &'static Image<[u8]>) -> Result<Self, DriverError> {
        // SAFETY: nvcc wrote the image, whose headers tell its size.
        let module = unsafe { result::module::load_data(image.0.as_ptr().cast()) }?;
        let mut file = Self { functions: HashMap::new(), module, context };
        for handle in file.handles()? {
            let (name, function) = Function::load(handle)?;
            file.functions.insert(name, function);
        }
        Ok(file)
    }

    fn handles(&self) -> Result<Vec<CUfunction>, DriverError> {
        let mut count = 0;
        // SAFETY: the module is loaded; the call writes one integer.
        unsafe { sys::cuModuleGetFunctionCount(&mut count, self.module) }.result()?;
        let mut handles = vec![ptr::null_mut(); count as usize];
        // SAFETY: there is room for `count` handles.
        unsafe { sys::cuModuleEnumerateFunctions(handles.as_mut_ptr(), count, self.module) }.result()?;
        Ok(handles)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // There is nobody to tell: where the context is lost, the module is gone with it.
        let _ = self.context.bind_to_thread();
        // SAFETY: the module is loaded, and its functions go with it.
        let _ = unsafe { result::module::unload(self.module) };
    }
}

/// A kernel that can be launched.
pub(super) struct Function {
    handle: CUfunction,
    /// Size of each parameter in bytes, as compiled.
    parameters: Vec<usize>,
    /// Dynamic shared memory that a block may have.
    shared_bytes: AtomicU32,
}

impl Function {
    /// Loads the code of a function of a loaded module: its name and itself.
    fn load(handle: CUfunction) -> Result<(String, Self), DriverError> {
        // SAFETY: the handle is of a loaded module.
        unsafe { sys::cuFuncLoad(handle) }.result()?;
        let mut name = ptr::null();
        // SAFETY: as above; the call writes one pointer.
        unsafe { sys::cuFuncGetName(&mut name, handle) }.result()?;
        // SAFETY: the driver's string lives as long as the module and ends with a zero.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        let shared_bytes = AtomicU32::new(SHARED_BYTES);
        Ok((name, Self { handle, parameters: parameter_sizes(handle)?, shared_bytes }))
    }

    /// The driver's handle, good as long as the file is loaded.
    pub fn handle(&self) -> CUfunction {
        self.handle
    }

    /// Size of each parameter in bytes, as compiled.
    pub fn parameters(&self) -> &[usize] {
        &self.parameters
    }

    /// Lets a block have `bytes` of dynamic shared memory.
    pub fn allow_shared(&self, bytes: u32) -> Result<(), DriverError> {
        if bytes > self.shared_bytes.load(Ordering::Relaxed) {
            let limit = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is loaded.
            unsafe { result::function::set_function_attribute(self.handle, limit, bytes as i32) }?;
            self.shared_bytes.fetch_max(bytes, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn parameter_sizes(function: CUfunction) -> Result<Vec<usize>, DriverError> {
    let mut sizes = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function is loaded; the call writes two integers.
        let answer = unsafe { sys::cuFuncGetParamInfo(function, sizes.len(), &mut offset, &mut size) };
        match answer {
            CUresult::CUDA_SUCCESS => sizes.push(size),
            // Past the last.
            CUresult::CUDA_ERROR_INVALID_VALUE => return Ok(sizes),
            error => return Err(DriverError(error)),
        }
    }
}
