//! What the ads of the winning list pay, and what each of them adds.

use super::Engine;
use super::generation::Generated;
use super::workspace::Workspace;
use crate::auction::choice::SlotValue;
use crate::auction::pricing::{PricedAd, clarke_pivot, gsp};
use crate::auction::settle::settle;
use crate::catalog::{ItemKind, Snapshot};
use crate::cpu::Exec;
use crate::error::{RequestError, RequestErrorKind};
use crate::model::payment::PaymentInput;
use crate::money::Micros;
use crate::request::{Counterfactual, PaymentRule, Request};
use crate::resolve::Resolved;
use crate::response::{Quote, Timings};

/// The payment network's rates of the winning list, [filled slots]; 0 for organic items.
pub(super) type Rates = Vec<f64>;

impl Engine {
    /// The payment network's rates of the winning list.
    pub(super) fn rates(
        &self,
        exec: Exec,
        workspace: &mut Workspace,
        snapshot: &Snapshot,
        generated: &Generated,
    ) -> Result<Rates, RequestError> {
        let winner = generated.winner;
        let d_r = self.model.config.reward_hidden_size;
        let items = &generated.lists[winner].items;
        let inputs: Vec<_> = workspace
            .reward
            .rows(winner)
            .zip(&generated.values[winner])
            .zip(items)
            .map(|((row, value), chosen)| PaymentInput {
                features: &workspace.reward.features[row * d_r..(row + 1) * d_r],
                bid: value.bid,
                z_pctr: libm::exp(chosen.ln_z) * value.pctr_poi,
            })
            .collect();
        let rates = self.model.payment.rates(exec, &inputs, &mut workspace.payment);
        if let Some(bad) = rates.iter().find(|rate| !rate.is_finite()) {
            let message = format!("the payment network's rate is {bad}");
            return Err(RequestError::new(RequestErrorKind::NotFinite, "payment", message));
        }
        let is_ad = |item: u32| snapshot.kind(item) == ItemKind::Ad;
        Ok(items
            .iter()
            .zip(rates)
            .map(|(chosen, &rate)| if is_ad(chosen.item) { f64::from(rate) } else { 0.0 })
            .collect())
    }

    /// What every rule would charge for each slot of the winning list.
    pub(super) fn quotes(
        &self,
        request: &Request,
        snapshot: &Snapshot,
        generated: &Generated,
        rates: &[f64],
    ) -> Vec<Quote> {
        let charge = |rule| self.charge(rule, request, snapshot, generated, rates);
        let network = charge(PaymentRule::Network);
        let gsp = charge(PaymentRule::Gsp);
        let vcg = (request.objective.revenue > 0.0).then(|| charge(PaymentRule::Vcg));
        (0..network.len())
            .map(|slot| Quote {
                network_micros: network[slot],
                gsp_micros: gsp[slot],
                vcg_micros: vcg.as_ref().map(|v| v[slot]),
            })
            .collect()
    }

    /// What `rule` charges for each slot of the winning list.
    pub(super) fn charge(
        &self,
        rule: PaymentRule,
        request: &Request,
        snapshot: &Snapshot,
        generated: &Generated,
        rates: &[f64],
    ) -> Vec<Micros> {
        let shown = &generated.shown[generated.winner];
        let values = &generated.values[generated.winner];
        let mut payments = vec![Micros::ZERO; shown.len()];
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
                slots.iter().zip(&ads).map(|(&slot, ad)| rates[slot] * ad.bid.0 as f64).collect()
            }
            PaymentRule::Gsp => gsp(&ads, request.squash),
            PaymentRule::Vcg => slots
                .iter()
                .zip(&ads)
                .map(|(&slot, ad)| self.pivot(request, generated, shown[slot].item, ad))
                .collect(),
            PaymentRule::FirstPrice => ads.iter().map(|ad| ad.bid.0 as f64).collect(),
        };
        for ((slot, ad), price) in slots.into_iter().zip(&ads).zip(prices) {
            payments[slot] = settle(price, ad.bid, ad.reserve, self.model.config.billable_unit_micros);
        }
        payments
    }

    /// The Clarke pivot of `item` over the candidate lists.
    fn pivot(&self, request: &Request, generated: &Generated, item: u32, ad: &PricedAd) -> f64 {
        let revenue = request.objective.revenue;
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
        clarke_pivot(ad, revenue, self.model.config.bid_unit_micros, &others, generated.winner)
    }

    /// Marginal contribution of each slot (Eq. 31): what the ads of the winning list bring, less what those of the
    /// best list without the slot's item bring. None where there is no list without it.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn marginals(
        &self,
        exec: Exec,
        workspace: &mut Workspace,
        request: &Request,
        resolved: &Resolved,
        snapshot: &Snapshot,
        generated: &Generated,
        timings: &mut Timings,
    ) -> Result<Vec<Option<f64>>, RequestError> {
        let winner = generated.winner;
        let held = ad_value(&generated.values[winner]);
        let mut marginals = Vec::with_capacity(generated.shown[winner].len());
        for chosen in &generated.lists[winner].items {
            let without = match request.counterfactual {
                Counterfactual::Beams => {
                    best_without(generated, chosen.item).map(|list| ad_value(&generated.values[list]))
                }
                Counterfactual::Redecode => {
                    let objective = &request.objective;
                    let again = self.generate(
                        exec,
                        workspace,
                        resolved,
                        objective,
                        snapshot,
                        Some(*chosen),
                        timings,
                        None,
                    )?;
                    Some(ad_value(&again.values[again.winner]))
                }
            };
            marginals.push(without.map(|value| held - value));
        }
        Ok(marginals)
    }
}

/// Sum over the ads of a list of bid times click probability, in bid units (organic items bid 0).
fn ad_value(values: &[SlotValue]) -> f64 {
    values.iter().map(|v| v.bid * v.pctr_poi).sum()
}

/// The list with the highest reward among those that do not show `item`.
fn best_without(generated: &Generated, item: u32) -> Option<usize> {
    let without: Vec<usize> = (0..generated.lists.len())
        .filter(|&list| generated.shown[list].iter().all(|shown| shown.item != item))
        .collect();
    let ranked = without.iter().map(|&list| (generated.rewards[list], generated.lists[list].score));
    crate::auction::choice::winner(ranked).map(|best| without[best])
}
