//! The slots of one auction side by side: who stands in each, and what a click costs there.
//!
//! All slots of a column are computed at once, a line of [`LINE`] at a time. What is computed where nobody stands, and for
//! what fills the last line up, means nothing.

use super::batch::AuctionRule;
use super::settle::settle;
use super::view::{Offer, View, exact_f64};
use crate::money::Micros;

/// Slots that are computed at a time.
const LINE: usize = 8;

/// The slots for sale of one auction; holds the room for one auction after another.
#[derive(Debug, Default)]
pub(super) struct Slots {
    bids: Vec<u64>,
    reserves: Vec<u64>,
    weights: Vec<f64>,
    /// The score that must be beaten for each slot, 0 where nobody competes.
    next: Vec<f64>,
    prices: Vec<f64>,
    payments: Vec<u64>,
}

impl Slots {
    /// Puts somebody in every slot for sale: those of `offers`, as far as they go, with those of `next` to beat.
    #[inline(always)]
    pub fn fill(
        &mut self,
        auction: &View,
        offers: impl Iterator<Item = Offer>,
        next: impl Iterator<Item = f64>,
    ) {
        let length = auction.for_sale().next_multiple_of(LINE);
        // What is left there of another auction is as good as anything where nobody stands.
        self.bids.resize(length, 0);
        self.reserves.resize(length, 0);
        self.weights.resize(length, 1.0);
        self.next.resize(length, 0.0);
        self.prices.resize(length, 0.0);
        self.payments.resize(length, 0);
        let places = self.bids.iter_mut().zip(&mut self.reserves).zip(&mut self.weights);
        for (((bid, reserve), weight), offer) in places.take(auction.for_sale()).zip(offers) {
            (*bid, *reserve, *weight) = (offer.bid, offer.reserve, offer.weight);
        }
        let mut next = next.take(auction.for_sale());
        self.next.iter_mut().for_each(|place| *place = next.next().unwrap_or(0.0));
    }

    /// Prices per click in micros, before they are settled.
    #[inline(always)]
    pub fn price(&mut self, auction: &View) -> &[f64] {
        if auction.rule == AuctionRule::Gsp as u8 {
            self.gsp();
        } else if auction.rule == AuctionRule::Vcg as u8 {
            self.critical_values(auction.effects);
        } else {
            self.prices.iter_mut().zip(&self.bids).for_each(|(price, &bid)| *price = exact_f64(bid));
        }
        &self.prices[..auction.for_sale()]
    }

    /// What everybody pays for these prices.
    #[inline(always)]
    pub fn settle(&mut self, unit: u64) -> &[u64] {
        let terms = self.prices.iter().zip(&self.bids).zip(&self.reserves);
        for (payment, ((&price, &bid), &reserve)) in self.payments.iter_mut().zip(terms) {
            *payment = settle(price, Micros(bid), Micros(reserve), unit).0;
        }
        &self.payments
    }

    #[inline(always)]
    fn gsp(&mut self) {
        let terms = self.next.iter().zip(&self.weights).zip(&self.reserves);
        for (price, ((&next, &weight), &reserve)) in self.prices.iter_mut().zip(terms) {
            *price = least(next, weight, exact_f64(reserve));
        }
    }

    /// Each further rank sells the difference of two position effects, at the price of reaching it.
    #[inline(always)]
    fn critical_values(&mut self, effects: &[f64]) {
        let (weights, reserves) = (self.weights.as_chunks::<LINE>().0, self.reserves.as_chunks::<LINE>().0);
        let prices = self.prices.as_chunks_mut::<LINE>().0;
        for (line, ((prices, weights), reserves)) in prices.iter_mut().zip(weights).zip(reserves).enumerate()
        {
            let first = line * LINE;
            let mut sums = [0.0; LINE];
            for rank in first..effects.len() {
                let drop = effects[rank] - effects.get(rank + 1).copied().unwrap_or(0.0);
                for l in 0..LINE {
                    let term = drop * least(self.next[rank], weights[l], exact_f64(reserves[l]));
                    // The ranks above a slot are none of its business; adding 0 changes no bit of its sum.
                    sums[l] += if first + l <= rank { term } else { 0.0 };
                }
            }
            for l in 0..LINE {
                prices[l] = sums[l] / effects.get(first + l).copied().unwrap_or(1.0);
            }
        }
    }
}

/// What must be bid at least to rank above a score.
#[inline(always)]
fn least(next: f64, weight: f64, reserve: f64) -> f64 {
    let critical = next / weight;
    if critical > reserve { critical } else { reserve }
}
