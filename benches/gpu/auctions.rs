//! Stand-alone auctions and their regret, 64 bidders for 10 slots.

use std::num::NonZeroU64;

use bidslate::auction::batch::{Auction, AuctionBatch, AuctionRule, Reserves};
use bidslate::auction::regret::GammaGrid;
use bidslate::cuda::auction::DeviceBatch;
use bidslate::cuda::auction_regret::Misreports;
use bidslate::money::Micros;
use criterion::{Criterion, Throughput};

use crate::device::Device;

const BIDDERS: usize = 64;
const SLOTS: usize = 10;
/// Read: bid, reserve and weight of a bidder, effect of a slot. Written: winner and payment of a slot.
const BYTES: usize = BIDDERS * 3 * 8 + SLOTS * (8 + 4 + 8);
const UNIT: NonZeroU64 = NonZeroU64::MIN;

pub fn bench(criterion: &mut Criterion, device: &Device) {
    for (rule, name) in [(AuctionRule::Gsp, "gsp"), (AuctionRule::Vcg, "vcg")] {
        let auctions = device.pick(200_000, 20);
        let mut batch =
            DeviceBatch::new(&device.stream, &batch(device, rule, auctions)).expect("device memory");
        let bytes = Throughput::Bytes((auctions * BYTES) as u64);
        let name = format!("auction {name}, {auctions} of {BIDDERS} for {SLOTS}");
        device.bench(criterion, &name, bytes, |_| batch.run(&*device.stream, UNIT));
    }
    let auctions = device.pick(2_000, 3);
    let batch =
        DeviceBatch::new(&device.stream, &batch(device, AuctionRule::Gsp, auctions)).expect("device memory");
    let mut sweep = Misreports::new(&device.stream, &batch, &GammaGrid::default()).expect("device memory");
    let misreports = Throughput::Elements((auctions * BIDDERS * GammaGrid::default().gammas().len()) as u64);
    let name = format!("auction_regret gsp, {auctions} of {BIDDERS} for {SLOTS}");
    device.bench(criterion, &name, misreports, |_| sweep.run(&*device.stream, &batch, UNIT));
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
