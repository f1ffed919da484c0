//! A stream that tells what is asked of it, and that may have little memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bidslate::cuda::launch::{
    Address, Download, Graph, Kernel, LaunchShape, Launches, Stream, Tensor, TensorMap,
};
use bidslate::error::DeviceError;

/// Copies between host and device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// To the device.
    Up,
    /// To the host, all that were waited for at once.
    Down,
}

/// What is called with the kernel before each launch, a launch that is recorded too.
pub type Hook = Box<dyn Fn(&'static Kernel) + Send + Sync>;

/// A stream that notes the copies between host and device, and the memory in use.
pub struct Watched {
    inner: Arc<dyn Stream>,
    copies: Mutex<Vec<Copied>>,
    launches: Mutex<Option<Launches>>,
    hook: Hook,
    /// Bytes that may be in use at a time.
    most: usize,
    in_use: Mutex<HashMap<Address, usize>>,
}

impl Watched {
    pub fn new(inner: Arc<dyn Stream>, hook: Hook) -> Arc<Self> {
        Arc::new(Self {
            inner,
            copies: Mutex::default(),
            launches: Mutex::default(),
            hook,
            most: usize::MAX,
            in_use: Mutex::default(),
        })
    }

    /// A stream of a device with `most` bytes of memory.
    pub fn with_memory(inner: Arc<dyn Stream>, most: usize) -> Arc<Self> {
        Arc::new(Self { most, ..Arc::into_inner(Self::new(inner, Box::new(|_| ()))).unwrap() })
    }

    /// Bytes in use.
    pub fn in_use(&self) -> usize {
        self.in_use.lock().unwrap().values().sum()
    }

    /// How launches follow each other, as last asked for.
    pub fn launches(&self) -> Option<Launches> {
        *self.launches.lock().unwrap()
    }

    /// The copies since the last call.
    pub fn copies(&self) -> Vec<Copied> {
        std::mem::take(&mut self.copies.lock().unwrap())
    }
}

impl Stream for Watched {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn kind(&self) -> String {
        self.inner.kind()
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
        let free = self.most - self.in_use();
        if bytes > free {
            let (device, total) = (self.describe(), self.most);
            return Err(DeviceError::OutOfMemory { device, needed: bytes, free, total });
        }
        let address = self.inner.allocate(bytes)?;
        self.in_use.lock().unwrap().insert(address, bytes);
        Ok(address)
    }

    fn free(&self, address: Address) {
        self.in_use.lock().unwrap().remove(&address);
        self.inner.free(address);
    }

    fn upload(&self, to: Address, from: &[u8]) -> Result<(), DeviceError> {
        self.copies.lock().unwrap().push(Copied::Up);
        self.inner.upload(to, from)
    }

    fn download(&self, copies: &mut [Download]) -> Result<(), DeviceError> {
        self.copies.lock().unwrap().push(Copied::Down);
        self.inner.download(copies)
    }

    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), DeviceError> {
        self.inner.copy(to, from, bytes)
    }

    fn launch(
        &self,
        kernel: &'static Kernel,
        shape: LaunchShape,
        arguments: &[&[u8]],
    ) -> Result<(), DeviceError> {
        (self.hook)(kernel);
        self.inner.launch(kernel, shape, arguments)
    }

    fn resident(&self, kernel: &'static Kernel, shape: LaunchShape) -> Result<usize, DeviceError> {
        self.inner.resident(kernel, shape)
    }

    fn set_launches(&self, launches: Launches) -> Result<(), DeviceError> {
        *self.launches.lock().unwrap() = Some(launches);
        self.inner.set_launches(launches)
    }

    fn hopper(&self) -> Result<(), DeviceError> {
        self.inner.hopper()
    }

    fn tensor_map(&self, tensor: &Tensor) -> Result<TensorMap, DeviceError> {
        self.inner.tensor_map(tensor)
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.inner.synchronize()
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<(), DeviceError>) -> Result<Duration, DeviceError> {
        self.inner.time(work)
    }

    fn shared_bytes(&self) -> usize {
        self.inner.shared_bytes()
    }

    fn capture(
        &self,
        work: &mut dyn FnMut() -> Result<(), DeviceError>,
    ) -> Result<Box<dyn Graph>, DeviceError> {
        self.inner.capture(work)
    }
}
