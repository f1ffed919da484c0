//! What the ads of the winning list pay, and what each of them adds.

use super::counterfactual::{Counterfactuals, Variant};
use super::task::{Generated, Task};
use crate::auction::choice::SlotValue;
use crate::auction::pricing::{PricedAd, clarke_pivot, gsp};
use crate::auction::settle::settle;
use crate::catalog::ItemKind;
use crate::error::RequestError;
use crate::model::reward::Shown;
use crate::money::Micros;
use crate::request::{Counterfactual, PaymentRule};
use crate::response::{Quote, Timings};

/// What prices rest on: candidate lists with their bids, probabilities and rewards, and the one that is shown.
#[derive(Clone, Copy)]
pub(super) struct Market<'g> {
    /// Items of each list.
    pub shown: &'g [Vec<Shown>],
    /// Bids and probabilities of each list.
    pub values: &'g [Vec<SlotValue>],
    /// Reward of each list.
    pub rewards: &'g [f64],
    /// The list that is shown.
    pub winner: usize,
    /// An item that bids other than in the snapshot.
    pub misreport: Option<(u32, Micros)>,
}

impl<'g> Market<'g> {
    /// That of these lists, with the bids of the snapshot.
    pub fn of(generated: &'g Generated) -> Self {
        let Generated { shown, values, rewards, winner, .. } = generated;
        Self { shown, values, rewards, winner: *winner, misreport: None }
    }
}

/// What a slot is charged per click.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Charge {
    /// The rule's price in micros; 0 for organic items.
    pub price: f64,
    /// What [`settle`] makes of it.
    pub payment: Micros,
}

impl Task<'_> {
    /// What every rule would charge for each slot of the winning list.
    pub(super) fn quotes(&self, generated: &Generated) -> Vec<Quote> {
        let charge = |rule| self.charge(rule, generated);
        let network = charge(PaymentRule::Network);
        let gsp = charge(PaymentRule::Gsp);
        let vcg = (self.request.objective.revenue > 0.0).then(|| charge(PaymentRule::Vcg));
        (0..network.len())
            .map(|slot| Quote {
                network_micros: network[slot].payment,
                gsp_micros: gsp[slot].payment,
                vcg_micros: vcg.as_ref().map(|v| v[slot].payment),
            })
            .collect()
    }

    /// What `rule` charges for each slot of the winning list.
    pub(super) fn charge(&self, rule: PaymentRule, generated: &Generated) -> Vec<Charge> {
        let market = Market::of(generated);
        let slots = generated.rates.iter().enumerate();
        slots.map(|(slot, &rate)| self.charge_slot(rule, market, slot, rate)).collect()
    }

    /// What `rule` charges for one slot of the list that is shown; `rate` is the payment network's.
    pub(super) fn charge_slot(&self, rule: PaymentRule, market: Market, slot: usize, rate: f64) -> Charge {
        let Some(ad) = self.priced(market, slot) else { return Charge::default() };
        let price = match rule {
            PaymentRule::Network => rate * ad.bid.0 as f64,
            PaymentRule::Gsp => {
                let later = slot + 1..market.shown[market.winner].len();
                let next = later.into_iter().find_map(|slot| self.priced(market, slot));
                gsp(&ad, next.as_ref(), self.request.squash)
            }
            PaymentRule::Vcg => self.pivot(market, slot, &ad),
            PaymentRule::FirstPrice => ad.bid.0 as f64,
        };
        let unit = self.context.config.billable_unit_micros;
        Charge { price, payment: settle(price, ad.bid, ad.reserve, unit) }
    }

    /// The ad in a slot of the list that is shown; none where there is an organic item.
    fn priced(&self, market: Market, slot: usize) -> Option<PricedAd> {
        let snapshot = self.context.snapshot;
        let item = market.shown[market.winner][slot].item;
        let misreport = market.misreport.filter(|&(misreported, _)| misreported == item);
        (snapshot.kind(item) == ItemKind::Ad).then(|| PricedAd {
            bid: misreport.map_or_else(|| snapshot.bid(item), |(_, bid)| bid),
            reserve: snapshot.reserve(item),
            quality: market.values[market.winner][slot].pctr_poi,
        })
    }

    /// The Clarke pivot of the ad in a slot over the candidate lists.
    fn pivot(&self, market: Market, slot: usize, ad: &PricedAd) -> f64 {
        let revenue = self.request.objective.revenue;
        let item = market.shown[market.winner][slot].item;
        let others: Vec<f64> = (0..market.shown.len())
            .map(|list| {
                let own = market.shown[list].iter().position(|shown| shown.item == item);
                let own = own.map_or(0.0, |slot| {
                    let value = &market.values[list][slot];
                    revenue * value.bid * value.pctr_poi
                });
                market.rewards[list] - own
            })
            .collect();
        clarke_pivot(ad, revenue, self.context.config.bid_unit_micros, &others, market.winner)
    }
}

/// Marginal contribution of each slot (Eq. 31): what the ads of the winning list bring, less what those of the
/// best list without the slot's item bring. None where there is no list without it.
pub(super) fn marginals(
    task: &Task,
    generated: &Generated,
    again: &mut dyn Counterfactuals,
    timings: &mut Timings,
) -> Result<Vec<Option<f64>>, RequestError> {
    let held = ad_value(&generated.values[generated.winner]);
    let without = match task.request.counterfactual {
        Counterfactual::Beams => {
            let best = best_without_each(generated).into_iter();
            best.map(|list| list.map(|list| ad_value(&generated.values[list]))).collect()
        }
        Counterfactual::Redecode => {
            let items = &generated.lists[generated.winner].items;
            let variants: Vec<Variant> = items.iter().map(|&chosen| Variant::Without(chosen)).collect();
            let mut values = Vec::with_capacity(items.len());
            for variants in variants.chunks(task.context.audit.searches) {
                let lists = again.lists(task, generated, variants, timings)?;
                values.extend(lists.iter().map(|again| Some(ad_value(&again.values[again.winner]))));
            }
            values
        }
    };
    Ok(without.into_iter().map(|value: Option<f64>| value.map(|value| held - value)).collect())
}

/// Sum over the ads of a list of bid times click probability, in bid units (organic items bid 0).
fn ad_value(values: &[SlotValue]) -> f64 {
    values.iter().map(|v| v.bid * v.pctr_poi).fold(0.0, |sum, value| sum + value)
}

/// For each slot of the winning list, the list with the highest reward among those that do not show its item.
pub(super) fn best_without_each(generated: &Generated) -> Vec<Option<usize>> {
    let items: Vec<u32> = generated.shown[generated.winner].iter().map(|shown| shown.item).collect();
    let mut ranked: Vec<usize> = (0..generated.lists.len()).collect();
    let rank = |list: usize| (generated.rewards[list], generated.lists[list].score);
    // Stable, so that of equals the lower one is first.
    ranked.sort_by(|&a, &b| {
        let ((a_reward, a_score), (b_reward, b_score)) = (rank(a), rank(b));
        b_reward.total_cmp(&a_reward).then(b_score.total_cmp(&a_score))
    });
    let mut best = vec![None; items.len()];
    for list in ranked {
        for (best, item) in best.iter_mut().zip(&items) {
            if best.is_none() && generated.shown[list].iter().all(|shown| shown.item != *item) {
                *best = Some(list);
            }
        }
        if best.iter().all(Option::is_some) {
            break;
        }
    }
    best
}
