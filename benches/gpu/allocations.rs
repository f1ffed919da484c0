//! Whole allocations through the engine, on the host's clock, and the stages of a batch of one.

use std::time::{Duration, Instant};

use bidslate::cuda::launch::Launches;
use bidslate::engine::{Engine, Kernels, Report};
use bidslate::request::Request;
use bidslate::response::Timings;
use criterion::Criterion;

use crate::costs::{Stages, throughput};
use crate::device::{Device, suffix};
use crate::engines;

/// A stage: its name, and its time in a run.
type Stage = (&'static str, fn(&Timings) -> u64);

const STAGES: [Stage; 6] = [
    ("resolve", |t| t.resolve_us),
    ("encode", |t| t.encode_us),
    ("search", |t| t.search_us),
    ("creative", |t| t.creative_us),
    ("reward", |t| t.reward_us),
    ("payment", |t| t.payment_us),
];

pub fn bench(criterion: &mut Criterion, device: &Device) {
    bench_with(criterion, device, Kernels::Measured, Launches::Ordinary);
}

/// The same with programmatic launches.
pub fn bench_programmatic(criterion: &mut Criterion, device: &Device) {
    if device.runs(Kernels::Hopper) {
        bench_with(criterion, device, Kernels::Measured, Launches::Programmatic);
    }
}

/// The same with the search in its persistent form, where that runs.
pub fn bench_persistent(criterion: &mut Criterion, device: &Device) {
    if device.runs(Kernels::Persistent) {
        bench_with(criterion, device, Kernels::Persistent, Launches::Ordinary);
    }
}

/// The same with the kernels made for Hopper.
pub fn bench_hopper(criterion: &mut Criterion, device: &Device) {
    if device.runs(Kernels::Hopper) {
        bench_with(criterion, device, Kernels::Hopper, Launches::Ordinary);
    }
}

/// The same with those, and programmatic launches: what `Kernels::Hopper` asks an engine for.
pub fn bench_hopper_programmatic(criterion: &mut Criterion, device: &Device) {
    if device.runs(Kernels::Hopper) {
        bench_with(criterion, device, Kernels::Hopper, Launches::Programmatic);
    }
}

fn bench_with(criterion: &mut Criterion, device: &Device, kernels: Kernels, launches: Launches) {
    for model in device.models() {
        for batch in device.batches() {
            let streams = vec![device.stream.clone()];
            let (engine, requests) =
                engines::build(device, &device.config(model), streams, kernels, batch, batch);
            device.set_launches(launches);
            let config = engine.config();
            let d = config.hidden_size;
            let name = format!("allocate d {d}, batch {batch}{}", suffix(kernels, launches));
            let mut group = criterion.benchmark_group(name);
            group.throughput(throughput(Stages::new(config, batch).allocate())).sample_size(10);
            group.bench_function("engine", |bencher| {
                bencher.iter_custom(|runs| (0..runs).map(|_| run(&engine, &requests)).sum());
            });
            if batch == 1 {
                for (name, stage) in STAGES {
                    group.bench_function(name, |bencher| {
                        // A stage may take less than its clock shows.
                        let time = |_| Duration::from_micros(stage(&timings(&engine, &requests)).max(1));
                        bencher.iter_custom(|runs| (0..runs).map(time).sum());
                    });
                }
            }
            group.finish();
        }
    }
    device.set_launches(Launches::Ordinary);
}

/// The time of one call.
pub fn run(engine: &Engine, requests: &[Request]) -> Duration {
    let started = Instant::now();
    let answers = engine.allocate(requests);
    let time = started.elapsed();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    time
}

fn timings(engine: &Engine, requests: &[Request]) -> Timings {
    let report = Report { timings: true, ..Report::default() };
    let answer = engine.allocate_with(requests, report).remove(0).expect("an answer");
    answer.timings.expect("timings were asked for")
}
