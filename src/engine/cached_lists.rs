//! The candidate lists of a request as they would be ranked and priced if one of its ads had another bid.

use super::audit::Ad;
use super::payments::Market;
use super::task::{Generated, Task};
use crate::auction::choice::{SlotValue, list_reward, winner};
use crate::model::reward::Shown;
use crate::money::Micros;
use crate::request::PaymentRule;

/// The lists, with one bid changed. Which lists there are, and their scores, are those of the true bids.
pub(super) struct CachedLists<'a, 't> {
    task: &'a Task<'t>,
    truth: &'a Generated,
    ad: Ad,
    bid: Micros,
    /// With the bid.
    values: Vec<Vec<SlotValue>>,
    /// With the bid.
    rewards: Vec<f64>,
    /// The slot of the ad in each list.
    slots: Vec<Option<usize>>,
}

/// The reward of a list as a function of the ad's bid in micros.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// At a bid of 0.
    start: f64,
    slope: f64,
}

impl Line {
    /// The bid from which on `steeper` is the higher one.
    fn crossing(self, steeper: Self) -> f64 {
        (self.start - steeper.start) / (steeper.slope - self.slope)
    }
}

impl<'a, 't> CachedLists<'a, 't> {
    /// The lists of `truth`, with the true bid of `ad`.
    pub fn new(task: &'a Task<'t>, truth: &'a Generated, ad: Ad) -> Self {
        let slot = |shown: &Vec<Shown>| shown.iter().position(|shown| shown.item == ad.item);
        Self {
            task,
            truth,
            ad,
            bid: ad.value,
            values: truth.values.clone(),
            rewards: truth.rewards.clone(),
            slots: truth.shown.iter().map(slot).collect(),
        }
    }

    /// Changes the bid.
    pub fn set_bid(&mut self, bid: Micros) {
        self.bid = bid;
        let in_units = bid.in_units(self.task.context.config.bid_unit_micros);
        let lists = self.values.iter_mut().zip(&mut self.rewards).zip(&self.slots);
        for ((values, reward), slot) in lists {
            if let Some(slot) = *slot {
                values[slot].bid = in_units;
                *reward = list_reward(&self.task.request.objective, values);
            }
        }
    }

    /// The list that is shown. Equal rewards are ranked by the scores that the lists came with.
    pub fn best(&self) -> usize {
        let scores = self.truth.lists.iter().map(|list| list.score);
        winner(self.rewards.iter().copied().zip(scores)).unwrap_or_default()
    }

    /// The slot of the ad in a list.
    pub fn slot_in(&self, list: usize) -> Option<usize> {
        self.slots[list]
    }

    /// What prices rest on if `list` is shown.
    pub fn market(&self, list: usize) -> Market<'_> {
        Market {
            shown: &self.truth.shown,
            values: &self.values,
            rewards: &self.rewards,
            winner: list,
            misreport: Some((self.ad.item, self.bid)),
        }
    }

    /// The highest utility of all bids, under a rule other than the network's.
    ///
    /// A list's reward is a line over the bid. As long as one list is shown, the payment per click does not fall while
    /// the bid rises: it is the bid itself, or a price that does not depend on it and is cut by it. So the best bid is
    /// the lowest at which some list is shown, and these are where the highest of the lines changes. The lines are
    /// those of f64; what an ad gets at the micros around each crossing is computed as it is for any other bid.
    pub fn best_utility(&mut self, rule: PaymentRule) -> f64 {
        let lines = self.lines();
        let lowest = self.ad.reserve.0 as f64;
        let at = |line: &Line| line.start + line.slope * lowest;
        let first =
            lines.iter().copied().max_by(|a, b| at(a).total_cmp(&at(b)).then(a.slope.total_cmp(&b.slope)));
        let mut best = self.utility(rule, self.ad.value).max(self.around(rule, lowest));
        let mut highest = first;
        while let Some(line) = highest {
            let steeper = lines.iter().copied().filter(|other| other.slope > line.slope);
            let crossings = steeper.map(|other| (line.crossing(other), other));
            // Of those that cross at one bid the steepest is the highest from there on.
            let next = crossings.min_by(|(a, line_a), (b, line_b)| {
                a.total_cmp(b).then(line_b.slope.total_cmp(&line_a.slope))
            });
            if let Some((bid, _)) = next {
                best = best.max(self.around(rule, bid));
            }
            highest = next.filter(|(bid, _)| *bid <= Micros::MAX.0 as f64).map(|(_, line)| line);
        }
        best
    }

    fn lines(&mut self) -> Vec<Line> {
        self.set_bid(Micros::ZERO);
        let per_micro = self.task.request.objective.revenue / self.task.context.config.bid_unit_micros as f64;
        let lists = self.rewards.iter().zip(&self.values).zip(&self.slots);
        lists
            .map(|((&start, values), slot)| Line {
                start,
                slope: slot.map_or(0.0, |slot| per_micro * values[slot].pctr_poi),
            })
            .collect()
    }

    /// The highest utility of the micros around a bid.
    fn around(&mut self, rule: PaymentRule, bid: f64) -> f64 {
        // The cast saturates.
        let micros = bid as u64;
        let (lowest, highest) = (self.ad.reserve.0, Micros::MAX.0);
        let range = micros.saturating_sub(2)..=micros.saturating_add(2);
        let allowed = range.filter(|bid| (lowest..=highest).contains(bid));
        allowed.map(|bid| self.utility(rule, Micros(bid))).fold(0.0, f64::max)
    }

    /// What the ad has if it bids `bid`, not below its reserve.
    fn utility(&mut self, rule: PaymentRule, bid: Micros) -> f64 {
        self.set_bid(bid);
        let list = self.best();
        self.slot_in(list).map_or(0.0, |slot| {
            let market = self.market(list);
            let payment = self.task.charge_slot(rule, market, slot, 0.0).payment;
            self.ad.utility(payment, market.values[list][slot].pctr_poi)
        })
    }
}
