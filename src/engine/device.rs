//! Where an engine runs.

use std::str::FromStr;
use std::sync::Arc;

use crate::cuda::launch::Stream;
use crate::error::DeviceError;

/// A device. Asking for one that is not there is an error when the engine is built, never a silent fall-back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its index.
    Cuda(usize),
}

impl Device {
    /// The processor.
    pub fn cpu() -> Self {
        Self::Cpu
    }

    /// The NVIDIA GPU with index `index`.
    pub fn cuda(index: usize) -> Self {
        Self::Cuda(index)
    }

    /// So many streams of the GPU, which run side by side; none of the processor.
    ///
    /// # Errors
    /// [`DeviceError`] where the GPU is not there.
    pub fn streams(self, count: usize) -> Result<Vec<Arc<dyn Stream>>, DeviceError> {
        match self {
            Self::Cpu => Ok(Vec::new()),
            Self::Cuda(index) => open(index, count),
        }
    }
}

#[cfg(feature = "cuda")]
fn open(index: usize, streams: usize) -> Result<Vec<Arc<dyn Stream>>, DeviceError> {
    let driver = crate::cuda::driver::Driver::open(index)?;
    (0..streams).map(|_| driver.stream()).collect()
}

#[cfg(not(feature = "cuda"))]
fn open(index: usize, _: usize) -> Result<Vec<Arc<dyn Stream>>, DeviceError> {
    Err(DeviceError::NoCuda(index))
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(name.into());
        match name.split_once(':') {
            None if name == "cpu" => Ok(Self::Cpu),
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}
