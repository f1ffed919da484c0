//! The device that is measured, and how.

use std::cell::RefCell;
use std::sync::Arc;

use bidslate::cuda::launch::{Buffer, Element, Stream};
use bidslate::error::DeviceError;
use bidslate::model::config::ModelSize;
use criterion::{Criterion, Throughput};
use half::bf16;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use simt::{Build, Copies, Schedule};

/// Inputs that are taken in turns hold at least this much together: more than the cache of any GPU.
const ROTATED_BYTES: usize = 256 << 20;
const MOST_COPIES: usize = 64;

/// A stream to measure on.
pub struct Device {
    pub stream: Arc<dyn Stream>,
    /// Whether it is the emulator: small sizes will do.
    pub emulated: bool,
    rng: RefCell<Xoshiro256PlusPlus>,
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
        Some(Self { stream, emulated, rng: RefCell::new(Xoshiro256PlusPlus::seed_from_u64(1)) })
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

    /// Measures launches of `work`, which is given their number.
    pub fn bench(
        &self,
        criterion: &mut Criterion,
        name: &str,
        throughput: Throughput,
        mut work: impl FnMut(usize) -> Result<(), DeviceError>,
    ) {
        let mut group = criterion.benchmark_group(name);
        group.throughput(throughput);
        group.bench_function("gpu", |bencher| {
            bencher.iter_custom(|runs| {
                let mut all = || (0..runs as usize).try_for_each(&mut work);
                self.stream.time(&mut all).unwrap_or_else(|error| panic!("{name}: {error}"))
            });
        });
        group.finish();
    }
}
