//! One stream of the driver.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cudarc::driver::sys::{CUevent, CUevent_flags, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use cudarc::driver::{CudaStream, DriverError, result};

use super::Context;
use super::function::Function;
use super::graph::DriverGraph;
use super::staging::{STAGING_BYTES, Staging};
use super::tensor_map;
use crate::cuda::launch::{
    Address, Download, Graph, Kernel, LaunchShape, Launches, Stream, Tensor, TensorMap,
};
use crate::error::DeviceError;

pub(super) struct DriverStream {
    stream: Arc<CudaStream>,
    context: Arc<Context>,
    /// Whether work is recorded instead of run.
    capturing: AtomicBool,
    /// Whether nothing was recorded since that began.
    nothing_recorded: AtomicBool,
    /// Whether launches are programmatic.
    programmatic: AtomicBool,
    staging: Mutex<Staging>,
}

impl DriverStream {
    /// A stream of the context, which is current.
    pub fn new(context: Arc<Context>, stream: Arc<CudaStream>) -> Result<Self, DriverError> {
        let staging = Mutex::new(Staging::new()?);
        let [capturing, nothing_recorded, programmatic] = [(); 3].map(|()| AtomicBool::new(false));
        Ok(Self { stream, context, capturing, nothing_recorded, programmatic, staging })
    }

    /// A panic while it was held left at most a copy undone.
    fn staging(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that cannot be part of a graph.
    fn call<T>(&self, name: &str, call: impl FnOnce() -> Result<T, DriverError>) -> Result<T, DeviceError> {
        match self.capturing.load(Ordering::Relaxed) {
            true => Err(self.refuse(name, "not while a graph is recorded".into())),
            false => self.context.call(name, call),
        }
    }

    /// How the next launch follows the one before. The first of a graph follows none, and is not said to.
    fn of_next_launch(&self) -> Launches {
        let opens_graph = self.nothing_recorded.swap(false, Ordering::Relaxed);
        match self.programmatic.load(Ordering::Relaxed) && !opens_graph {
            true => Launches::Programmatic,
            false => Launches::Ordinary,
        }
    }

    fn out_of_memory(&self, needed: usize) -> Result<DeviceError, DeviceError> {
        let (free, total) = self.call("allocate", || self.stream.context().mem_get_info())?;
        Ok(DeviceError::OutOfMemory { device: self.context.device.clone(), needed, free, total })
    }

    fn function(&self, kernel: &Kernel) -> Result<&Function, DeviceError> {
        let missing = || format!("there is no such kernel in kernels/{}.cu", kernel.file);
        self.context.kernels.function(kernel).ok_or_else(|| self.refuse(kernel.name, missing()))
    }

    fn refuse(&self, call: &str, message: String) -> DeviceError {
        DeviceError::Failed { device: self.context.device.clone(), call: call.into(), message }
    }
}

impl Stream for DriverStream {
    fn describe(&self) -> String {
        self.context.description.clone()
    }

    fn kind(&self) -> String {
        format!("cuda {}", self.context.architecture)
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
        let allocated = self.call("allocate", || {
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
        let _ = self.call("free", || {
            // SAFETY: `allocate` gave the address, and all work of the stream that could use it is done.
            unsafe { result::free_sync(address) }
        });
    }

    fn upload(&self, to: Address, from: &[u8]) -> Result<(), DeviceError> {
        self.call("upload", || {
            if from.len() > STAGING_BYTES {
                // SAFETY: the caller owns the destination. The source is pageable memory, which the driver has read
                // when it returns.
                return unsafe { result::memcpy_htod_async(to, from, self.stream.cu_stream()) };
            }
            // SAFETY: the caller owns the destination.
            unsafe { self.staging().upload(to, from, self.stream.cu_stream()) }
        })
    }

    fn download(&self, copies: &mut [Download]) -> Result<(), DeviceError> {
        self.call("download", || {
            if Staging::holds(copies) {
                // SAFETY: the caller owns the sources.
                return unsafe { self.staging().download(copies, self.stream.cu_stream()) };
            }
            let copied = copies.iter_mut().try_for_each(|copy| {
                // SAFETY: the caller owns the source, and `to` outlives the copy, which is waited for.
                unsafe { result::memcpy_dtoh_async(copy.to, copy.from, self.stream.cu_stream()) }
            });
            copied.and(self.stream.synchronize())
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
        arguments: &[&[u8]],
    ) -> Result<(), DeviceError> {
        let function = self.function(kernel)?;
        if !arguments.iter().map(|argument| argument.len()).eq(function.parameters().iter().copied()) {
            let sizes: Vec<usize> = arguments.iter().map(|argument| argument.len()).collect();
            let expected = function.parameters();
            return Err(
                self.refuse(kernel.name, format!("arguments of {sizes:?} bytes, expected {expected:?}"))
            );
        }
        if shape.cluster > 1 {
            self.hopper()?;
        }
        self.context.call(kernel.name, || {
            // SAFETY: number and sizes of the arguments are those that the kernel was compiled with. That the addresses
            // among them are of memory that the kernel may use is the launcher's part.
            unsafe { function.launch(shape, self.of_next_launch(), arguments, self.stream.cu_stream()) }
        })
    }

    fn resident(&self, kernel: &'static Kernel, shape: LaunchShape) -> Result<usize, DeviceError> {
        let function = self.function(kernel)?;
        if shape.cluster > 1 {
            self.hopper()?;
        }
        self.call(kernel.name, || function.resident(shape, self.context.multiprocessors()?))
    }

    fn set_launches(&self, launches: Launches) -> Result<(), DeviceError> {
        let programmatic = launches == Launches::Programmatic;
        if programmatic {
            self.hopper()?;
        }
        self.programmatic.store(programmatic, Ordering::Relaxed);
        Ok(())
    }

    fn hopper(&self) -> Result<(), DeviceError> {
        let Context { device, name, architecture, hopper, .. } = &*self.context;
        match hopper {
            true => Ok(()),
            false => Err(DeviceError::NotHopper {
                device: format!("{device}, {name}"),
                found: architecture.clone(),
            }),
        }
    }

    fn tensor_map(&self, tensor: &Tensor) -> Result<TensorMap, DeviceError> {
        self.hopper()?;
        self.context.call("tensor map", || tensor_map::encode(tensor))
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.call("synchronize", || self.staging().synchronize(self.stream.cu_stream()))
    }

    fn capture(
        &self,
        work: &mut dyn FnMut() -> Result<(), DeviceError>,
    ) -> Result<Box<dyn Graph>, DeviceError> {
        // Other threads are free to work on other streams.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.call("begin capture", || self.stream.begin_capture(mode))?;
        self.capturing.store(true, Ordering::Relaxed);
        self.nothing_recorded.store(true, Ordering::Relaxed);
        let worked = work();
        self.capturing.store(false, Ordering::Relaxed);
        self.nothing_recorded.store(false, Ordering::Relaxed);
        // Whatever came of the work: the stream is good for nothing else before.
        let flags = CUgraphInstantiate_flags(0);
        let graph = self.context.call("end capture", || self.stream.end_capture(flags));
        worked?;
        let graph = graph?.ok_or_else(|| self.refuse("end capture", "there is no graph".into()))?;
        self.context.call("upload graph", || graph.upload())?;
        Ok(Box::new(DriverGraph::new(graph, self.context.clone())))
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<(), DeviceError>) -> Result<Duration, DeviceError> {
        let [start, end] = [self.event()?, self.event()?];
        start.record()?;
        work()?;
        end.record()?;
        self.synchronize()?;
        let milliseconds = self.call("time", || {
            // SAFETY: both events are of this stream and were recorded.
            unsafe { result::event::elapsed(start.event, end.event) }
        })?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }

    fn shared_bytes(&self) -> usize {
        self.context.shared_bytes
    }
}

impl DriverStream {
    fn event(&self) -> Result<Event<'_>, DeviceError> {
        let event = self.call("time", || result::event::create(CUevent_flags::CU_EVENT_DEFAULT))?;
        Ok(Event { event, stream: self })
    }
}

/// A moment in the work of a stream.
struct Event<'s> {
    event: CUevent,
    stream: &'s DriverStream,
}

impl Event<'_> {
    fn record(&self) -> Result<(), DeviceError> {
        self.stream.call("time", || {
            // SAFETY: event and stream are of one context, and live.
            unsafe { result::event::record(self.event, self.stream.stream.cu_stream()) }
        })
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        // There is nobody to tell: where the context is lost, the event is gone with it.
        let _ = self.stream.context.call("time", || {
            // SAFETY: the event was created and is not used again; the driver keeps it until the work is done.
            unsafe { result::event::destroy(self.event) }
        });
    }
}

impl Drop for DriverStream {
    fn drop(&mut self) {
        let _ = self.synchronize();
        let mut staging = self.staging();
        let _ = self.context.call("free", || {
            // SAFETY: the stream was waited for, or its context is lost; nothing comes after this.
            unsafe { staging.free() }
        });
    }
}
