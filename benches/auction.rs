//! Stand-alone auctions: 64 bidders for 10 slots, on one thread and on two. The throughput column counts auctions.

use std::num::NonZeroU64;
use std::time::Duration;

use bidslate::auction::batch::{Auction, AuctionBatch, AuctionRule, Reserves};
use bidslate::auction::regret::{GammaGrid, sweep};
use bidslate::auction::standalone::run;
use bidslate::money::Micros;
use criterion::{Criterion, Throughput};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

const AUCTIONS: usize = 1 << 15;
const BIDDERS: usize = 64;
const SLOTS: usize = 10;

fn batch(rule: AuctionRule) -> AuctionBatch {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let position_effects: Vec<f64> = (0..SLOTS).map(|slot| 1.0 / (1.0 + slot as f64)).collect();
    let mut batch = AuctionBatch::default();
    for tie_seed in 0..AUCTIONS as u64 {
        let bids: Vec<Micros> = (0..BIDDERS).map(|_| Micros(rng.random_range(10_000..10_000_000))).collect();
        let reserves: Vec<Micros> = (0..BIDDERS).map(|_| Micros(rng.random_range(0..1_000_000))).collect();
        let quality: Vec<f64> = (0..BIDDERS).map(|_| rng.random_range(0.001..0.2)).collect();
        let auction = Auction {
            rule,
            bids: &bids,
            quality: &quality,
            reserves: Reserves::Each(&reserves),
            position_effects: &position_effects,
            squash: 1.0,
            tie_seed,
            ids: None,
        };
        batch.push(&auction).expect("the numbers are in range");
    }
    batch
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
}

fn auctions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("auctions, 64 bidders x 10 slots");
    group.throughput(Throughput::Elements(AUCTIONS as u64));
    for rule in [AuctionRule::Gsp, AuctionRule::Vcg, AuctionRule::FirstPrice] {
        let batch = batch(rule);
        for threads in [1, 2] {
            group.bench_function(format!("{rule:?} x{threads}"), |bencher| {
                pool(threads).install(|| bencher.iter(|| run(&batch, NonZeroU64::MIN)));
            });
        }
    }
}

/// Every bidder under ten gammas and at all breakpoints.
fn sweeps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("regret sweeps, 64 bidders x 10 slots");
    group.throughput(Throughput::Elements(AUCTIONS as u64));
    for rule in [AuctionRule::Gsp, AuctionRule::Vcg] {
        let batch = batch(rule);
        group.bench_function(format!("{rule:?} x2"), |bencher| {
            let grid = GammaGrid::default();
            pool(2).install(|| bencher.iter(|| sweep(&batch, &grid, NonZeroU64::MIN)));
        });
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4))
        .configure_from_args();
    auctions(&mut criterion);
    sweeps(&mut criterion);
    criterion.final_summary();
}
