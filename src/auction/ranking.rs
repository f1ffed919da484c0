//! The best bidders of an auction, in their order, without a sort of all of them.
//!
//! Few of many bidders win, so most are passed over by one comparison: with the scores dealt out to sixteen columns, no
//! bidder below the `room`-th largest of the columns' highest scores can be among the best `room`. Of those that are
//! left each is placed by the number of scores above its own. All of it is free of branches that depend on the scores,
//! and vectorizes. Where scores tie, a sort decides by the hashes.

use super::view::{Ranked, View};

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
    pub fn rank(&mut self, auction: &View, room: usize) -> &[Ranked] {
        self.score(auction);
        let kept = self.keep(self.threshold(room));
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
        let mut highest = [OUT; COLUMNS];
        for line in lines {
            for (highest, &score) in highest.iter_mut().zip(line) {
                *highest = if score > *highest { score } else { *highest };
            }
        }
        // The least of those that fewer than `room` are above of: the room-th largest.
        let mut threshold = f64::INFINITY;
        for own in highest {
            let above: u64 = highest.iter().map(|&other| u64::from(other > own)).sum();
            let among = if above < room as u64 { own } else { f64::INFINITY };
            threshold = if among < threshold { among } else { threshold };
        }
        if threshold > 0.0 { threshold } else { 0.0 }
    }

    /// Gathers the bidders of at least this score, in their order; returns their number.
    #[inline(always)]
    fn keep(&mut self, threshold: f64) -> usize {
        let room = self.scores.len() + LINE;
        if self.kept_scores.len() < room {
            self.kept_scores.resize(room, OUT);
            self.kept_bidders.resize(room, 0);
        }
        let mut kept = 0;
        for (bidder, &score) in self.scores.iter().enumerate() {
            // Written in any case, and kept or overwritten by the next one.
            self.kept_scores[kept] = score;
            self.kept_bidders[kept] = bidder as u32;
            kept += usize::from(score >= threshold);
        }
        kept
    }

    /// Places each of `kept` bidders by the number of scores above its own; false where scores tie.
    #[inline(always)]
    fn place(&mut self, kept: usize) -> bool {
        if self.ranked.len() < FEW {
            self.ranked.resize(FEW, Ranked::default());
        }
        let padded = kept.next_multiple_of(LINE);
        self.kept_scores[kept..padded].fill(OUT);
        let (lines, _) = self.kept_scores[..padded].as_chunks::<LINE>();
        let mut sum = 0;
        for (&score, &bidder) in self.kept_scores[..kept].iter().zip(&self.kept_bidders) {
            let mut above = [0u64; LINE];
            for line in lines {
                for (above, &other) in above.iter_mut().zip(line) {
                    *above += u64::from(other > score);
                }
            }
            let rank = above.iter().sum::<u64>() as usize;
            self.ranked[rank] = Ranked { score, bidder };
            sum += rank;
        }
        // 0 + 1 + .. + (kept - 1), and less where two have the same rank.
        sum == kept * kept.saturating_sub(1) / 2
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

/// An integer below 2^52 as f64, by instructions that every machine has for vectors.
#[inline(always)]
fn exact_f64(amount: u64) -> f64 {
    const TWO_TO_52: u64 = 0x4330_0000_0000_0000;
    f64::from_bits(amount | TWO_TO_52) - f64::from_bits(TWO_TO_52)
}
