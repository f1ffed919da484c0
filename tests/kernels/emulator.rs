//! The emulated GPU as a device of the engine's host side.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bidslate::cuda::launch::{
    Address, Boxes, Download, Graph, Kernel, LaunchShape, Launches, Stream, Swizzle, Tensor, TensorMap,
};
use bidslate::cuda::tiling::size;
use bidslate::error::DeviceError;
use simt::{Build, Copies, Emulator, Schedule};

/// Shared memory of a block, as on an H100.
const SHARED_BYTES: usize = 227 << 10;

/// A stream whose work runs at once, on the thread that enqueues it.
pub struct EmulatedStream {
    device: Device,
    /// What was enqueued since a recording began.
    recorded: Mutex<Option<Vec<Work>>>,
    /// Shared memory of a block.
    shared_bytes: usize,
    /// Threads that the emulator runs at the same time.
    most_threads: u32,
}

#[derive(Clone)]
struct Device {
    emulator: Emulator,
    name: String,
}

/// What a graph is made of.
enum Work {
    /// With the bytes of each argument.
    Launch(&'static Kernel, LaunchShape, Vec<Vec<u8>>),
    Copy {
        to: Address,
        from: Address,
        bytes: usize,
    },
}

/// A stream on an emulator of this build and behaviour.
pub fn stream(build: Build, schedule: Schedule, copies: Copies) -> Arc<dyn Stream> {
    stream_with(build, schedule, copies, SHARED_BYTES)
}

/// A stream on an emulator whose blocks have this much shared memory. Its launches are dependent whatever
/// [`Stream::set_launches`] asks for: so every kernel of every test is held to what programmatic launches need, and none
/// can be right in one kind of engine alone.
pub fn stream_with(build: Build, schedule: Schedule, copies: Copies, shared_bytes: usize) -> Arc<dyn Stream> {
    let emulator = Emulator::open(build).unwrap().schedule(schedule).copies(copies).dependent();
    let device = Device { emulator, name: format!("emulator, {build:?}, {schedule:?}, {copies:?}") };
    let most_threads = match build {
        Build::Plain => 4096,
        Build::Check => 1024,
    };
    Arc::new(EmulatedStream { device, recorded: Mutex::new(None), shared_bytes, most_threads })
}

impl Device {
    fn failed<E: std::fmt::Display>(&self, call: &str) -> impl FnOnce(E) -> DeviceError {
        let (device, call) = (self.name.clone(), call.to_owned());
        move |error| DeviceError::Failed { device, call, message: error.to_string() }
    }

    fn run(&self, work: &Work) -> Result<(), DeviceError> {
        match work {
            Work::Copy { to, from, bytes } => {
                self.emulator.copy(*to, *from, *bytes).map_err(self.failed("copy"))
            }
            Work::Launch(kernel, shape, arguments) => {
                let bytes: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
                let LaunchShape { grid, block, shared_bytes, cluster, cooperative } = *shape;
                let block = [block, 1, 1];
                // SAFETY: the addresses among the arguments come from this emulator's memory, where the kernels stay;
                // what they do outside of it is what the tests are to find.
                let run = unsafe {
                    let (emulator, name) = (&self.emulator, kernel.name);
                    match cooperative {
                        true => emulator.launch_cooperative(name, grid, block, cluster, shared_bytes, &bytes),
                        false => emulator.launch_clusters(name, grid, block, cluster, shared_bytes, &bytes),
                    }
                };
                run.map(|_| ()).map_err(self.failed(kernel.name))
            }
        }
    }
}

impl EmulatedStream {
    /// The emulator, for what cannot be recorded.
    fn emulator(&self, call: &str) -> Result<&Emulator, DeviceError> {
        match *self.recorded.lock().unwrap() {
            Some(_) => Err(self.device.failed(call)("not while a graph is recorded")),
            None => Ok(&self.device.emulator),
        }
    }

    fn enqueue(&self, work: Work) -> Result<(), DeviceError> {
        match &mut *self.recorded.lock().unwrap() {
            Some(recorded) => {
                recorded.push(work);
                Ok(())
            }
            None => self.device.run(&work),
        }
    }
}

impl Stream for EmulatedStream {
    fn describe(&self) -> String {
        self.device.name.clone()
    }

    fn kind(&self) -> String {
        "emulator".into()
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceError> {
        self.emulator("allocate")?.allocate(bytes).map_err(self.device.failed("allocate"))
    }

    fn free(&self, address: Address) {
        self.device.emulator.free(address).unwrap();
    }

    fn upload(&self, to: Address, from: &[u8]) -> Result<(), DeviceError> {
        self.emulator("upload")?.write(to, from).map_err(self.device.failed("upload"))
    }

    fn download(&self, copies: &mut [Download]) -> Result<(), DeviceError> {
        let emulator = self.emulator("download")?;
        let mut read = copies.iter_mut().map(|copy| emulator.read(copy.from, copy.to));
        read.try_for_each(|read| read.map_err(self.device.failed("download")))
    }

    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<(), DeviceError> {
        self.enqueue(Work::Copy { to, from, bytes })
    }

    fn launch(
        &self,
        kernel: &'static Kernel,
        shape: LaunchShape,
        arguments: &[&[u8]],
    ) -> Result<(), DeviceError> {
        self.enqueue(Work::Launch(kernel, shape, arguments.iter().map(|bytes| bytes.to_vec()).collect()))
    }

    fn resident(&self, _: &'static Kernel, shape: LaunchShape) -> Result<usize, DeviceError> {
        let blocks = self.most_threads / shape.block;
        Ok((blocks - blocks % shape.cluster) as usize)
    }

    fn set_launches(&self, _: Launches) -> Result<(), DeviceError> {
        Ok(())
    }

    fn hopper(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn tensor_map(&self, tensor: &Tensor) -> Result<TensorMap, DeviceError> {
        let Tensor { address, element, boxes: Boxes { sizes, strides, sides, swizzle } } = *tensor;
        let swizzle = match swizzle {
            Swizzle::None => simt::Swizzle::None,
            Swizzle::Bytes32 => simt::Swizzle::Bytes32,
            Swizzle::Bytes64 => simt::Swizzle::Bytes64,
            Swizzle::Bytes128 => simt::Swizzle::Bytes128,
        };
        let count = |counts: &[usize]| counts.iter().map(|&count| size(count)).collect::<Vec<_>>();
        let strides: Vec<u64> = strides.iter().map(|stride| (stride * element.bytes()) as u64).collect();
        let (bytes, sizes, sides) = (element.bytes() as u32, count(sizes), count(sides));
        let map = simt::TensorMap::tiled(address, bytes, &sizes, &strides, &sides, swizzle);
        map.map(|map| TensorMap(map.bytes())).map_err(self.device.failed("tensor map"))
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.emulator("synchronize").map(|_| ())
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<(), DeviceError>) -> Result<Duration, DeviceError> {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed())
    }

    fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }

    fn capture(
        &self,
        work: &mut dyn FnMut() -> Result<(), DeviceError>,
    ) -> Result<Box<dyn Graph>, DeviceError> {
        self.emulator("begin capture")?;
        *self.recorded.lock().unwrap() = Some(Vec::new());
        let worked = work();
        let works = self.recorded.lock().unwrap().take().unwrap_or_default();
        worked?;
        Ok(Box::new(EmulatedGraph { device: self.device.clone(), works }))
    }
}

/// Recorded work, run again at each launch.
struct EmulatedGraph {
    device: Device,
    works: Vec<Work>,
}

impl Graph for EmulatedGraph {
    fn launch(&self) -> Result<(), DeviceError> {
        self.works.iter().try_for_each(|work| self.device.run(work))
    }
}
