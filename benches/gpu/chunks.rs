//! A large call, run a few requests at a time, each to its end before the next begin: which number serves the most.
//!
//! `Limits::batch` is that number. Few requests keep their keys and values in the cache of the device while they are
//! searched; many share the launches and the weights.

use bidslate::engine::Kernels;
use criterion::Criterion;

use crate::allocations::run;
use crate::costs::{Stages, throughput};
use crate::device::Device;
use crate::engines;
use crate::experiment::GPU_CALLERS;

pub fn bench(criterion: &mut Criterion, device: &Device) {
    let requests = device.pick(128, 3);
    for model in device.models() {
        let config = device.config(model);
        let least = throughput(Stages::new(&config, requests).allocate());
        let mut group =
            criterion.benchmark_group(format!("allocate d {}, batch {requests}", config.hidden_size));
        group.throughput(least).sample_size(10);
        for at_once in device.pick(vec![2, 4, 8, 16, 32, 64], vec![2]) {
            let streams = device.streams(GPU_CALLERS);
            let (engine, requests) =
                engines::build(device, &config, streams, Kernels::Measured, at_once, requests);
            group.bench_function(format!("{at_once} at a time"), |bencher| {
                bencher.iter_custom(|runs| (0..runs).map(|_| run(&engine, &requests)).sum());
            });
        }
        group.finish();
    }
}
