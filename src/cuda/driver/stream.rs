//! One stream of the driver.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaStream, DriverError, result};

use super::Context;
use crate::cuda::launch::{Address, Argument, Kernel, LaunchShape, Stream};
use crate::error::DeviceError;

pub(super) struct DriverStream {
    stream: Arc<CudaStream>,
    context: Arc<Context>,
}

impl DriverStream {
    pub fn new(context: Arc<Context>, stream: Arc<CudaStream>) -> Self {
        Self { stream, context }
    }

    fn out_of_memory(&self, needed: usize) -> Result<DeviceError, DeviceError> {
        let (free, total) = self.context.call("allocate", || self.stream.context().mem_get_info())?;
        Ok(DeviceError::OutOfMemory { device: self.context.device.clone(), needed, free, total })
    }

    fn refuse(&self, kernel: &Kernel, message: String) -> DeviceError {
        DeviceError::Failed { device: self.context.device.clone(), call: kernel.name.into(), message }
    }
}

impl Stream for DriverStream {
    fn describe(&self) -> String {
        self.context.description.clone()
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
        let allocated = self.context.call("allocate", || {
            // SAFETY: the contents are undefined, as the contract says.
            match unsafe { result::malloc_sync(bytes) } {
                Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Ok(None),
                other => other.map(Some),
            }
        })?;
        match allocated {
            Some(address) => Ok(address),
            None => Err(self.out_of_memory(bytes)?),
        }
    }

    fn free(&self, address: Address) {
        // A fault is met again by the next call that can report it.
        let _ = self.synchronize();
        let _ = self.context.call("free", || {
            // SAFETY: `allocate` gave the address, and all work of the stream that could use it is done.
            unsafe { result::free_sync(address) }
        });
    }

    fn upload(&self, to: Address, from: &[u8]) -> Result<(), DeviceError> {
        self.context.call("upload", || {
            // SAFETY: the caller owns the destination. The source is pageable memory (nothing here pins any), which
            // the driver has read when it returns.
            unsafe { result::memcpy_htod_async(to, from, self.stream.cu_stream()) }
        })
    }

    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceError> {
        self.context.call("download", || {
            // SAFETY: the caller owns the source, and `to` outlives the copy, which is waited for.
            unsafe { result::memcpy_dtoh_async(to, from, self.stream.cu_stream()) }
                .and(self.stream.synchronize())
        })
    }

    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), DeviceError> {
        self.context.call("copy", || {
            // SAFETY: the caller owns both regions, which do not overlap; the stream orders their uses.
            unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }
        })
    }

    fn launch(
        &self,
        kernel: &'static Kernel,
        shape: LaunchShape,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        let Some(function) = self.context.kernels.function(kernel) else {
            return Err(self.refuse(kernel, format!("there is no such kernel in kernels/{}.cu", kernel.file)));
        };
        if !arguments.iter().map(|argument| argument.size).eq(function.parameters().iter().copied()) {
            let sizes: Vec<usize> = arguments.iter().map(|argument| argument.size).collect();
            let expected = function.parameters();
            return Err(self.refuse(kernel, format!("arguments of {sizes:?} bytes, expected {expected:?}")));
        }
        let mut words: Vec<*mut c_void> =
            arguments.iter().map(|argument| argument.word.as_ptr().cast_mut().cast()).collect();
        let LaunchShape { grid: [x, y, z], block, shared_bytes } = shape;
        self.context.call(kernel.name, || {
            function.allow_shared(shared_bytes)?;
            // SAFETY: the function is loaded as long as the context is open. Number and sizes of the arguments are
            // those that the kernel was compiled with, and the driver copies them before it returns. That the
            // addresses are of memory that the kernel may use is the launcher's part.
            unsafe {
                result::launch_kernel(
                    function.handle(),
                    (x, y, z),
                    (block, 1, 1),
                    shared_bytes,
                    self.stream.cu_stream(),
                    &mut words,
                )
            }
        })
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.context.call("synchronize", || self.stream.synchronize())
    }
}
