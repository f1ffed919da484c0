//! The regret audit of a request (Eq. 6-7): what each of its ads could gain by another bid.
//!
//! The bids that allocation saw are taken for the values v. One ad at a time bids gamma v instead, and what follows from
//! that is computed again, how much of it the tier says:
//!
//! - `fixed`: z along the list, rate and payment; the list stays.
//! - `reselect`: the rewards of the candidate lists and which of them is shown, then as `fixed` along that one.
//! - `redecode`: everything, from the first step of the search on.

use super::cached_lists::CachedLists;
use super::counterfactual::{Counterfactuals, RateQuery, Rated, Variant};
use super::payments::{Charge, Market};
use super::task::{Generated, Logits, Task};
use crate::auction::choice::SlotValue;
use crate::auction::regret::misreport;
use crate::auction::settle::settle;
use crate::decode::search::Search;
use crate::error::RequestError;
use crate::money::Micros;
use crate::request::{Audit, PaymentRule};
use crate::response::Timings;
use crate::response::audit::{AuditedAd, RegretAudit, SharedRows, SweepPoint};

/// An ad of the winning list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ad {
    pub slot: usize,
    /// Row in the snapshot.
    pub item: u32,
    /// Position among the request's ads.
    pub position: usize,
    /// What it bids, and so what a click is worth to it.
    pub value: Micros,
    pub reserve: Micros,
}

impl Ad {
    /// (v - payment) times clicks, in micros.
    pub fn utility(&self, payment: Micros, clicks: f64) -> f64 {
        (self.value.0 as f64 - payment.0 as f64) * clicks
    }

    /// gamma v, rounded down to a micro.
    fn misreport(&self, gamma: f64) -> Micros {
        Micros(misreport(gamma, self.value.0))
    }
}

/// What an ad gets for a bid at which it is shown.
#[derive(Debug, Clone)]
struct Outcome {
    slot: usize,
    payment: Micros,
    clicks: f64,
    z: Option<f64>,
    rate_input: Option<Vec<f32>>,
}

/// What an ad gets at each gamma; none where it is not shown.
type Sweep = Vec<Option<Outcome>>;

/// Audits the winning list of `task`, whose slots are charged `charges`.
pub(super) fn audit(
    task: &Task,
    truth: &Generated,
    charges: &[Charge],
    again: &mut dyn Counterfactuals,
) -> Result<RegretAudit, RequestError> {
    let auditor = Auditor { task, truth, ads: ads(task, truth) };
    let (sweeps, decoder) = match task.request.audit {
        Audit::Redecode => auditor.redecode(again)?,
        _ => (auditor.keep_lists(again)?, None),
    };
    let ads = auditor.ads.iter().zip(&sweeps);
    let ads = ads.map(|(ad, sweep)| auditor.report(ad, sweep, charges[ad.slot].payment)).collect();
    Ok(RegretAudit { tier: task.request.audit, ads, decoder })
}

/// The ads of the winning list.
fn ads(task: &Task, truth: &Generated) -> Vec<Ad> {
    let snapshot = task.context.snapshot;
    let items = truth.lists[truth.winner].items.iter().enumerate();
    items
        .filter_map(|(slot, chosen)| {
            Some(Ad {
                slot,
                item: chosen.item,
                position: chosen.position? as usize,
                value: snapshot.bid(chosen.item),
                reserve: snapshot.reserve(chosen.item),
            })
        })
        .collect()
}

struct Auditor<'a, 't> {
    task: &'a Task<'t>,
    truth: &'a Generated,
    ads: Vec<Ad>,
}

/// A point of a sweep whose payment hangs on the payment network.
struct Open {
    /// Index of the ad, and of gamma.
    at: (usize, usize),
    bid: Micros,
    list: usize,
    slot: usize,
    /// Of the list, with the bid.
    values: Vec<SlotValue>,
    ln_z: f64,
}

impl Auditor<'_, '_> {
    fn gammas(&self) -> &[f64] {
        self.task.context.audit.gammas.gammas()
    }

    /// The points of the sweeps whose bid is not below the reserve: index of the ad, index of gamma, and the bid.
    fn misreports(&self) -> impl Iterator<Item = (usize, usize, Micros)> {
        self.ads.iter().enumerate().flat_map(move |(index, ad)| {
            let bids = self.gammas().iter().map(|&gamma| ad.misreport(gamma)).enumerate();
            bids.filter(|(_, bid)| *bid >= ad.reserve).map(move |(gamma, bid)| (index, gamma, bid))
        })
    }

    fn nobody_shown(&self) -> Vec<Sweep> {
        vec![vec![None; self.gammas().len()]; self.ads.len()]
    }

    /// The sweeps of `fixed` and of `reselect`.
    fn keep_lists(&self, again: &mut dyn Counterfactuals) -> Result<Vec<Sweep>, RequestError> {
        let (task, truth) = (self.task, self.truth);
        let rule = task.request.payment;
        let mut sweeps = self.nobody_shown();
        let mut open = Vec::new();
        let mut lists: Vec<CachedLists> =
            self.ads.iter().map(|ad| CachedLists::new(task, truth, *ad)).collect();
        for (index, gamma, bid) in self.misreports() {
            let lists = &mut lists[index];
            lists.set_bid(bid);
            let list = if task.request.audit == Audit::Fixed { truth.winner } else { lists.best() };
            let Some(slot) = lists.slot_in(list) else { continue };
            let market = lists.market(list);
            let clicks = market.values[list][slot].pctr_poi;
            let mut outcome = Outcome { slot, payment: Micros::ZERO, clicks, z: None, rate_input: None };
            if rule == PaymentRule::Network {
                let values = market.values[list].clone();
                open.push(Open { at: (index, gamma), bid, list, slot, values, ln_z: 0.0 });
            } else {
                outcome.payment = task.charge_slot(rule, market, slot, 0.0).payment;
            }
            sweeps[index][gamma] = Some(outcome);
        }
        if let Some(logits) = &truth.logits {
            self.find_z(logits, &mut open)?;
            self.pay_by_network(&open, again, &mut sweeps)?;
        }
        Ok(sweeps)
    }

    /// z of each open point, along the codes of its list.
    fn find_z(&self, logits: &Logits, open: &mut [Open]) -> Result<(), RequestError> {
        let (resolved, snapshot) = (&self.task.resolved, self.task.context.snapshot);
        let search = Search::new(&resolved.rules, snapshot, &resolved.ads, &resolved.organic, None);
        for Open { at, bid, list, slot, ln_z, .. } in open {
            let Ad { item, position, .. } = self.ads[at.0];
            let changed = snapshot.with_bid(item, *bid);
            let ads = resolved.ads.with_bid(&changed, position);
            let search = search.with_bid(&ads, position);
            *ln_z = search.item_ln_z(&self.truth.lists[*list], *slot, |step, row| logits.row(step, row))?;
        }
        Ok(())
    }

    fn pay_by_network(
        &self,
        open: &[Open],
        again: &mut dyn Counterfactuals,
        sweeps: &mut [Sweep],
    ) -> Result<(), RequestError> {
        let queries = open.iter().map(|open| RateQuery {
            shown: &self.truth.shown[open.list],
            values: &open.values,
            slot: open.slot,
            ln_z: open.ln_z,
        });
        let queries: Vec<RateQuery> = queries.collect();
        let rates = again.rates(self.task, &queries)?;
        let context = self.task.context;
        let unit = context.config.billable_unit_micros;
        for (Open { at: (index, gamma), bid, ln_z, .. }, Rated { rate, input }) in open.iter().zip(rates) {
            if let Some(outcome) = &mut sweeps[*index][*gamma] {
                outcome.payment = settle(rate * bid.0 as f64, *bid, self.ads[*index].reserve, unit);
                outcome.z = Some(libm::exp(*ln_z));
                outcome.rate_input = context.report.rate_inputs.then_some(input);
            }
        }
        Ok(())
    }

    /// The sweeps of `redecode`, and what the decoder did for them.
    fn redecode(
        &self,
        again: &mut dyn Counterfactuals,
    ) -> Result<(Vec<Sweep>, Option<SharedRows>), RequestError> {
        let mut sweeps = self.nobody_shown();
        let points: Vec<(usize, usize, Micros)> = self.misreports().collect();
        let mut timings = Timings::default();
        for points in points.chunks(self.task.context.audit.searches) {
            let variant = |&(index, _, bid): &(usize, usize, Micros)| {
                let Ad { item, position, .. } = self.ads[index];
                Variant::Misreport { item, position, bid }
            };
            let variants: Vec<Variant> = points.iter().map(variant).collect();
            let lists = again.lists(self.task, self.truth, &variants, &mut timings)?;
            for (&(index, gamma, bid), generated) in points.iter().zip(&lists) {
                let mut outcome = self.outcome(&self.ads[index], bid, generated);
                if let Some(outcome) = outcome.as_mut().filter(|_| self.task.context.report.rate_inputs) {
                    outcome.rate_input = Some(self.rate_input(again, generated, outcome.slot)?);
                }
                sweeps[index][gamma] = outcome;
            }
        }
        let decoder = again.work().map(|work| SharedRows {
            searches: points.len(),
            unique_prefixes: work.unique_prefixes,
            rows: work.rows,
            rows_alone: work.rows_alone,
        });
        Ok((sweeps, decoder))
    }

    /// What the payment network reads of a slot of a list that was made for another bid.
    fn rate_input(
        &self,
        again: &mut dyn Counterfactuals,
        generated: &Generated,
        slot: usize,
    ) -> Result<Vec<f32>, RequestError> {
        let winner = generated.winner;
        let ln_z = generated.lists[winner].items[slot].ln_z;
        let (shown, values) = (&generated.shown[winner][..], &generated.values[winner][..]);
        let rated = again.rates(self.task, &[RateQuery { shown, values, slot, ln_z }])?;
        Ok(rated.into_iter().map(|Rated { input, .. }| input).next().unwrap_or_default())
    }

    /// What an ad gets from lists that were made for its bid.
    fn outcome(&self, ad: &Ad, bid: Micros, generated: &Generated) -> Option<Outcome> {
        let winner = generated.winner;
        let slot = generated.shown[winner].iter().position(|shown| shown.item == ad.item)?;
        let market = Market { misreport: Some((ad.item, bid)), ..Market::of(generated) };
        let (rule, rate) = (self.task.request.payment, generated.rates[slot]);
        Some(Outcome {
            slot,
            payment: self.task.charge_slot(rule, market, slot, rate).payment,
            clicks: generated.values[winner][slot].pctr_poi,
            z: Some(libm::exp(generated.lists[winner].items[slot].ln_z)),
            rate_input: None,
        })
    }

    fn report(&self, ad: &Ad, sweep: &Sweep, payment: Micros) -> AuditedAd {
        let Auditor { task, truth, .. } = self;
        let snapshot = task.context.snapshot;
        let utility = ad.utility(payment, truth.values[truth.winner][ad.slot].pctr_poi);
        let points =
            self.gammas().iter().zip(sweep).map(|(&gamma, outcome)| point(ad, gamma, outcome.clone()));
        let sweep: Vec<SweepPoint> = points.collect();
        let best = sweep.iter().map(|point| point.utility_micros).fold(0.0, f64::max);
        let exact = match (task.request.audit, task.request.payment) {
            (Audit::Reselect, rule) if rule != PaymentRule::Network => {
                Some(CachedLists::new(task, truth, *ad).best_utility(rule).max(best))
            }
            _ => None,
        };
        AuditedAd {
            slot: ad.slot,
            item: snapshot.id(ad.item),
            advertiser: snapshot.advertiser(ad.item),
            value_micros: ad.value,
            utility_micros: utility,
            regret_micros: (best - utility).max(0.0),
            exact_regret_micros: exact.map(|exact| (exact - utility).max(0.0)),
            least_ratio: (task.request.audit == Audit::Fixed)
                .then(|| self.least_ratio(ad, payment))
                .flatten(),
            sweep,
        }
    }

    /// (rate - gamma) / (1 - rate) for the least gamma at which the ad is still a candidate: there it pays gamma v at
    /// most.
    fn least_ratio(&self, ad: &Ad, payment: Micros) -> Option<f64> {
        let allowed = self.gammas().iter().copied().filter(|&gamma| ad.misreport(gamma) >= ad.reserve);
        let gamma = allowed.fold(1.0, f64::min);
        let rate = payment.0 as f64 / ad.value.0 as f64;
        (payment < ad.value).then(|| ((rate - gamma) / (1.0 - rate)).max(0.0))
    }
}

fn point(ad: &Ad, gamma: f64, outcome: Option<Outcome>) -> SweepPoint {
    let (payment, clicks) =
        outcome.as_ref().map_or((Micros::ZERO, 0.0), |outcome| (outcome.payment, outcome.clicks));
    SweepPoint {
        gamma,
        bid_micros: ad.misreport(gamma),
        slot: outcome.as_ref().map(|outcome| outcome.slot),
        payment_micros: payment,
        clicks,
        cost_micros: payment.0 as f64 * clicks,
        utility_micros: ad.utility(payment, clicks),
        z: outcome.as_ref().and_then(|outcome| outcome.z),
        rate_input: outcome.and_then(|outcome| outcome.rate_input),
    }
}
