//! What an ad's place in the winning list and its price rest on.

use super::payments::{Charge, best_without_each};
use super::task::{Generated, Task};
use crate::catalog::ItemKind;
use crate::response::{Grounds, RunnerUp};

impl Task<'_> {
    /// The grounds of every slot of the winning list, none for organic items.
    pub(super) fn grounds(&self, generated: &Generated, charges: &[Charge]) -> Vec<Option<Grounds>> {
        let snapshot = self.context.snapshot;
        let shown = &generated.shown[generated.winner];
        let without = best_without_each(generated);
        let of_slot = |(slot, charge): (usize, &Charge)| {
            let item = shown[slot].item;
            (snapshot.kind(item) == ItemKind::Ad).then(|| {
                let runner_up = without[slot];
                Grounds {
                    reserve: snapshot.reserve(item),
                    price: charge.price,
                    critical_bid: self.critical_bid(generated, item, runner_up),
                    runner_up: runner_up.map(|list| RunnerUp {
                        beam: list,
                        reward: generated.rewards[list],
                        item: generated.shown[list].get(slot).map(|shown| snapshot.id(shown.item)),
                    }),
                }
            })
        };
        charges.iter().enumerate().map(of_slot).collect()
    }

    /// The least bid in micros with which a list that shows `item` has the reward of the list `without` it: each list
    /// with the item needs `(R(without) - others) / (m_rev q)`.
    fn critical_bid(&self, generated: &Generated, item: u32, without: Option<usize>) -> Option<f64> {
        let reserve = self.context.snapshot.reserve(item).0 as f64;
        let Some(without) = without else { return Some(reserve) };
        let revenue = self.request.objective.revenue;
        let unit = self.context.config.bid_unit_micros as f64;
        let needed = (0..generated.lists.len()).filter_map(|list| {
            let slot = generated.shown[list].iter().position(|shown| shown.item == item)?;
            let value = &generated.values[list][slot];
            let weight = revenue * value.pctr_poi;
            let others = generated.rewards[list] - revenue * value.bid * value.pctr_poi;
            (weight > 0.0).then(|| (generated.rewards[without] - others) / weight * unit)
        });
        needed.reduce(f64::min).map(|bid| bid.max(reserve))
    }
}
