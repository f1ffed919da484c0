//! The kernels on a GPU: each operation by itself at the sizes of the models, and whole allocations.
//!
//! `BIDSLATE_DEVICE=cuda:0` names the GPU (feature `cuda`). `BIDSLATE_DEVICE=emulator` runs the same code on the emulator,
//! at sizes that mean nothing, to see that it runs: with `--test`, once each. Times of single operations are the
//! device's own, between two events around many launches; inputs are random, and taken in turns from as many copies as
//! a large cache does not hold. The throughput column counts floating point operations ("Gelem/s" reads GFLOP/s), bytes
//! where an operation only moves them, or requests.

#[path = "gpu/allocations.rs"]
mod allocations;
#[path = "gpu/attentions.rs"]
mod attentions;
#[path = "gpu/auctions.rs"]
mod auctions;
#[path = "gpu/device.rs"]
mod device;
#[path = "../tests/kernels/emulator.rs"]
mod emulator;
#[path = "../tests/kernels/gpu.rs"]
mod gpu;
#[path = "gpu/products.rs"]
mod products;
#[path = "gpu/quantizer.rs"]
mod quantizer;
#[path = "gpu/searches.rs"]
mod searches;

use criterion::Criterion;
use device::Device;

type Bench = (&'static str, fn(&mut Criterion, &Device));

/// What is measured, by name: `BIDSLATE_BENCH` names one of them, and the others are not even set up.
const BENCHES: [Bench; 6] = [
    ("products", products::bench),
    ("attentions", attentions::bench),
    ("searches", searches::bench),
    ("auctions", auctions::bench),
    ("quantizer", quantizer::bench),
    ("allocations", allocations::bench),
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
