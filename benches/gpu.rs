//! The kernels on a GPU: each operation and each stage of a model by itself, whole allocations, and
//! their latency under load.
//!
//! `BIDSLATE_DEVICE=cuda:0` names the GPU (feature `cuda`). `BIDSLATE_DEVICE=emulator` runs the same code on the emulator,
//! at sizes that mean nothing, to see that it runs: with `--test`, once each. Times of single operations and stages are
//! the device's own, between two events; inputs are random, and either taken in turns from as many copies as a large
//! cache does not hold, or preceded by a copy that fills the cache. The throughput column counts the floating point
//! operations of `costs.rs` ("Gelem/s" reads GFLOP/s) and the bytes, or bytes alone.

#[path = "gpu/allocations.rs"]
mod allocations;
#[path = "load/arrivals.rs"]
mod arrivals;
#[path = "gpu/attentions.rs"]
mod attentions;
#[path = "gpu/auctions.rs"]
mod auctions;
#[path = "gpu/chunks.rs"]
mod chunks;
#[path = "gpu/costs.rs"]
mod costs;
#[path = "gpu/device.rs"]
mod device;
#[path = "../tests/kernels/emulator.rs"]
mod emulator;
#[path = "gpu/engines.rs"]
mod engines;
#[path = "load/experiment.rs"]
mod experiment;
#[path = "gpu/fused.rs"]
mod fused;
#[path = "../tests/kernels/gpu.rs"]
mod gpu;
#[path = "load/latencies.rs"]
mod latencies;
#[path = "gpu/loads.rs"]
mod loads;
#[path = "gpu/pass.rs"]
mod pass;
#[path = "gpu/products.rs"]
mod products;
#[path = "gpu/quantizer.rs"]
mod quantizer;
#[path = "setup/rules.rs"]
mod rules;
#[path = "gpu/searches.rs"]
mod searches;
#[path = "load/serving.rs"]
mod serving;
#[path = "gpu/stages.rs"]
mod stages;
#[path = "gpu/teams.rs"]
mod teams;

use criterion::Criterion;
use device::Device;

type Bench = (&'static str, fn(&mut Criterion, &Device));

/// What is measured, by name: `BIDSLATE_BENCH` names one of them, and the others are not even set up.
const BENCHES: [Bench; 19] = [
    ("products", products::bench),
    ("attentions", attentions::bench),
    ("searches", searches::bench),
    ("searches_large", searches::bench_large),
    ("auctions", auctions::bench),
    ("quantizer", quantizer::bench),
    ("stages", stages::bench),
    ("allocations", allocations::bench),
    ("chunks", chunks::bench),
    ("stages_programmatic", stages::bench_programmatic),
    ("allocations_programmatic", allocations::bench_programmatic),
    ("stages_hopper", stages::bench_hopper),
    ("allocations_hopper", allocations::bench_hopper),
    ("stages_persistent", stages::bench_persistent),
    ("allocations_persistent", allocations::bench_persistent),
    ("stages_hopper_programmatic", stages::bench_hopper_programmatic),
    ("allocations_hopper_programmatic", allocations::bench_hopper_programmatic),
    ("teams", teams::bench),
    ("loads", loads::bench),
];

fn main() {
    let Some(device) = Device::named_by_environment() else {
        eprintln!("BIDSLATE_DEVICE names no device (cuda:N, or emulator for a trial): nothing to measure");
        return;
    };
    let wanted = std::env::var("BIDSLATE_BENCH").ok();
    let mut criterion = Criterion::default().configure_from_args();
    for (name, bench) in BENCHES {
        if wanted.as_deref().is_none_or(|wanted| wanted == name) {
            bench(&mut criterion, &device);
        }
    }
    criterion.final_summary();
}
