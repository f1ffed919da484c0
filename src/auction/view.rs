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
    pub rule: u8,
    tie_seed: u64,
    pub bids: &'a [u64],
    pub reserves: &'a [u64],
    pub weights: &'a [f64],
    /// Empty where the ids are the indices.
    ids: &'a [u64],
    /// Of the slots for sale, those above 0; the effects never rise, so they are the first ones.
    pub effects: &'a [f64],
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
}

/// An integer below 2^52 as f64, by instructions that every machine has for vectors.
#[inline(always)]
pub(super) fn exact_f64(amount: u64) -> f64 {
    const TWO_TO_52: u64 = 0x4330_0000_0000_0000;
    f64::from_bits(amount | TWO_TO_52) - f64::from_bits(TWO_TO_52)
}
