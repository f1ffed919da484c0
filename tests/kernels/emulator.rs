//! The emulated GPU as a device of the engine's host side.

use std::sync::Arc;

use bidslate::cuda::launch::{Address, Argument, Kernel, LaunchShape, Stream};
use bidslate::error::DeviceError;
use simt::{Build, Copies, Emulator, Schedule};

use crate::setup::Inputs;

/// A stream whose work runs at once, on the thread that enqueues it.
pub struct EmulatedStream {
    emulator: Emulator,
    name: String,
}

/// A stream on an emulator of this build and behaviour.
pub fn stream(build: Build, schedule: Schedule, copies: Copies) -> Arc<dyn Stream> {
    let emulator = Emulator::open(build).unwrap().schedule(schedule).copies(copies);
    Arc::new(EmulatedStream { emulator, name: format!("emulator, {build:?}, {schedule:?}, {copies:?}") })
}

/// What kernels are tested on: both builds of the emulator, the fast one, and the one that checks every access, in an
/// order of threads drawn anew. With `BIDSLATE_DEVICE=cuda:N` it is that GPU instead.
pub fn streams() -> Vec<Arc<dyn Stream>> {
    if let Ok(device) = std::env::var("BIDSLATE_DEVICE") {
        return vec![crate::gpu::stream(&device)];
    }
    let seed = Inputs::new().seed();
    vec![
        stream(Build::Plain, Schedule::Forward, Copies::Lazy),
        stream(Build::Check, Schedule::Random(seed), Copies::Random(seed)),
    ]
}

impl EmulatedStream {
    fn failed<E: std::fmt::Display>(&self, call: &str) -> impl FnOnce(E) -> DeviceError {
        let (device, call) = (self.name.clone(), call.to_owned());
        move |error| DeviceError::Failed { device, call, message: error.to_string() }
    }
}

impl Stream for EmulatedStream {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
        self.emulator.allocate(bytes).map_err(self.failed("allocate"))
    }

    fn free(&self, address: Address) {
        self.emulator.free(address).unwrap();
    }

    fn upload(&self, to: Address, from: &[u8]) -> Result<(), DeviceError> {
        self.emulator.write(to, from).map_err(self.failed("upload"))
    }

    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceError> {
        self.emulator.read(from, to).map_err(self.failed("download"))
    }

    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), DeviceError> {
        self.emulator.copy(to, from, bytes).map_err(self.failed("copy"))
    }

    fn launch(
        &self,
        kernel: &'static Kernel,
        shape: LaunchShape,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        let bytes: Vec<&[u8]> = arguments.iter().map(|argument| &argument.word[..argument.size]).collect();
        // SAFETY: the addresses among the arguments come from this emulator's memory, where the kernels stay; what
        // they do outside of it is what the tests are to find.
        let run = unsafe {
            self.emulator.launch(kernel.name, shape.grid, [shape.block, 1, 1], shape.shared_bytes, &bytes)
        };
        run.map(|_| ()).map_err(self.failed(kernel.name))
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}
