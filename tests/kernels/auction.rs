//! Stand-alone auctions against the CPU's: the same winners and the same micros.

use std::num::NonZeroU64;

use bidslate::auction::batch::{Auction, AuctionBatch, AuctionRule, Reserves};
use bidslate::auction::regret::{GammaGrid, sweep};
use bidslate::auction::standalone;
use bidslate::cuda::auction::DeviceBatch;
use bidslate::cuda::auction_regret::Misreports;
use bidslate::money::Micros;

use crate::setup::Inputs;
use crate::streams::streams;

const RULES: [AuctionRule; 3] = [AuctionRule::Gsp, AuctionRule::Vcg, AuctionRule::FirstPrice];

/// Adds a random auction: bids and qualities of few different values tie often, those of many never.
fn push(batch: &mut AuctionBatch, bidders: usize, slots: usize, ids: bool, inputs: &mut Inputs) {
    let levels = [3, 1 << 30][inputs.indices(1, 2)[0] as usize];
    let draw = |inputs: &mut Inputs| inputs.indices(bidders, levels);
    let micros = |values: Vec<u32>, step: u64| -> Vec<Micros> {
        values.into_iter().map(|v| Micros(u64::from(v) * step)).collect()
    };
    let bids = micros(draw(inputs), 1013);
    let reserves = micros(draw(inputs), 700);
    let quality: Vec<f64> = draw(inputs).iter().map(|&v| f64::from(v) / levels as f64).collect();
    let mut position_effects: Vec<f64> =
        inputs.indices(slots, levels).iter().map(|&v| f64::from(v) / levels as f64).collect();
    position_effects.sort_by(|a, b| b.total_cmp(a));
    let own_ids: Vec<u64> = (0..bidders as u64).map(|i| i * 0x1234_5678_9ABC + 7).collect();
    let pick = inputs.indices(4, 1000);
    let auction = Auction {
        rule: RULES[pick[0] as usize % 3],
        bids: &bids,
        quality: &quality,
        reserves: match pick[1] % 3 {
            0 => Reserves::Common(Micros(0)),
            1 => Reserves::Common(Micros(900)),
            _ => Reserves::Each(&reserves),
        },
        position_effects: &position_effects,
        squash: [1.0, 0.5, 0.0][pick[2] as usize % 3],
        tie_seed: u64::from(pick[3]),
        ids: ids.then_some(&own_ids),
    };
    batch.push(&auction).unwrap();
}

/// Auctions of all sizes around those of a warp.
fn random_batch(bidders: &[usize], slots: &[usize], ids: bool, inputs: &mut Inputs) -> AuctionBatch {
    let mut batch = AuctionBatch::default();
    for &bidders in bidders {
        for &slots in slots {
            // Some with ids, some without.
            let own = ids && inputs.indices(1, 2)[0] == 0;
            push(&mut batch, bidders, slots, own, inputs);
        }
    }
    batch
}

#[test]
fn charges_the_integers_of_the_cpu() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        for ids in [false, true] {
            let (bidders, slots) = ([1, 2, 5, 31, 32, 33, 64, 100], [1, 2, 10, 31, 32, 33, 40]);
            let batch = random_batch(&bidders, &slots, ids, &mut inputs);
            for unit in [1, 1_000, 1_000_003] {
                let unit = NonZeroU64::new(unit).unwrap();
                let mut device = DeviceBatch::new(&stream, &batch).unwrap();
                device.run(&*stream, unit).unwrap();
                assert_eq!(device.outcomes().unwrap(), standalone::run(&batch, unit));
            }
        }
    }
}

#[test]
fn an_empty_batch_has_no_outcomes() {
    for stream in streams() {
        let mut device = DeviceBatch::new(&stream, &AuctionBatch::default()).unwrap();
        device.run(&*stream, NonZeroU64::MIN).unwrap();
        assert_eq!(device.outcomes().unwrap(), standalone::Outcomes::default());
    }
}

#[test]
fn misreports_are_worth_what_the_cpu_says() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        for ids in [false, true] {
            let batch = random_batch(&[1, 2, 5, 33, 40], &[1, 2, 4, 33], ids, &mut inputs);
            let device = DeviceBatch::new(&stream, &batch).unwrap();
            // Among them bids of nothing and of more than a bid may be.
            for gammas in [vec![], vec![1.0], vec![0.0, 0.3, 1.0, 1.7, 1e300]] {
                let grid = GammaGrid::new(gammas).unwrap();
                let mut misreports = Misreports::new(&stream, &device, &grid).unwrap();
                misreports.run(&*stream, &device, NonZeroU64::MIN).unwrap();
                let expected = sweep(&batch, &grid, NonZeroU64::MIN).utilities(&batch);
                assert_eq!(misreports.utilities().unwrap(), expected);
            }
        }
    }
}
