//! The kernels' machine code, loaded into a context.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use cudarc::driver::sys::{self, CUfunction_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, DriverError};
use cudarc::nvrtc::Ptx;

use crate::cuda::launch::Kernel;

include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));

/// Dynamic shared memory that a block may have unasked.
const SHARED_BYTES: u32 = 48 << 10;

/// The files of `kernels/`, and their functions as far as they were launched.
pub(super) struct Kernels {
    modules: HashMap<&'static str, Arc<CudaModule>>,
    functions: RwLock<HashMap<&'static str, Arc<Function>>>,
}

impl Kernels {
    /// Loads every file.
    pub fn load(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let load = |&(file, image): &(&'static str, &[u8])| {
            Ok((file, context.load_module(Ptx::from_binary(image.to_vec()))?))
        };
        let modules = FATBINS.iter().map(load).collect::<Result<_, DriverError>>()?;
        Ok(Self { modules, functions: RwLock::default() })
    }

    /// The function of a kernel.
    pub fn function(&self, kernel: &'static Kernel) -> Result<Arc<Function>, DriverError> {
        let known = self.functions.read().unwrap_or_else(PoisonError::into_inner).get(kernel.name).cloned();
        if let Some(function) = known {
            return Ok(function);
        }
        let module = self.modules.get(kernel.file).ok_or(DriverError(CUresult::CUDA_ERROR_FILE_NOT_FOUND))?;
        let function = Arc::new(Function::new(module.load_function(kernel.name)?)?);
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        Ok(functions.entry(kernel.name).or_insert(function).clone())
    }
}

/// A kernel that can be launched.
pub(super) struct Function {
    function: CudaFunction,
    /// Size of each parameter in bytes, as compiled.
    parameters: Vec<usize>,
    /// Dynamic shared memory that a block may have.
    shared_bytes: AtomicU32,
}

impl Function {
    fn new(function: CudaFunction) -> Result<Self, DriverError> {
        // SAFETY: the handle is of a module that `function` keeps loaded.
        unsafe { sys::cuFuncLoad(function.cu_function()) }.result()?;
        let parameters = parameter_sizes(&function)?;
        Ok(Self { function, parameters, shared_bytes: AtomicU32::new(SHARED_BYTES) })
    }

    /// The driver's handle, good as long as this lives.
    pub fn handle(&self) -> sys::CUfunction {
        self.function.cu_function()
    }

    /// Size of each parameter in bytes, as compiled.
    pub fn parameters(&self) -> &[usize] {
        &self.parameters
    }

    /// Lets a block have `bytes` of dynamic shared memory.
    pub fn allow_shared(&self, bytes: u32) -> Result<(), DriverError> {
        if bytes > self.shared_bytes.load(Ordering::Relaxed) {
            let limit = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            self.function.set_attribute(limit, bytes as i32)?;
            self.shared_bytes.fetch_max(bytes, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn parameter_sizes(function: &CudaFunction) -> Result<Vec<usize>, DriverError> {
    let mut sizes = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function is loaded; the call writes two integers.
        let answer =
            unsafe { sys::cuFuncGetParamInfo(function.cu_function(), sizes.len(), &mut offset, &mut size) };
        match answer {
            CUresult::CUDA_SUCCESS => sizes.push(size),
            // Past the last.
            CUresult::CUDA_ERROR_INVALID_VALUE => return Ok(sizes),
            error => return Err(DriverError(error)),
        }
    }
}
