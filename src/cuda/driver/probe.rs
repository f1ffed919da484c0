//! Whether a GPU is there and new enough.

use cudarc::driver::sys::{self, CUdevice_attribute};
use cudarc::driver::{DriverError, result};

use super::failure;
use crate::error::DeviceError;

/// The CUDA release that the kernels are compiled with, as the driver writes it.
const DRIVER: i32 = 13_000;
/// The oldest compute capability that the kernels are compiled for.
const CAPABILITY: (i32, i32) = (8, 0);

/// The one whose own instructions the sm_90a half of a fatbin holds; no other runs that half, newer or not.
const HOPPER: (i32, i32) = (9, 0);

/// A device that can be opened.
pub(super) struct Found {
    /// Name of the device.
    pub name: String,
    /// Its architecture: `sm_90`.
    pub architecture: String,
    /// Whether the code for sm_90a runs.
    pub hopper: bool,
    /// CUDA version of the driver.
    pub driver: String,
    /// Most dynamic shared memory that a block may have.
    pub shared_bytes: usize,
}

/// Looks for the device. Nothing here panics, whatever is missing: cudarc does where it loads a library or a symbol
/// that is not there, so the library comes first and the version, which vouches for the symbols, next.
pub(super) fn probe(index: usize) -> Result<Found, DeviceError> {
    let device = format!("cuda:{index}");
    let failed = |error| failure(&device, "probe", error);
    // SAFETY: this loads the NVIDIA driver's library, whose initialisers are those of any CUDA program.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError::NoDriver(index));
    }
    let version = driver_version().map_err(failed)?;
    if version < DRIVER {
        return Err(DeviceError::DriverTooOld { index, found: release(version), needed: release(DRIVER) });
    }
    let count = device_count().map_err(failed)?;
    if index >= count {
        return Err(DeviceError::NoDevice { index, count });
    }
    let Properties { name, capability, shared_bytes } = properties(index).map_err(failed)?;
    if capability < CAPABILITY {
        let dotted = |(major, minor)| format!("{major}.{minor}");
        return Err(DeviceError::Architecture {
            device: format!("{device}, {name}"),
            found: dotted(capability),
            needed: dotted(CAPABILITY),
        });
    }
    let architecture = format!("sm_{}{}", capability.0, capability.1);
    let hopper = capability == HOPPER;
    Ok(Found { name, architecture, hopper, driver: release(version), shared_bytes })
}

/// The CUDA version that the driver supports, 1000 major + 10 minor.
fn driver_version() -> Result<i32, DriverError> {
    let mut version = 0;
    // SAFETY: the library is present and has had this function since CUDA 2.2; it writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(version)
}

/// `13.0` of 13000.
fn release(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn device_count() -> Result<usize, DriverError> {
    match result::init() {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        other => other.and_then(|()| Ok(result::device::get_count()?.max(0) as usize)),
    }
}

struct Properties {
    name: String,
    /// Compute capability.
    capability: (i32, i32),
    shared_bytes: usize,
}

fn properties(index: usize) -> Result<Properties, DriverError> {
    use CUdevice_attribute::*;
    let device = result::device::get(index as i32)?;
    let attribute = |attribute| {
        // SAFETY: the driver gave the device.
        unsafe { result::device::get_attribute(device, attribute) }
    };
    let major = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let shared_bytes = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    Ok(Properties {
        name: result::device::get_name(device)?,
        capability: (major, minor),
        shared_bytes: shared_bytes.max(0) as usize,
    })
}

#[cfg(test)]
mod tests {
    use super::release;

    #[test]
    fn releases_are_written_as_versions() {
        assert_eq!(release(13_000), "13.0");
        assert_eq!(release(12_080), "12.8");
    }
}
