//! The kernels' machine code, loaded into a context.

use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction, CUmodule};
use cudarc::driver::{CudaContext, DriverError, result};

use super::function::Function;
use crate::cuda::launch::Kernel;

include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));

/// Machine code at an address that suits its headers.
#[repr(C, align(64))]
struct Image<T: ?Sized>(T);

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
