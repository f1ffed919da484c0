//! The most revenue that a list could bring, by the truth.

use std::collections::HashMap;

use anyhow::ensure;

use super::feasible::{Feasible, assemble};
use crate::data::{Ask, Catalog};
use crate::world::{Shown, Viewer};

/// A list of the highest expected revenue when every ad pays its bid, among all that the request admits.
///
/// Every set of slots and every choice of ads is weighed. That is exact as long as no two ads stand side by side: then
/// what an ad earns in its slot depends on where the other ads are, not on which they are.
///
/// # Errors
/// If the policy lets ads stand side by side.
pub fn oracle_list(catalog: &Catalog, ask: &Ask, viewer: &Viewer) -> anyhow::Result<Vec<Shown>> {
    ensure!(
        ask.policy.min_gap > 0,
        "request {}: `policy.min_gap`: is 0, expected at least 1 by the oracle",
        ask.id
    );
    let feasible = Feasible::new(catalog, ask);
    let oracle = Oracle::new(catalog, &feasible, viewer);
    let mut best = (f64::NEG_INFINITY, Vec::new());
    for count in 0..=feasible.most_ads() {
        for slots in feasible.all_ad_slots(count) {
            let candidate = oracle.fill(&slots);
            if candidate.0 > best.0 {
                best = candidate;
            }
        }
    }
    Ok(oracle.show(&best.1))
}

/// What the oracle knows of a request.
struct Oracle<'a> {
    catalog: &'a Catalog,
    feasible: &'a Feasible,
    viewer: &'a Viewer<'a>,
    /// Of every item: the creative that the user likes most, and the interest in the item.
    known: HashMap<usize, (Shown, f64)>,
}

impl<'a> Oracle<'a> {
    fn new(catalog: &'a Catalog, feasible: &'a Feasible, viewer: &'a Viewer<'a>) -> Self {
        let know = |&item: &usize| {
            let by_effect = |&a: &usize, &b: &usize| {
                viewer.creative_effect(a).total_cmp(&viewer.creative_effect(b)).then(b.cmp(&a))
            };
            let own = catalog.items[item].creatives.clone();
            let creative = own.clone().max_by(by_effect).unwrap_or(own.start);
            (item, (Shown { item, creative }, viewer.interest(item)))
        };
        let known = feasible.ads.iter().chain(&feasible.organic).map(know).collect();
        Self { catalog, feasible, viewer, known }
    }

    /// The best list with ads in just these slots: its revenue and its items.
    fn fill(&self, slots: &[usize]) -> (f64, Vec<usize>) {
        let length = self.feasible.slots(slots.len());
        let organic = &self.feasible.organic;
        let start = assemble(length, &self.feasible.ads[..slots.len()], slots, organic);
        let options: Vec<Vec<(f64, usize)>> =
            slots.iter().map(|&slot| self.best_ads(slot, &start, slots.len())).collect();
        let (revenue, ads) = assign(&options, &mut Vec::new());
        (revenue, assemble(length, &ads, slots, organic))
    }

    /// The `count` ads that earn most in a slot of a list, with what they earn. One of them is always free for it.
    fn best_ads(&self, slot: usize, items: &[usize], count: usize) -> Vec<(f64, usize)> {
        let mut list = self.show(items);
        let mut interest: Vec<f64> = items.iter().map(|item| self.known[item].1).collect();
        let mut earned: Vec<(f64, usize)> = Vec::with_capacity(self.feasible.ads.len());
        for &ad in &self.feasible.ads {
            (list[slot], interest[slot]) = self.known[&ad];
            let clicks = self.viewer.clicks_in(slot, &list, &interest).on_poi();
            earned.push((clicks * self.catalog.bid(ad), ad));
        }
        earned.sort_by(|a, b| b.0.total_cmp(&a.0));
        earned.truncate(count);
        earned
    }

    fn show(&self, items: &[usize]) -> Vec<Shown> {
        items.iter().map(|item| self.known[item].0).collect()
    }
}

/// The best choice of one option for each slot, no ad twice: what it earns, and the ads.
fn assign(options: &[Vec<(f64, usize)>], taken: &mut Vec<usize>) -> (f64, Vec<usize>) {
    let Some(own) = options.get(taken.len()) else { return (0.0, taken.clone()) };
    let mut best = (f64::NEG_INFINITY, Vec::new());
    for &(earned, ad) in own {
        if taken.contains(&ad) {
            continue;
        }
        taken.push(ad);
        let (rest, ads) = assign(options, taken);
        taken.pop();
        if earned + rest > best.0 {
            best = (earned + rest, ads);
        }
    }
    best
}
