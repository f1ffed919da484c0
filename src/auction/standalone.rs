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
//! there are none. [`settle`](super::settle::settle) makes money of it. All in f64 in this order of operations, so that every device
//! charges the same integers.

use std::num::NonZeroU64;
use std::ops::Range;

use rayon::prelude::*;

use super::batch::AuctionBatch;
use super::ranking::Ranking;
use super::slots::Slots;
use super::view::View;
use crate::cpu::{Isa, Kernel, Machine};
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

/// Auctions that a thread takes at a time.
const AUCTIONS_PER_TASK: usize = 256;

/// Runs every auction of the batch, in the threads of the current rayon pool. Payments are multiples of `unit`
/// micros where bid and reserve allow.
pub fn run(batch: &AuctionBatch, unit: NonZeroU64) -> Outcomes {
    run_as(Isa::detect(), batch, unit)
}

/// [`run`] as compiled for an instruction set, on which no bit of the outcomes depends.
pub fn run_as(isa: Isa, batch: &AuctionBatch, unit: NonZeroU64) -> Outcomes {
    let slots = batch.position_effects.len();
    let mut outcomes = Outcomes { winners: vec![NO_WINNER; slots], payments: vec![Micros::ZERO; slots] };
    let tasks = tasks(batch, &mut outcomes);
    tasks.into_par_iter().for_each(|task| isa.run(RunTask { task, unit: unit.get() }));
    outcomes
}

/// Auctions of a batch, and the places of their outcomes, unsold so far.
struct Task<'a> {
    batch: &'a AuctionBatch,
    auctions: Range<usize>,
    winners: &'a mut [u32],
    payments: &'a mut [Micros],
}

fn tasks<'a>(batch: &'a AuctionBatch, outcomes: &'a mut Outcomes) -> Vec<Task<'a>> {
    let (mut winners, mut payments) = (&mut outcomes.winners[..], &mut outcomes.payments[..]);
    let mut tasks = Vec::with_capacity(batch.len().div_ceil(AUCTIONS_PER_TASK));
    for start in (0..batch.len()).step_by(AUCTIONS_PER_TASK) {
        let auctions = start..batch.len().min(start + AUCTIONS_PER_TASK);
        let slots = batch.slots(auctions.end - 1).end - batch.slots(start).start;
        let own = (winners.split_off_mut(..slots), payments.split_off_mut(..slots));
        let (winners, payments) = (own.0.unwrap_or_default(), own.1.unwrap_or_default());
        tasks.push(Task { batch, auctions, winners, payments });
    }
    tasks
}

/// The work of a [`Task`]; no auction of it allocates, once there was one as large.
struct RunTask<'a> {
    task: Task<'a>,
    unit: u64,
}

impl Kernel for RunTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let Task { batch, auctions, winners, payments } = self.task;
        let (mut ranking, mut slots) = (Ranking::default(), Slots::default());
        let first = batch.slots(auctions.start).start;
        for auction in auctions {
            let view = View::new(batch, auction);
            // One more than there are slots for sale: the last one only sets a price.
            let ranked = ranking.rank::<M>(&view, view.for_sale() + 1);
            let offers = ranked.iter().map(|ranked| view.offer(ranked.bidder as usize));
            slots.fill(&view, offers, ranked.iter().skip(1).map(|ranked| ranked.score));
            slots.price(&view);
            let settled = slots.settle(self.unit);
            let start = batch.slots(auction).start - first;
            let places = winners[start..].iter_mut().zip(&mut payments[start..]);
            let sold = ranked.iter().zip(settled).take(view.for_sale());
            for ((winner, payment), (ranked, &settled)) in places.zip(sold) {
                (*winner, *payment) = (ranked.bidder, Micros(settled));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::{Auction, AuctionRule, Reserves};
    use super::*;
    use crate::decode::bidding::splitmix64;

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
