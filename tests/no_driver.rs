//! A build with the CUDA backend where there is no driver, or not the device: typed errors, never a panic.
#![cfg(feature = "cuda")]

use bidslate::cuda::driver::Driver;
use bidslate::engine::{Device, Engine};
use bidslate::error::{BuildError, DeviceError};

/// An index that no machine has.
const BEYOND: usize = 1_000_000;

fn assert_not_there(error: DeviceError, index: usize) {
    let named = match error {
        DeviceError::NoDriver(named) => named,
        DeviceError::DriverTooOld { index, .. } => index,
        DeviceError::NoDevice { index, count } => {
            assert!(index >= count, "cuda:{index} is among {count} devices");
            index
        }
        other => panic!("{other}"),
    };
    assert_eq!(named, index);
}

#[test]
fn a_device_that_is_not_there_is_named() {
    assert_not_there(Driver::open(BEYOND).err().expect("no machine has so many devices"), BEYOND);
}

#[test]
fn the_first_device_opens_or_is_not_there() {
    if let Err(error) = Driver::open(0) {
        assert_not_there(error, 0);
    }
}

#[test]
fn an_engine_is_not_built_without_its_device() {
    match Engine::builder().device(Device::cuda(BEYOND)).build() {
        Err(BuildError::Device(error)) => assert_not_there(error, BEYOND),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("built on a device that is not there"),
    }
}
