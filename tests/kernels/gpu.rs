//! A GPU in the place of the emulator.

use std::sync::Arc;

use bidslate::cuda::launch::Stream;

/// A stream on the device that `BIDSLATE_DEVICE` names, `cuda:N`.
#[cfg(feature = "cuda")]
pub fn stream(device: &str) -> Arc<dyn Stream> {
    use bidslate::cuda::driver::Driver;
    use bidslate::engine::Device;

    match device.parse() {
        Ok(Device::Cuda(index)) => Driver::open(index).and_then(|driver| driver.stream()).unwrap(),
        _ => panic!("BIDSLATE_DEVICE is {device:?}, expected `cuda:N`"),
    }
}

#[cfg(not(feature = "cuda"))]
pub fn stream(device: &str) -> Arc<dyn Stream> {
    panic!("BIDSLATE_DEVICE is {device:?}, and this is built without the feature `cuda`")
}
