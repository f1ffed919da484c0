//! One auction of a batch: who takes part, who ranks above whom, and what a slot costs.

use std::cmp::Ordering;

use super::batch::{AuctionBatch, AuctionRule};
use super::settle::settle;
use crate::decode::bidding::splitmix64;
use crate::money::Micros;

/// A bidder and its rank score b w.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Ranked {
    pub score: f64,
    pub bidder: u32,
}

/// What a bidder brings to an auction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Offer {
    pub bid: u64,
    pub reserve: u64,
    pub weight: f64,
}

impl Offer {
    /// Rank score; none where the bidder is out.
    pub fn score(self) -> Option<f64> {
        (self.bid >= self.reserve && self.weight > 0.0).then_some(self.bid as f64 * self.weight)
    }

    /// What it pays per click for a price of `price`.
    #[inline(always)]
    pub fn payment(self, price: f64, unit: u64) -> Micros {
        settle(price, Micros(self.bid), Micros(self.reserve), unit)
    }
}

/// One auction of a batch.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    rule: u8,
    tie_seed: u64,
    pub bids: &'a [u64],
    pub reserves: &'a [u64],
    pub weights: &'a [f64],
    /// Empty where the ids are the indices.
    ids: &'a [u64],
    /// Of the slots for sale, those above 0; the effects never rise, so they are the first ones.
    effects: &'a [f64],
}

impl<'a> View<'a> {
    #[inline(always)]
    pub fn new(batch: &'a AuctionBatch, auction: usize) -> Self {
        let bidders = batch.bidders(auction);
        let effects = &batch.position_effects[batch.slots(auction)];
        let for_sale = effects.iter().filter(|&&effect| effect > 0.0).count();
        Self {
            rule: batch.rules[auction],
            tie_seed: batch.tie_seeds[auction],
            bids: &batch.bids[bidders.clone()],
            reserves: &batch.reserves[bidders.clone()],
            weights: &batch.weights[bidders.clone()],
            ids: if batch.ids.is_empty() { &[] } else { &batch.ids[bidders] },
            effects: &effects[..for_sale],
        }
    }

    /// Number of slots for sale.
    #[inline(always)]
    pub fn for_sale(&self) -> usize {
        self.effects.len()
    }

    /// Position effect of a slot for sale.
    pub fn effect(&self, slot: usize) -> f64 {
        self.effects[slot]
    }

    /// What each slot for sale has over the one below it, to `drops`.
    #[inline(always)]
    pub fn effect_drops(&self, drops: &mut Vec<f64>) {
        drops.clear();
        let below = self.effects.iter().skip(1).copied().chain([0.0]);
        drops.extend(self.effects.iter().zip(below).map(|(effect, below)| effect - below));
    }

    /// What `bidder` offers.
    #[inline(always)]
    pub fn offer(&self, bidder: usize) -> Offer {
        Offer { bid: self.bids[bidder], reserve: self.reserves[bidder], weight: self.weights[bidder] }
    }

    /// Whether winners pay what they bid.
    pub fn is_first_price(&self) -> bool {
        self.rule == AuctionRule::FirstPrice as u8
    }

    /// Less where `a` ranks above `b`. A total order: bidders have different ids, and different ids different hashes.
    pub fn order(&self, a: &Ranked, b: &Ranked) -> Ordering {
        b.score.total_cmp(&a.score).then_with(|| self.hash(b.bidder).cmp(&self.hash(a.bidder)))
    }

    fn hash(&self, bidder: u32) -> u64 {
        let id = self.ids.get(bidder as usize).copied().unwrap_or(u64::from(bidder));
        splitmix64(self.tie_seed ^ id)
    }

    /// Price of `slot` per click in micros for this offer, before it is settled. `next` [slots for sale] are the scores
    /// that must be beaten for each slot, 0 where nobody competes; `drops` are those of [`View::effect_drops`], `terms` is
    /// scratch of the same length.
    #[inline(always)]
    pub fn price(&self, slot: usize, offer: Offer, next: &[f64], drops: &[f64], terms: &mut [f64]) -> f64 {
        let reserve = offer.reserve as f64;
        // What must be bid at least to rank above a score.
        let least = |next: f64| {
            let critical = next / offer.weight;
            if critical > reserve { critical } else { reserve }
        };
        if self.rule == AuctionRule::Gsp as u8 {
            least(next[slot])
        } else if self.rule == AuctionRule::Vcg as u8 {
            // Each further rank sells the difference of two position effects, at the price of reaching it. The products
            // apart from the sum, so that the divisions run side by side.
            let below = terms[slot..].iter_mut().zip(&next[slot..]).zip(&drops[slot..]);
            below.for_each(|((term, &next), drop)| *term = drop * least(next));
            terms[slot..].iter().fold(0.0, |sum, term| sum + term) / self.effects[slot]
        } else {
            offer.bid as f64
        }
    }
}
