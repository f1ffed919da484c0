//! Auctions that stand alone: bidders with a quality compete for slots with position effects
//! theta_1 >= theta_2 >= ... (spec section 6).
//!
//! A bidder weighs w = q^squash. Bidders below their reserve or with w = 0 are out; the others are ranked by b w, ties
//! by the higher splitmix64(tie_seed xor id). The bidder of rank s wins slot s; a slot with theta 0 is not sold. Per
//! click, with w_s and reserve_s those of the winner of slot s, and b w of a missing bidder 0:
//!
//! ```text
//! gsp_s = max(reserve_s, b_{s+1} w_{s+1} / w_s)
//! vcg_s = [ sum over t = s .. S of (theta_t - theta_{t+1}) max(reserve_s, b_{t+1} w_{t+1} / w_s) ] / theta_s
//! ```
//!
//! with theta_{S+1} = 0. The second is the critical-value price: truthful with reserves, and VCG where squash is 1 and
//! there are none. [`settle`] makes money of it. All in f64 in this order of operations, so that every device
//! charges the same integers.

use std::num::NonZeroU64;
use std::ops::Range;

use rayon::prelude::*;

use super::batch::{AuctionBatch, AuctionRule};
use super::settle::settle;
use crate::decode::bidding::splitmix64;
use crate::money::Micros;

/// The winner of a slot that is not sold.
pub const NO_WINNER: u32 = u32::MAX;

/// Who won and what they pay; the slots of all auctions side by side, as in [`AuctionBatch::slots`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Index of each slot's winner among the bidders of its auction, or [`NO_WINNER`].
    pub winners: Vec<u32>,
    /// Payment per click; 0 where a slot is not sold.
    pub payments: Vec<Micros>,
}

/// Runs every auction of the batch, in the threads of the current rayon pool. Payments are multiples of `unit`
/// micros where bid and reserve allow.
pub fn run(batch: &AuctionBatch, unit: NonZeroU64) -> Outcomes {
    const AUCTIONS_PER_TASK: usize = 1024;
    let tasks = batch.len().div_ceil(AUCTIONS_PER_TASK);
    let parts: Vec<Outcomes> = (0..tasks)
        .into_par_iter()
        .map(|task| {
            let start = task * AUCTIONS_PER_TASK;
            run_range(batch, start..batch.len().min(start + AUCTIONS_PER_TASK), unit.get())
        })
        .collect();
    let mut outcomes = Outcomes::default();
    for part in parts {
        outcomes.winners.extend(part.winners);
        outcomes.payments.extend(part.payments);
    }
    outcomes
}

fn run_range(batch: &AuctionBatch, auctions: Range<usize>, unit: u64) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut ranking = Vec::new();
    for auction in auctions {
        let view = View::new(batch, auction);
        view.rank(&mut ranking);
        for slot in 0..view.effects.len() {
            let sold = slot < view.sold_slots() && slot < ranking.len();
            let (winner, payment) = match ranking.get(slot) {
                Some(ranked) if sold => (ranked.bidder, view.payment(&ranking, slot, unit)),
                _ => (NO_WINNER, Micros::ZERO),
            };
            outcomes.winners.push(winner);
            outcomes.payments.push(payment);
        }
    }
    outcomes
}

/// One auction of a batch.
pub(super) struct View<'a> {
    rule: u8,
    tie_seed: u64,
    bids: &'a [u64],
    reserves: &'a [u64],
    weights: &'a [f64],
    /// Empty where the ids are the indices.
    ids: &'a [u64],
    effects: &'a [f64],
}

/// A bidder and its rank score b w.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranked {
    score: f64,
    bidder: u32,
}

impl<'a> View<'a> {
    pub(super) fn new(batch: &'a AuctionBatch, auction: usize) -> Self {
        let bidders = batch.bidders(auction);
        Self {
            rule: batch.rules[auction],
            tie_seed: batch.tie_seeds[auction],
            bids: &batch.bids[bidders.clone()],
            reserves: &batch.reserves[bidders.clone()],
            weights: &batch.weights[bidders.clone()],
            ids: if batch.ids.is_empty() { &[] } else { &batch.ids[bidders] },
            effects: &batch.position_effects[batch.slots(auction)],
        }
    }

    /// The same auction with other bids.
    pub(super) fn with_bids(self, bids: &'a [u64]) -> Self {
        Self { bids, ..self }
    }

    /// Slots that are for sale: the effects never rise, so those with theta 0 are the last ones.
    fn sold_slots(&self) -> usize {
        self.effects.partition_point(|&effect| effect > 0.0)
    }

    /// The best bidders, one more than there are slots for sale: the last one only sets a price.
    fn rank(&self, ranking: &mut Vec<Ranked>) {
        ranking.clear();
        let room = self.sold_slots() + 1;
        for (bidder, ((&bid, &reserve), &weight)) in
            self.bids.iter().zip(self.reserves).zip(self.weights).enumerate()
        {
            if bid < reserve || weight == 0.0 {
                continue;
            }
            let ranked = Ranked { score: bid as f64 * weight, bidder: bidder as u32 };
            if ranking.len() < room {
                ranking.push(ranked);
            } else if self.beats(ranked, ranking[room - 1]) {
                ranking[room - 1] = ranked;
            } else {
                continue;
            }
            let mut place = ranking.len() - 1;
            while place > 0 && self.beats(ranking[place], ranking[place - 1]) {
                ranking.swap(place, place - 1);
                place -= 1;
            }
        }
    }

    fn beats(&self, a: Ranked, b: Ranked) -> bool {
        a.score > b.score || (a.score == b.score && self.hash(a.bidder) > self.hash(b.bidder))
    }

    fn hash(&self, bidder: u32) -> u64 {
        let id = self.ids.get(bidder as usize).copied().unwrap_or(u64::from(bidder));
        splitmix64(self.tie_seed ^ id)
    }

    fn payment(&self, ranking: &[Ranked], slot: usize, unit: u64) -> Micros {
        let bidder = ranking[slot].bidder as usize;
        let (bid, reserve) = (Micros(self.bids[bidder]), Micros(self.reserves[bidder]));
        let weight = self.weights[bidder];
        // What the winner must bid at least, to rank above whoever is on the next rank after `rank`.
        let least = |rank: usize| {
            let next = ranking.get(rank + 1).map_or(0.0, |next| next.score) / weight;
            let reserve = reserve.0 as f64;
            if next > reserve { next } else { reserve }
        };
        let price = if self.rule == AuctionRule::Gsp as u8 {
            least(slot)
        } else if self.rule == AuctionRule::Vcg as u8 {
            self.critical_value(slot, least)
        } else {
            bid.0 as f64
        };
        settle(price, bid, reserve, unit)
    }

    /// theta (value - price) in micros for what `bidder` wins, 0 where it wins nothing.
    pub(super) fn utility(
        &self,
        bidder: usize,
        value: u64,
        ranking: &mut Vec<Ranked>,
        unit: NonZeroU64,
    ) -> f64 {
        self.rank(ranking);
        let slot = ranking.iter().take(self.sold_slots()).position(|ranked| ranked.bidder as usize == bidder);
        slot.map_or(0.0, |slot| {
            let price = self.payment(ranking, slot, unit.get());
            self.effects[slot] * (value as f64 - price.0 as f64)
        })
    }

    /// Each further rank sells the difference of two position effects, at the price of reaching it.
    fn critical_value(&self, slot: usize, least: impl Fn(usize) -> f64) -> f64 {
        let mut sum = 0.0;
        for rank in slot..self.sold_slots() {
            let below = self.effects.get(rank + 1).copied().unwrap_or(0.0);
            sum += (self.effects[rank] - below) * least(rank);
        }
        sum / self.effects[slot]
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::{Auction, Reserves};
    use super::*;

    const UNITS: u64 = 1_000_000;

    /// Winners, and what each of them pays in all: per click times clicks, in whole units.
    fn totals(rule: AuctionRule, values: &[u64], clicks: &[f64], reserve: u64) -> Vec<(u32, f64)> {
        let bids: Vec<Micros> = values.iter().map(|value| Micros(value * UNITS)).collect();
        let mut batch = AuctionBatch::default();
        let auction = Auction {
            rule,
            bids: &bids,
            quality: &vec![1.0; bids.len()],
            reserves: Reserves::Common(Micros(reserve * UNITS)),
            position_effects: clicks,
            squash: 1.0,
            tie_seed: 0,
            ids: None,
        };
        batch.push(&auction).unwrap();
        let outcomes = run(&batch, NonZeroU64::MIN);
        let slots = outcomes.winners.into_iter().zip(outcomes.payments).zip(clicks);
        let total = |((winner, payment), clicks): ((u32, Micros), &f64)| {
            (winner, (payment.0 as f64 * clicks / UNITS as f64 * 1e4).round() / 1e4)
        };
        slots.map(total).filter(|&(winner, _)| winner != NO_WINNER).collect()
    }

    /// Edelman, Ostrovsky and Schwarz 2007: values 10, 4, 2 and 200 and 100 clicks.
    #[test]
    fn edelman_ostrovsky_schwarz() {
        let (values, clicks) = ([10, 4, 2], [200.0, 100.0]);
        assert_eq!(totals(AuctionRule::Gsp, &values, &clicks, 0), [(0, 800.0), (1, 200.0)]);
        assert_eq!(totals(AuctionRule::Vcg, &values, &clicks, 0), [(0, 600.0), (1, 200.0)]);
        assert_eq!(totals(AuctionRule::FirstPrice, &values, &clicks, 0), [(0, 2000.0), (1, 400.0)]);
    }

    /// Their other example, 200 and 199 clicks: under GSP the truth is worth 1200 to the first, and a bid for the
    /// second slot 1592.
    #[test]
    fn shading_pays_under_gsp() {
        let utility = |bid, slot: usize| {
            let clicks = [200.0, 199.0];
            let (winner, total) = totals(AuctionRule::Gsp, &[bid, 4, 2], &clicks, 0)[slot];
            assert_eq!(winner, 0);
            10.0 * clicks[slot] - total
        };
        assert_eq!((utility(10, 0), utility(3, 1)), (1200.0, 1592.0));
    }

    #[test]
    fn vcg_with_growing_reserves() {
        let totals = |reserve| {
            let all = totals(AuctionRule::Vcg, &[10, 12, 18, 14, 20], &[4.0, 3.0, 2.0, 1.0], reserve);
            all.into_iter().map(|(winner, total)| (winner + 1, total)).collect::<Vec<_>>()
        };
        assert_eq!(totals(0), [(5, 54.0), (3, 36.0), (4, 22.0), (2, 10.0)]);
        assert_eq!(totals(11), [(5, 55.0), (3, 37.0), (4, 23.0), (2, 11.0)]);
        assert_eq!(totals(14), [(5, 60.0), (3, 42.0), (4, 28.0)]);
        assert_eq!(totals(15), [(5, 63.0), (3, 45.0)]);
        assert_eq!(totals(19), [(5, 76.0)]);
        assert_eq!(totals(22), []);
    }

    #[test]
    fn quality_weighs_the_bids() {
        let bids = [Micros(900), Micros(1_000), Micros(800), Micros(5_000)];
        let mut batch = AuctionBatch::default();
        let auction = Auction {
            rule: AuctionRule::Gsp,
            bids: &bids,
            quality: &[0.5, 0.25, 0.125, 0.0],
            reserves: Reserves::Each(&[Micros(600), Micros(100), Micros(450), Micros(0)]),
            position_effects: &[1.0, 0.5, 0.25, 0.0],
            squash: 1.0,
            tie_seed: 3,
            ids: None,
        };
        batch.push(&auction).unwrap();
        let outcomes = run(&batch, NonZeroU64::MIN);
        // 1000 / 4 / 0.5 = 500 is below the first reserve; 800 / 8 / 0.25; the third pays its reserve; the fourth
        // weighs nothing, and its slot is not for sale either.
        assert_eq!(outcomes.winners, [0, 1, 2, NO_WINNER]);
        assert_eq!(outcomes.payments, [600, 400, 450, 0].map(Micros));
    }

    #[test]
    fn ties_go_to_the_higher_hash() {
        let run_with = |tie_seed, ids: &[u64]| {
            let mut batch = AuctionBatch::default();
            let auction = Auction {
                rule: AuctionRule::Vcg,
                bids: &[Micros(7); 5],
                quality: &[1.0; 5],
                reserves: Reserves::Common(Micros(0)),
                position_effects: &[1.0, 1.0, 1.0],
                squash: 1.0,
                tie_seed,
                ids: Some(ids),
            };
            batch.push(&auction).unwrap();
            run(&batch, NonZeroU64::MIN).winners
        };
        let ids = [12, 5, 9, 40, 31];
        for seed in 0..20 {
            let mut by_hash: Vec<u32> = (0..5).collect();
            by_hash.sort_by_key(|&i| std::cmp::Reverse(splitmix64(seed ^ ids[i as usize])));
            assert_eq!(run_with(seed, &ids), by_hash[..3]);
        }
    }
}
