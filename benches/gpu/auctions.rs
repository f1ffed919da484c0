//! Stand-alone auctions and their regret, 64 bidders for 10 slots.

use std::num::NonZeroU64;

use bidslate::auction::batch::{Auction, AuctionBatch, AuctionRule, Reserves};
use bidslate::auction::regret::GammaGrid;
use bidslate::cuda::auction::DeviceBatch;
use bidslate::cuda::auction_regret::Misreports;
use bidslate::money::Micros;
use criterion::Criterion;

use crate::costs::{self, throughput};
use crate::device::{Cache, Device};

const BIDDERS: usize = 64;
const SLOTS: usize = 10;
const UNIT: NonZeroU64 = NonZeroU64::MIN;

pub fn bench(criterion: &mut Criterion, device: &Device) {
    for (rule, name) in [(AuctionRule::Gsp, "gsp"), (AuctionRule::Vcg, "vcg")] {
        for auctions in device.pick(vec![1, 8, 32, 128, 200_000], vec![20]) {
            let mut batch =
                DeviceBatch::new(&device.stream, &batch(device, rule, auctions)).expect("device memory");
            let least = throughput(costs::auction(auctions, BIDDERS, SLOTS));
            let name = format!("auction {name}, {auctions} of {BIDDERS} for {SLOTS}");
            device.bench(criterion, &name, least, Cache::Cold, |_| batch.run(&*device.stream, UNIT));
        }
    }
    let grid = GammaGrid::default();
    for auctions in device.pick(vec![1, 8, 32, 128, 2_000], vec![3]) {
        let batch = DeviceBatch::new(&device.stream, &batch(device, AuctionRule::Gsp, auctions))
            .expect("device memory");
        let mut sweep = Misreports::new(&device.stream, &batch, &grid).expect("device memory");
        let least = throughput(costs::regret(auctions, BIDDERS, SLOTS, grid.gammas().len()));
        let name = format!("auction_regret gsp, {auctions} of {BIDDERS} for {SLOTS}");
        device.bench(criterion, &name, least, Cache::Cold, |_| sweep.run(&*device.stream, &batch, UNIT));
    }
}

fn batch(device: &Device, rule: AuctionRule, auctions: usize) -> AuctionBatch {
    let mut batch = AuctionBatch::default();
    let effects: Vec<f64> = (1..=SLOTS).map(|slot| 1.0 / slot as f64).collect();
    for _ in 0..auctions {
        let draws = device.numbers(2 * BIDDERS);
        let (bids, quality) = draws.split_at(BIDDERS);
        let bids: Vec<Micros> = bids.iter().map(|x| Micros(((x + 1.0) * 1e6) as u64)).collect();
        let quality: Vec<f64> = quality.iter().map(|&x| f64::from(x + 1.0)).collect();
        let auction = Auction {
            rule,
            bids: &bids,
            quality: &quality,
            reserves: Reserves::Common(Micros(100_000)),
            position_effects: &effects,
            squash: 1.0,
            tie_seed: 1,
            ids: None,
        };
        batch.push(&auction).expect("a sound auction");
    }
    batch
}
