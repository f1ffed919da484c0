//! The device that is measured, and how.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bidslate::cuda::choice::Kernels;
use bidslate::cuda::launch::{Address, Buffer, Element, Launches, Stream};
use bidslate::error::DeviceError;
use bidslate::model::config::{ModelConfig, ModelSize};
use criterion::{Criterion, Throughput};
use half::bf16;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use simt::{Build, Copies, Schedule};

/// Inputs that are taken in turns hold at least this much together: more than the cache of any GPU.
const ROTATED_BYTES: usize = 256 << 20;
const MOST_COPIES: usize = 64;

/// What a launch finds in the cache of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// What the launch before left there, unless the inputs are taken in turns.
    Warm,
    /// Nothing of its own: between two launches a copy goes through all of it.
    Cold,
}

/// A stream to measure on.
pub struct Device {
    pub stream: Arc<dyn Stream>,
    /// Whether it is the emulator: small sizes will do.
    pub emulated: bool,
    rng: RefCell<Xoshiro256PlusPlus>,
    /// `sweep_bytes` of memory, of which one half is copied to the other to fill the cache.
    sweep: Address,
    sweep_bytes: usize,
}

impl Device {
    /// The device that `BIDSLATE_DEVICE` names.
    pub fn named_by_environment() -> Option<Self> {
        let name = std::env::var("BIDSLATE_DEVICE").ok()?;
        let emulated = name == "emulator";
        let stream = match emulated {
            true => crate::emulator::stream(Build::Plain, Schedule::Forward, Copies::Lazy),
            false => crate::gpu::stream(&name),
        };
        let sweep_bytes = if emulated { 512 } else { ROTATED_BYTES };
        let sweep = stream.allocate(sweep_bytes).expect("device memory");
        stream.upload(sweep, &vec![1; sweep_bytes]).expect("device memory");
        let rng = RefCell::new(Xoshiro256PlusPlus::seed_from_u64(1));
        Some(Self { stream, emulated, rng, sweep, sweep_bytes })
    }

    /// So many streams of its own for an engine; on the emulator, which runs one thing at a time, one.
    pub fn streams(&self, count: usize) -> Vec<Arc<dyn Stream>> {
        if self.emulated {
            return vec![self.stream.clone()];
        }
        let name = std::env::var("BIDSLATE_DEVICE").expect("the device's name");
        let device: bidslate::engine::Device = name.parse().expect("a device");
        device.streams(count).expect("streams of the device")
    }

    /// One of two values: for a GPU, or for the emulator.
    pub fn pick<T>(&self, gpu: T, emulated: T) -> T {
        if self.emulated { emulated } else { gpu }
    }

    /// Model sizes: hidden size, width of the feed-forward layer, heads of 64.
    pub fn hidden_sizes(&self) -> Vec<usize> {
        self.pick(vec![256, 512, 1024], vec![64])
    }

    /// The model sizes of whole allocations.
    pub fn models(&self) -> Vec<ModelSize> {
        self.pick(vec![ModelSize::Small, ModelSize::Base, ModelSize::Large], vec![ModelSize::Tiny])
    }

    /// The configuration of a size; on the emulator with short histories and lists, and few beams.
    pub fn config(&self, size: ModelSize) -> ModelConfig {
        let config = ModelConfig::of_size(size);
        let small =
            ModelConfig { history_len: 5, list_len: 2, beam_width: 8, codebook_size: 40, ..config.clone() };
        self.pick(config, small)
    }

    /// Whether kernels run here; where not, it is said in words that `scripts/gpu-check` looks for.
    pub fn runs(&self, kernels: Kernels) -> bool {
        match self.stream.hopper() {
            Err(error) if matches!(kernels, Kernels::Hopper | Kernels::Persistent) => {
                println!("skipped: {error}");
                false
            }
            _ => true,
        }
    }

    /// Sets how launches follow each other from here on. Every engine that is built sets it for itself.
    pub fn set_launches(&self, launches: Launches) {
        self.stream.set_launches(launches).expect("launches that the device knows");
    }

    /// Requests of a batch.
    pub fn batches(&self) -> Vec<usize> {
        self.pick(vec![1, 8, 32, 128], vec![2])
    }

    /// Encoder rows of a request with a full history.
    pub fn tokens(&self) -> usize {
        self.pick(1792, 70)
    }

    /// Numbers from -1 to 1.
    pub fn numbers(&self, len: usize) -> Vec<f32> {
        let mut rng = self.rng.borrow_mut();
        (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    /// Copies of `[len]` random numbers, enough of them that `bytes` each do not fit into a cache together.
    pub fn rotated(&self, len: usize, bytes: usize) -> Vec<Buffer<bf16>> {
        let values: Vec<bf16> = self.numbers(len).into_iter().map(bf16::from_f32).collect();
        (0..self.copies(bytes)).map(|_| self.upload(&values)).collect()
    }

    /// As [`Device::rotated`], in f32.
    pub fn rotated_f32(&self, len: usize, bytes: usize) -> Vec<Buffer<f32>> {
        let values = self.numbers(len);
        (0..self.copies(bytes)).map(|_| self.upload(&values)).collect()
    }

    /// How many copies of `bytes` do not fit into a cache together.
    pub fn copies(&self, bytes: usize) -> usize {
        self.pick((ROTATED_BYTES / bytes.max(1)).clamp(2, MOST_COPIES), 2)
    }

    pub fn upload<T: Element>(&self, values: &[T]) -> Buffer<T> {
        Buffer::from_slice(&self.stream, values).expect("device memory")
    }

    /// Measures launches of `work`, which is given their number: the time of many between two events, or of each by
    /// itself where the cache is to be cold.
    pub fn bench(
        &self,
        criterion: &mut Criterion,
        name: &str,
        throughput: Throughput,
        cache: Cache,
        mut work: impl FnMut(usize) -> Result<(), DeviceError>,
    ) {
        let mut group = criterion.benchmark_group(name);
        group.throughput(throughput);
        group.bench_function("gpu", |bencher| {
            bencher.iter_custom(|runs| {
                let time = match cache {
                    Cache::Warm => {
                        let mut all = || (0..runs as usize).try_for_each(&mut work);
                        self.stream.time(&mut all)
                    }
                    Cache::Cold => (0..runs as usize).map(|run| self.time_cold(&mut || work(run))).sum(),
                };
                time.unwrap_or_else(|error| panic!("{name}: {error}"))
            });
        });
        group.finish();
    }

    /// The time of `work` after a copy that goes through the cache. While the device copies, the host enqueues, so
    /// that what it takes for that is not measured as long as it takes less.
    fn time_cold(&self, work: &mut dyn FnMut() -> Result<(), DeviceError>) -> Result<Duration, DeviceError> {
        let half = self.sweep_bytes / 2;
        self.stream.copy(self.sweep + half as Address, self.sweep, half)?;
        self.stream.time(work)
    }
}

/// What a name ends in where other kernels run than those of the table, or launches are programmatic.
pub fn suffix(kernels: Kernels, launches: Launches) -> &'static str {
    match (kernels, launches) {
        (Kernels::Measured | Kernels::Portable, Launches::Ordinary) => "",
        (Kernels::Measured | Kernels::Portable, Launches::Programmatic) => ", programmatic",
        (Kernels::Hopper, Launches::Ordinary) => ", hopper",
        (Kernels::Hopper, Launches::Programmatic) => ", hopper programmatic",
        (Kernels::Persistent, Launches::Ordinary) => ", persistent",
        (Kernels::Persistent, Launches::Programmatic) => ", persistent programmatic",
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stream.free(self.sweep);
    }
}
