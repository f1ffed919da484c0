//! Streams of the CUDA driver: the launch interface on an NVIDIA GPU.
//!
//! The driver's library is looked for when a device is opened, so a program with this backend links and starts where
//! there is none. The machine code of `kernels/` is part of the program; nothing is compiled when it runs.

mod function;
mod graph;
mod kernels;
mod probe;
mod staging;
mod stream;
mod tensor_map;

use std::sync::{Arc, OnceLock};

use cudarc::driver::sys::{CUdevice_attribute, CUresult};
use cudarc::driver::{CudaContext, DriverError};

use self::kernels::Kernels;
use self::stream::DriverStream;
use super::launch::Stream;
use crate::error::DeviceError;

/// A GPU with the kernels loaded.
#[derive(Clone)]
pub struct Driver(Arc<Context>);

impl Driver {
    /// Opens the GPU with index `index` and loads the kernels.
    ///
    /// # Errors
    /// What is not there: [`DeviceError::NoDriver`], [`DeviceError::DriverTooOld`], [`DeviceError::NoDevice`],
    /// [`DeviceError::Architecture`]; [`DeviceError::Failed`] where the driver refuses.
    pub fn open(index: usize) -> Result<Self, DeviceError> {
        let found = probe::probe(index)?;
        let device = format!("cuda:{index}");
        let failed = |call: &str, error| failure(&device, call, error);
        let context = CudaContext::new(index).map_err(|e| failed("open", e))?;
        // SAFETY: event tracking orders the uses of cudarc's own slices between streams, and none are made here.
        unsafe { context.disable_event_tracking() };
        let kernels = Kernels::load(&context).map_err(|e| failed("load kernels", e))?;
        let description =
            format!("{device}, {} ({}), driver of CUDA {}", found.name, found.architecture, found.driver);
        let probe::Found { name, architecture, hopper, shared_bytes, .. } = found;
        let lost = OnceLock::new();
        Ok(Self(Arc::new(Context {
            kernels,
            context,
            device,
            name,
            description,
            architecture,
            hopper,
            shared_bytes,
            lost,
        })))
    }

    /// A new stream; streams run side by side.
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn stream(&self) -> Result<Arc<dyn Stream>, DeviceError> {
        let stream = self.0.call("create stream", || {
            let stream = self.0.context.new_stream()?;
            DriverStream::new(self.0.clone(), stream)
        })?;
        Ok(Arc::new(stream))
    }

    /// Name of the device, its architecture, and the driver's version.
    pub fn describe(&self) -> &str {
        &self.0.description
    }
}

/// What the streams of a device share.
struct Context {
    kernels: Kernels,
    context: Arc<CudaContext>,
    device: String,
    /// What the device calls itself.
    name: String,
    description: String,
    architecture: String,
    /// Whether the code for sm_90a runs.
    hopper: bool,
    /// Most dynamic shared memory of a block.
    shared_bytes: usize,
    /// The fault that ended the context.
    lost: OnceLock<DeviceError>,
}

impl Context {
    fn multiprocessors(&self) -> Result<i32, DriverError> {
        self.context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    }

    /// Makes a call to the driver with this context current; `name` is what an error says was asked.
    fn call<T>(&self, name: &str, call: impl FnOnce() -> Result<T, DriverError>) -> Result<T, DeviceError> {
        if let Some(fault) = self.lost.get() {
            return Err(fault.clone());
        }
        self.context.bind_to_thread().and_then(|()| call()).map_err(|error| {
            let fault = failure(&self.device, name, error);
            if ends_context(error) { self.lost.get_or_init(|| fault).clone() } else { fault }
        })
    }
}

fn failure(device: &str, call: &str, error: DriverError) -> DeviceError {
    let message = match (error.error_name(), error.error_string()) {
        (Ok(name), Ok(text)) => format!("{}: {}", name.to_string_lossy(), text.to_string_lossy()),
        _ => format!("error {}", error.0 as u32),
    };
    DeviceError::Failed { device: device.into(), call: call.into(), message }
}

/// Whether nothing in the context can be used after this error.
fn ends_context(error: DriverError) -> bool {
    use CUresult::*;
    matches!(
        error.0,
        CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_CONTEXT_IS_DESTROYED
    )
}
