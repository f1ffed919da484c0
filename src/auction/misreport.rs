//! What one bidder of an auction gets for any bid, the others bidding as they do.

use super::ranking::Ranking;
use super::slots::Slots;
use super::view::{Offer, Ranked, View};
use crate::cpu::Scalar;
use crate::money::Micros;

/// What a bid wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sale {
    /// The slot.
    pub slot: u32,
    /// What a click costs.
    pub payment: Micros,
}

/// An auction seen by its bidders, one at a time.
pub(super) struct Misreports<'a> {
    view: View<'a>,
    unit: u64,
    /// The best of all bidders, one more than there are slots for sale: without any one bidder that is still one for
    /// each slot.
    ranked: Vec<Ranked>,
    slots: Slots,
    bidder: usize,
    /// The best of the others.
    others: Vec<Ranked>,
    /// Price of each slot for sale to the bidder, before it is settled.
    prices: Vec<f64>,
}

impl<'a> Misreports<'a> {
    /// Ranks the bidders of an auction, with the first one in view. Payments are multiples of `unit`.
    pub fn new(view: View<'a>, unit: u64) -> Self {
        let ranked = Ranking::default().rank::<Scalar>(&view, view.for_sale() + 1).to_vec();
        let slots = Slots::default();
        let (others, prices) = (Vec::new(), Vec::new());
        let mut misreports = Self { view, unit, ranked, slots, bidder: 0, others, prices };
        misreports.face(0);
        misreports
    }

    /// Takes the place of `bidder`.
    pub fn face(&mut self, bidder: usize) {
        self.bidder = bidder;
        self.others.clear();
        self.others.extend(self.ranked.iter().filter(|ranked| ranked.bidder as usize != bidder));
        let everywhere = std::iter::repeat(self.view.offer(bidder));
        self.slots.fill(&self.view, everywhere, self.others.iter().map(|other| other.score));
        self.prices.clear();
        self.prices.extend_from_slice(self.slots.price(&self.view));
    }

    /// The true value of the bidder in view: what it bids in the batch.
    pub fn value(&self) -> u64 {
        self.view.bids[self.bidder]
    }

    /// What the bidder wins by `bid`, at most [`Micros::MAX`].
    pub fn sale(&self, bid: u64) -> Option<Sale> {
        let offer = Offer { bid, ..self.view.offer(self.bidder) };
        let own = Ranked { score: offer.score()?, bidder: self.bidder as u32 };
        let slot = self.others.iter().take_while(|other| self.view.order(other, &own).is_lt()).count();
        let price = *self.prices.get(slot)?;
        let price = if self.view.is_first_price() { bid as f64 } else { price };
        Some(Sale { slot: slot as u32, payment: offer.payment(price, self.unit) })
    }

    /// The sale of the highest utility over all bids; none where no sale is worth more than none.
    ///
    /// Within a slot the payment never falls as the bid grows, so the least bid for each slot is all that matters.
    pub fn best(&self) -> Option<Sale> {
        let reserve = self.view.reserves[self.bidder];
        let least = |slot: usize| match self.others.get(slot) {
            Some(other) => self.least_above(other),
            None => Some(reserve),
        };
        let sales = (0..self.view.for_sale()).filter_map(least).filter_map(|bid| self.sale(bid));
        let worth = |sale: &Sale| self.utility(Some(*sale));
        sales.filter(|sale| worth(sale) > 0.0).max_by(|a, b| worth(a).total_cmp(&worth(b)))
    }

    /// theta (v - p) in micros for a sale, 0 for none.
    pub fn utility(&self, sale: Option<Sale>) -> f64 {
        sale.map_or(0.0, |sale| {
            self.view.effects[sale.slot as usize] * (self.value() as f64 - sale.payment.0 as f64)
        })
    }

    /// The least bid that takes part and ranks above `other`; none where no bid does.
    fn least_above(&self, other: &Ranked) -> Option<u64> {
        let offer = self.view.offer(self.bidder);
        let above = |bid: u64| {
            let own = Offer { bid, ..offer }.score();
            own.is_some_and(|score| {
                self.view.order(&Ranked { score, bidder: self.bidder as u32 }, other).is_lt()
            })
        };
        // The quotient is off by little, unless the product is subnormal.
        let near = ((other.score / offer.weight) as u64).max(offer.reserve);
        let (mut low, mut high) = (near.saturating_sub(2), near.saturating_add(2).min(Micros::MAX.0));
        if above(low) {
            low = 0;
        }
        if !above(high) {
            high = Micros::MAX.0;
        }
        if above(low) || !above(high) {
            return above(low).then_some(low);
        }
        // Not `low`, but `high`.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if above(middle) { high = middle } else { low = middle }
        }
        Some(high)
    }
}
