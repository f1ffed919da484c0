//! Latency under load: the bench `load` with models of random weights, on two streams.

use bidslate::engine::Kernels;
use criterion::Criterion;
use serde_json::Map;

use crate::device::Device;
use crate::engines;
use crate::experiment::{self, Experiment, GPU_CALLERS};
use crate::serving::Team;

/// Most requests of a call: what an engine on a GPU takes at once unless told otherwise.
const BATCH: usize = 16;
/// Arrivals at each load, of which the 99th percentile leaves ten out.
const ARRIVALS: usize = 1000;
/// Requests that differ.
const REQUESTS: usize = 64;

pub fn bench(_: &mut Criterion, device: &Device) {
    let mut found = Map::new();
    for model in device.models() {
        let config = device.config(model);
        let streams = device.streams(GPU_CALLERS);
        let team = Team { callers: streams.len(), batch: device.pick(BATCH, 2) };
        let requests = device.pick(REQUESTS, 2);
        let (engine, requests) =
            engines::build(device, &config, streams, Kernels::Measured, team.batch, requests);
        let name = format!("d {}", config.hidden_size);
        let count = device.pick(ARRIVALS, 3);
        found.extend(Experiment::new(&engine, name, team, count, requests).run());
        // Model by model: where time ends, what was found stays.
        experiment::write(&found);
    }
}
