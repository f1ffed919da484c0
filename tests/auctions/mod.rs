//! Random stand-alone auctions, many at a time, for tests of what holds in each.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::num::NonZeroU64;
use std::ops::Range;

use bidslate::auction::batch::{Auction, AuctionBatch, AuctionRule, Reserves};
use bidslate::auction::standalone::{NO_WINNER, Outcomes, run};
use bidslate::money::Micros;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

pub const RULES: [AuctionRule; 3] = [AuctionRule::Gsp, AuctionRule::Vcg, AuctionRule::FirstPrice];

/// An auction that owns its numbers.
#[derive(Debug, Clone)]
pub struct Drawn {
    pub rule: AuctionRule,
    pub bids: Vec<u64>,
    pub quality: Vec<f64>,
    pub reserves: Vec<u64>,
    pub effects: Vec<f64>,
    pub squash: f64,
    pub tie_seed: u64,
    pub ids: Vec<u64>,
}

/// How large auctions are, and how coarse their numbers: few different values tie often.
#[derive(Debug, Clone)]
pub struct Sizes {
    pub bidders: Range<usize>,
    pub slots: Range<usize>,
    pub bids: u64,
}

pub const SMALL: Sizes = Sizes { bidders: 1..9, slots: 1..6, bids: 1 << 30 };

impl Drawn {
    /// Weights are multiples of 1/64 with squash 1 (or any power of them where `exact` is false), so that products with
    /// bids up to 2^40 are exact.
    pub fn new(sizes: &Sizes, exact: bool, rng: &mut Xoshiro256PlusPlus) -> Self {
        let bidders = rng.random_range(sizes.bidders.clone());
        let slots = rng.random_range(sizes.slots.clone());
        let most = if rng.random_bool(0.3) { 4 } else { sizes.bids };
        let mut effects: Vec<f64> = (0..slots)
            .map(|_| {
                [0.0, f64::from(rng.random_range(1..=1024u32)) / 1024.0][usize::from(rng.random_bool(0.9))]
            })
            .collect();
        effects.sort_by(|a, b| b.total_cmp(a));
        let mut ids: Vec<u64> = (0..bidders as u64).map(|i| i * 0x9E37_79B9 + 5).collect();
        ids.shuffle(rng);
        let common = rng.random_bool(0.5).then(|| rng.random_range(0..=most / 2));
        Self {
            rule: RULES[rng.random_range(0..3)],
            bids: (0..bidders).map(|_| rng.random_range(0..=most)).collect(),
            quality: (0..bidders).map(|_| f64::from(rng.random_range(0..=16u32) * 4) / 64.0).collect(),
            reserves: (0..bidders)
                .map(|_| common.unwrap_or_else(|| rng.random_range(0..=most / 2)))
                .collect(),
            effects,
            squash: if exact || rng.random_bool(0.3) { 1.0 } else { rng.random_range(0.0..2.0) },
            tie_seed: rng.random(),
            ids,
        }
    }

    pub fn weight(&self, bidder: usize) -> f64 {
        libm::pow(self.quality[bidder], self.squash)
    }

    pub fn push(&self, batch: &mut AuctionBatch) {
        let micros = |amounts: &[u64]| amounts.iter().copied().map(Micros).collect::<Vec<_>>();
        let (bids, reserves) = (micros(&self.bids), micros(&self.reserves));
        let auction = Auction {
            rule: self.rule,
            bids: &bids,
            quality: &self.quality,
            reserves: Reserves::Each(&reserves),
            position_effects: &self.effects,
            squash: self.squash,
            tie_seed: self.tie_seed,
            ids: Some(&self.ids),
        };
        batch.push(&auction).unwrap();
    }

    /// The auction with its bidders in another order: bidder `order[i]` becomes i.
    pub fn reordered(&self, order: &[usize]) -> Self {
        let pick = |values: &[u64]| order.iter().map(|&i| values[i]).collect();
        Self {
            bids: pick(&self.bids),
            reserves: pick(&self.reserves),
            ids: pick(&self.ids),
            quality: order.iter().map(|&i| self.quality[i]).collect(),
            ..self.clone()
        }
    }
}

/// The sold slots of one auction: winner and payment.
pub type Sold = Vec<(usize, u64)>;

/// Runs auctions as one batch.
pub fn outcomes(auctions: &[Drawn], unit: u64) -> Vec<Sold> {
    let mut batch = AuctionBatch::default();
    auctions.iter().for_each(|auction| auction.push(&mut batch));
    split(&batch, &run(&batch, NonZeroU64::new(unit).unwrap()))
}

/// The sold slots of every auction of a batch; they come before those that are not sold.
pub fn split(batch: &AuctionBatch, outcomes: &Outcomes) -> Vec<Sold> {
    let of_auction = |auction: usize| {
        let slots = batch.slots(auction);
        let (winners, payments) = (&outcomes.winners[slots.clone()], &outcomes.payments[slots]);
        let sold = winners.iter().take_while(|&&winner| winner != NO_WINNER).count();
        assert!(winners[sold..].iter().all(|&winner| winner == NO_WINNER));
        assert!(payments[sold..].iter().all(|&payment| payment == Micros::ZERO));
        (0..sold).map(|slot| (winners[slot] as usize, payments[slot].0)).collect()
    };
    (0..batch.len()).map(of_auction).collect()
}

/// Calls `check` with batches of auctions, `count` in all.
pub fn each_batch(
    test: &str,
    count: usize,
    sizes: &Sizes,
    exact: bool,
    mut check: impl FnMut(&[Drawn], &mut Xoshiro256PlusPlus),
) {
    const BATCH: usize = 5_000;
    let mut rng = crate::world::rng(test);
    for _ in 0..count.div_ceil(BATCH) {
        let auctions: Vec<Drawn> = (0..BATCH).map(|_| Drawn::new(sizes, exact, &mut rng)).collect();
        check(&auctions, &mut rng);
    }
}
