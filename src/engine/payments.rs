//! What the ads of the winning list pay, and what each of them adds.

use super::task::{Generated, Task};
use crate::auction::choice::SlotValue;
use crate::auction::pricing::{PricedAd, clarke_pivot, gsp};
use crate::auction::settle::settle;
use crate::catalog::ItemKind;
use crate::decode::search::Chosen;
use crate::error::RequestError;
use crate::money::Micros;
use crate::request::{Counterfactual, PaymentRule};
use crate::response::{Quote, Timings};

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
        let (snapshot, config) = (self.context.snapshot, self.context.config);
        let shown = &generated.shown[generated.winner];
        let values = &generated.values[generated.winner];
        let mut charges = vec![Charge::default(); shown.len()];
        let slots: Vec<usize> =
            (0..shown.len()).filter(|&slot| snapshot.kind(shown[slot].item) == ItemKind::Ad).collect();
        let ads: Vec<PricedAd> = slots
            .iter()
            .map(|&slot| PricedAd {
                bid: snapshot.bid(shown[slot].item),
                reserve: snapshot.reserve(shown[slot].item),
                quality: values[slot].pctr_poi,
            })
            .collect();
        let prices: Vec<f64> = match rule {
            PaymentRule::Network => {
                slots.iter().zip(&ads).map(|(&slot, ad)| generated.rates[slot] * ad.bid.0 as f64).collect()
            }
            PaymentRule::Gsp => gsp(&ads, self.request.squash),
            PaymentRule::Vcg => slots
                .iter()
                .zip(&ads)
                .map(|(&slot, ad)| self.pivot(generated, shown[slot].item, ad))
                .collect(),
            PaymentRule::FirstPrice => ads.iter().map(|ad| ad.bid.0 as f64).collect(),
        };
        for ((slot, ad), price) in slots.into_iter().zip(&ads).zip(prices) {
            let payment = settle(price, ad.bid, ad.reserve, config.billable_unit_micros);
            charges[slot] = Charge { price, payment };
        }
        charges
    }

    /// The Clarke pivot of `item` over the candidate lists.
    fn pivot(&self, generated: &Generated, item: u32, ad: &PricedAd) -> f64 {
        let revenue = self.request.objective.revenue;
        let others: Vec<f64> = (0..generated.lists.len())
            .map(|list| {
                let own = generated.shown[list].iter().position(|shown| shown.item == item);
                let own = own.map_or(0.0, |slot| {
                    let value = &generated.values[list][slot];
                    revenue * value.bid * value.pctr_poi
                });
                generated.rewards[list] - own
            })
            .collect();
        clarke_pivot(ad, revenue, self.context.config.bid_unit_micros, &others, generated.winner)
    }
}

/// Marginal contribution of each slot (Eq. 31): what the ads of the winning list bring, less what those of the
/// best list without the slot's item bring. None where there is no list without it. `again` makes lists without an
/// item.
pub(super) fn marginals<'a>(
    task: &Task<'a>,
    generated: &Generated,
    again: &mut dyn FnMut(&Task<'a>, Chosen, &mut Timings) -> Result<Generated, RequestError>,
    timings: &mut Timings,
) -> Result<Vec<Option<f64>>, RequestError> {
    let winner = generated.winner;
    let held = ad_value(&generated.values[winner]);
    let mut marginals = Vec::with_capacity(generated.shown[winner].len());
    for chosen in &generated.lists[winner].items {
        let without = match task.request.counterfactual {
            Counterfactual::Beams => {
                best_without(generated, chosen.item).map(|list| ad_value(&generated.values[list]))
            }
            Counterfactual::Redecode => {
                let again = again(task, *chosen, timings)?;
                Some(ad_value(&again.values[again.winner]))
            }
        };
        marginals.push(without.map(|value| held - value));
    }
    Ok(marginals)
}

/// Sum over the ads of a list of bid times click probability, in bid units (organic items bid 0).
fn ad_value(values: &[SlotValue]) -> f64 {
    values.iter().map(|v| v.bid * v.pctr_poi).fold(0.0, |sum, value| sum + value)
}

/// The list with the highest reward among those that do not show `item`.
pub(super) fn best_without(generated: &Generated, item: u32) -> Option<usize> {
    let without: Vec<usize> = (0..generated.lists.len())
        .filter(|&list| generated.shown[list].iter().all(|shown| shown.item != item))
        .collect();
    let ranked = without.iter().map(|&list| (generated.rewards[list], generated.lists[list].score));
    crate::auction::choice::winner(ranked).map(|best| without[best])
}
