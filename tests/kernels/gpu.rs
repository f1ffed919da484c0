//! A GPU in the place of the emulator.

#[cfg(not(feature = "cuda"))]
pub use without::stream;

#[cfg(feature = "cuda")]
pub use with::stream;

#[cfg(not(feature = "cuda"))]
mod without {
    use std::sync::Arc;

    use bidslate::cuda::launch::Stream;

    pub fn stream(device: &str) -> Arc<dyn Stream> {
        panic!("BIDSLATE_DEVICE is {device:?}, and these tests are built without the feature `cuda`")
    }
}

#[cfg(feature = "cuda")]
mod with {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::sync::Arc;
    use std::time::Duration;

    use bidslate::cuda::driver::Driver;
    use bidslate::cuda::launch::{Address, Argument, Download, Graph, Kernel, LaunchShape, Stream};
    use bidslate::engine::Device;
    use bidslate::error::DeviceError;

    /// A stream on the device that `BIDSLATE_DEVICE` names, `cuda:N`. What it launches is added to the file that
    /// `BIDSLATE_LAUNCHED` names, if any: a line `FILE KERNEL` per launch.
    pub fn stream(device: &str) -> Arc<dyn Stream> {
        let stream = match device.parse() {
            Ok(Device::Cuda(index)) => Driver::open(index).and_then(|driver| driver.stream()).unwrap(),
            _ => panic!("BIDSLATE_DEVICE is {device:?}, expected `cuda:N`"),
        };
        match std::env::var_os("BIDSLATE_LAUNCHED") {
            Some(path) => Arc::new(Witness {
                stream,
                launched: OpenOptions::new().append(true).create(true).open(path).unwrap(),
            }),
            None => stream,
        }
    }

    /// A stream that writes down which kernels it launches.
    struct Witness {
        stream: Arc<dyn Stream>,
        launched: std::fs::File,
    }

    impl Stream for Witness {
        fn describe(&self) -> String {
            self.stream.describe()
        }

        fn kind(&self) -> String {
            self.stream.kind()
        }

        fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
            self.stream.allocate(bytes)
        }

        fn free(&self, address: Address) {
            self.stream.free(address);
        }

        fn upload(&self, to: Address, from: &[u8]) -> Result<(), DeviceError> {
            self.stream.upload(to, from)
        }

        fn download(&self, copies: &mut [Download]) -> Result<(), DeviceError> {
            self.stream.download(copies)
        }

        fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), DeviceError> {
            self.stream.copy(to, from, bytes)
        }

        fn launch(
            &self,
            kernel: &'static Kernel,
            shape: LaunchShape,
            arguments: &[Argument],
        ) -> Result<(), DeviceError> {
            self.stream.launch(kernel, shape, arguments)?;
            writeln!(&self.launched, "{} {}", kernel.file, kernel.name).unwrap();
            Ok(())
        }

        fn synchronize(&self) -> Result<(), DeviceError> {
            self.stream.synchronize()
        }

        fn time(&self, work: &mut dyn FnMut() -> Result<(), DeviceError>) -> Result<Duration, DeviceError> {
            self.stream.time(work)
        }

        fn shared_bytes(&self) -> usize {
            self.stream.shared_bytes()
        }

        fn capture(
            &self,
            work: &mut dyn FnMut() -> Result<(), DeviceError>,
        ) -> Result<Box<dyn Graph>, DeviceError> {
            self.stream.capture(work)
        }
    }
}
