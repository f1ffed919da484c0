//! The best bidders of an auction, in their order, without a sort of all of them.
//!
//! Few of many bidders win, so most are passed over by one comparison: with the scores dealt out to sixteen columns, no
//! bidder below the `room`-th largest of the columns' highest scores can be among the best `room`. Of those that are
//! left each is placed by the number of scores above its own. All of it is free of branches that depend on the scores,
//! and vectorizes. Where scores tie, a sort decides by the hashes.

use super::view::{Ranked, View, exact_f64};
use crate::cpu::{KEEP_LINE, Machine, keep};

/// Columns that the scores are dealt out to.
const COLUMNS: usize = 16;
/// Scores that are compared at a time.
const LINE: usize = 8;
/// Up to so many bidders are placed by counting; more are sorted.
const FEW: usize = 64;
/// Score of a bidder that is out, and of nobody; every other is 0 or more.
const OUT: f64 = -1.0;

/// Ranks bidders; holds the room to do so for one auction after another.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    /// Of all bidders, with nobody up to a multiple of [`COLUMNS`].
    scores: Vec<f64>,
    /// Of the bidders that may be among the best.
    kept_scores: Vec<f64>,
    kept_bidders: Vec<u32>,
    ranked: Vec<Ranked>,
}

impl Ranking {
    /// The best `room` bidders of an auction, best first; fewer where fewer take part.
    #[inline(always)]
    pub fn rank<M: Machine>(&mut self, auction: &View, room: usize) -> &[Ranked] {
        self.score(auction);
        let kept = self.keep::<M>(self.threshold(room));
        if kept > FEW || !self.place(kept) {
            self.sort(auction, kept, room);
        }
        &self.ranked[..room.min(kept)]
    }

    #[inline(always)]
    fn score(&mut self, auction: &View) {
        let bidders = auction.bids.len();
        self.scores.clear();
        self.scores.resize(bidders.next_multiple_of(COLUMNS), OUT);
        let inputs = auction.bids.iter().zip(auction.reserves).zip(auction.weights);
        for (score, ((&bid, &reserve), &weight)) in self.scores.iter_mut().zip(inputs) {
            let (bid, reserve) = (exact_f64(bid), exact_f64(reserve));
            let product = bid * weight;
            *score = if bid >= reserve && weight > 0.0 { product } else { OUT };
        }
    }

    /// A score that at least `room` bidders reach, where as many take part; 0 where none is sought.
    #[inline(always)]
    fn threshold(&self, room: usize) -> f64 {
        let (lines, _) = self.scores.as_chunks::<COLUMNS>();
        if room > COLUMNS || lines.len() <= 2 {
            return 0.0;
        }
        let mut highest = [[OUT; LINE]; COLUMNS / LINE];
        for line in lines {
            for (highest, scores) in highest.iter_mut().zip(line.as_chunks::<LINE>().0) {
                for (highest, &score) in highest.iter_mut().zip(scores) {
                    *highest = if score > *highest { score } else { *highest };
                }
            }
        }
        // The least of those that fewer than `room` are above of: the room-th largest.
        let mut least = [f64::INFINITY; LINE];
        for own in &highest {
            let mut above = [0; LINE];
            for &other in highest.as_flattened() {
                count_above(own, other, &mut above);
            }
            for ((least, above), &own) in least.iter_mut().zip(above).zip(own) {
                *least = if above < room as u64 && own < *least { own } else { *least };
            }
        }
        let threshold = least.into_iter().fold(f64::INFINITY, |a, b| if a < b { a } else { b });
        if threshold > 0.0 { threshold } else { 0.0 }
    }

    /// Gathers the bidders of at least this score, in their order; returns their number.
    #[inline(always)]
    fn keep<M: Machine>(&mut self, threshold: f64) -> usize {
        let room = self.scores.len() + KEEP_LINE;
        if self.kept_scores.len() < room {
            self.kept_scores.resize(room, OUT);
            self.kept_bidders.resize(room, 0);
        }
        keep::<M>(&self.scores, threshold, &mut self.kept_scores, &mut self.kept_bidders)
    }

    /// Places each of `kept` bidders by the number of scores above its own; false where scores tie.
    #[inline(always)]
    fn place(&mut self, kept: usize) -> bool {
        // What fills the last line up has all above it, and is placed behind them.
        if self.ranked.len() <= FEW {
            self.ranked.resize(FEW + 1, Ranked::default());
        }
        let padded = kept.next_multiple_of(LINE);
        self.kept_scores[kept..padded].fill(OUT);
        let scores = &self.kept_scores[..padded];
        let bidders = &self.kept_bidders[..padded];
        let ranked = &mut self.ranked[..FEW + 1];
        let mut sum = 0;
        for (line, bidders) in scores.as_chunks::<LINE>().0.iter().zip(bidders.as_chunks::<LINE>().0) {
            let mut above = [0; LINE];
            for &other in &scores[..kept] {
                count_above(line, other, &mut above);
            }
            for ((&score, &bidder), above) in line.iter().zip(bidders).zip(above) {
                ranked[above as usize] = Ranked { score, bidder };
                sum += above as usize;
            }
        }
        // 0 + 1 + .. + (kept - 1), and less where two have the same rank.
        sum - (padded - kept) * kept == kept * kept.saturating_sub(1) / 2
    }

    #[cold]
    #[inline(never)]
    fn sort(&mut self, auction: &View, kept: usize, room: usize) {
        let gathered = self.kept_scores.iter().zip(&self.kept_bidders).take(kept);
        self.ranked.clear();
        self.ranked.extend(gathered.map(|(&score, &bidder)| Ranked { score, bidder }));
        let order = |a: &Ranked, b: &Ranked| auction.order(a, b);
        if room < kept && room > 0 {
            self.ranked.select_nth_unstable_by(room - 1, order);
        }
        self.ranked[..room.min(kept)].sort_unstable_by(order);
    }
}

/// Adds 1 to `above` where `other` is above a score.
#[inline(always)]
fn count_above(scores: &[f64; LINE], other: f64, above: &mut [u64; LINE]) {
    for (above, &score) in above.iter_mut().zip(scores) {
        *above += u64::from(other > score);
    }
}
