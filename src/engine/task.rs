//! One request: what it is answered from, and the answer once its lists are there. The same for every device.

use std::sync::Arc;

use super::audit::audit;
use super::counterfactual::Counterfactuals;
use super::payments::{Charge, marginals};
use super::{AuditOptions, Limits, Report, micros_since, timed};
use crate::auction::choice::SlotValue;
use crate::catalog::Snapshot;
use crate::decode::search::{CandidateList, Search};
use crate::error::{RequestError, RequestErrorKind};
use crate::model::config::ModelConfig;
use crate::model::reward::Shown;
use crate::money::Micros;
use crate::request::{Audit, Counterfactual, PaymentRule, Request};
use crate::resolve::{Resolved, resolve};
use crate::response::{Response, Slot, Timings, Trace};

/// What all requests of a batch are answered from.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// The model's sizes and constants.
    pub config: &'a ModelConfig,
    /// The limits the engine was built for.
    pub limits: &'a Limits,
    /// The version of the catalog that the batch sees.
    pub snapshot: &'a Snapshot,
    /// How requests are audited that ask for it.
    pub audit: &'a AuditOptions,
    /// What to report besides the answers.
    pub report: Report,
}

/// A request that can be run.
pub(super) struct Task<'a> {
    /// What it is answered from.
    pub context: Context<'a>,
    /// The request as it was asked.
    pub request: &'a Request,
    /// The request in the catalog's terms.
    pub resolved: Resolved<'a>,
}

/// The candidate lists of a search, and which of them wins.
pub(super) struct Generated {
    /// The lists, best beam first; at least one, perhaps empty.
    pub lists: Vec<CandidateList>,
    /// Items and creatives of each list.
    pub shown: Vec<Vec<Shown>>,
    /// Bids and probabilities of each list.
    pub values: Vec<Vec<SlotValue>>,
    /// Reward of each list.
    pub rewards: Vec<f64>,
    /// The list with the highest reward.
    pub winner: usize,
    /// The payment network's rates of the winning list, [filled slots]; 0 for organic items.
    pub rates: Vec<f64>,
    /// Where [`Task::reads_logits`].
    pub logits: Option<Logits>,
    /// Where a trace was asked for.
    pub tensors: Option<Tensors>,
}

/// The logits of every row at every step of a search.
#[derive(Clone)]
pub(super) struct Logits {
    /// [steps][rows, W]
    pub steps: Arc<Vec<Vec<f32>>>,
    /// The search's first row among those of its batch.
    pub first: usize,
    /// W.
    pub width: usize,
}

impl Logits {
    /// The logits `[W]` of a row of the search.
    pub fn row(&self, step: usize, row: u32) -> &[f32] {
        let at = self.first + row as usize;
        &self.steps[step][at * self.width..(at + 1) * self.width]
    }

    /// The logits along a list, [positions, W].
    pub fn along(&self, list: &CandidateList, positions: usize) -> Vec<f32> {
        let rows = list.path.iter().enumerate().take(positions);
        rows.flat_map(|(step, &row)| self.row(step, row)).copied().collect()
    }
}

/// Intermediate results that only a trace shows.
pub(super) struct Tensors {
    /// Encoder output S_e, [n, d].
    pub encoder: Vec<f32>,
    /// POI logits along the winning list, [positions, W].
    pub poi_logits: Vec<f32>,
    /// Creative logits along the winning list's creatives, [filled slots, C_c, W].
    pub creative_logits: Vec<f32>,
    /// Reward features of the winning list, [filled slots, d_r].
    pub features: Vec<f32>,
}

impl<'a> Task<'a> {
    /// Checks a request against all that it refers to.
    pub fn new(
        context: Context<'a>,
        request: &'a Request,
        timings: &mut Timings,
    ) -> Result<Self, RequestError> {
        let Context { config, limits, snapshot, .. } = context;
        let resolved = timed(&mut timings.resolve_us, || resolve(request, config, limits, snapshot))?;
        Ok(Self { context, request, resolved })
    }

    /// Whether [`Generated::logits`] are read.
    pub fn reads_logits(&self) -> bool {
        let Request { audit, payment, .. } = self.request;
        let along_lists = matches!(audit, Audit::Fixed | Audit::Reselect);
        self.context.report.trace || (along_lists && *payment == PaymentRule::Network)
    }

    /// Whether the request is searched again under other bids or without an item.
    pub fn searches_again(&self) -> bool {
        let Request { audit, marginal, counterfactual, .. } = self.request;
        *audit == Audit::Redecode || (*marginal && *counterfactual == Counterfactual::Redecode)
    }

    /// The answer. `again` computes what other bids or other items would have led to, where the request asks for that.
    pub fn respond(
        mut self,
        mut generated: Generated,
        again: &mut dyn Counterfactuals,
        mut timings: Timings,
    ) -> Result<Response, RequestError> {
        let started = std::time::Instant::now();
        let Context { snapshot, report, .. } = self.context;
        let charges = self.charge(self.request.payment, &generated);
        let quotes = report.quotes.then(|| self.quotes(&generated));
        let grounds = report.grounds.then(|| self.grounds(&generated, &charges));
        timings.payment_us += micros_since(started);
        // Before anything else is decoded again, so that what it counts is its own.
        let audit = match self.request.audit {
            Audit::None => None,
            tier => Some(timed(&mut timings.audit_us, || {
                let _span = tracing::debug_span!("audit", ?tier).entered();
                audit(&self, &generated, &charges, again)
            })?),
        };
        let marginals = if self.request.marginal {
            marginals(&self, &generated, again, &mut timings)?
        } else {
            vec![None; charges.len()]
        };
        let slots = self.slots(&generated, &charges, &marginals);
        let tensors = generated.tensors.take();
        let trace =
            tensors.map(|tensors| self.trace(&generated, tensors, &slots).map(Box::new)).transpose()?;
        let best = &generated.lists[generated.winner];
        Ok(Response {
            id: self.request.id.clone(),
            catalog_version: snapshot.version(),
            slots,
            reward: generated.rewards[generated.winner],
            log_prob: best.score,
            beam: generated.winner,
            lists: generated.lists.len(),
            rejected: std::mem::take(&mut self.resolved.rejected),
            audit,
            quotes,
            grounds,
            timings: report.timings.then_some(timings),
            trace,
        })
    }

    fn slots(&self, generated: &Generated, charges: &[Charge], marginals: &[Option<f64>]) -> Vec<Slot> {
        let snapshot = self.context.snapshot;
        let winner = generated.winner;
        let share =
            |payment: Micros, bid: Micros| if bid.0 == 0 { 0.0 } else { payment.0 as f64 / bid.0 as f64 };
        generated.shown[winner]
            .iter()
            .enumerate()
            .map(|(slot, shown)| {
                let (value, bid) = (&generated.values[winner][slot], snapshot.bid(shown.item));
                let payment = charges[slot].payment;
                Slot {
                    item: snapshot.id(shown.item),
                    kind: snapshot.kind(shown.item),
                    creative: snapshot.creative_id(shown.creative),
                    bid_micros: bid,
                    payment_micros: payment,
                    rate: match self.request.payment {
                        PaymentRule::Network => generated.rates[slot],
                        _ => share(payment, bid),
                    },
                    pctr_poi: value.pctr_poi,
                    pctr_creative: value.pctr_creative,
                    pcvr: value.pcvr,
                    z: libm::exp(generated.lists[winner].items[slot].ln_z),
                    marginal: marginals[slot],
                }
            })
            .collect()
    }

    /// The intermediate tensors, padded to N_S lists of K slots.
    fn trace(&self, generated: &Generated, tensors: Tensors, slots: &[Slot]) -> Result<Trace, RequestError> {
        let Context { config, snapshot, .. } = self.context;
        let resolved = &self.resolved;
        let search = Search::new(&resolved.rules, snapshot, &resolved.ads, &resolved.organic, None);
        let mut ln_w = search.ln_w_along(&generated.lists[generated.winner], config.codebook_size)?;
        let (k, lists) = (config.list_len, self.resolved.rules.beam_width);
        let padded = |mut values: Vec<f32>, len: usize| {
            values.resize(len, 0.0);
            values
        };
        let logits = k * config.poi_code_layers * config.codebook_size;
        ln_w.resize(logits, f32::NEG_INFINITY);
        let mut trace = Trace {
            encoder: tensors.encoder,
            items: vec![-1; lists * k],
            creatives: vec![-1; lists * k],
            log_prob: vec![0.0; lists],
            reward: vec![0.0; lists],
            poi_logits: padded(tensors.poi_logits, logits),
            ln_w,
            creative_logits: padded(
                tensors.creative_logits,
                k * config.creative_code_layers * config.codebook_size,
            ),
            reward_features: padded(tensors.features, k * config.reward_hidden_size),
            rate: vec![0.0; k],
        };
        for (list, shown) in generated.shown.iter().enumerate() {
            trace.log_prob[list] = generated.lists[list].score;
            trace.reward[list] = generated.rewards[list];
            for (slot, shown) in shown.iter().enumerate() {
                trace.items[list * k + slot] = snapshot.id(shown.item).cast_signed();
                trace.creatives[list * k + slot] = snapshot.creative_id(shown.creative).cast_signed();
            }
        }
        trace.rate.iter_mut().zip(slots).for_each(|(rate, slot)| *rate = slot.rate);
        Ok(trace)
    }
}

/// Bids and probabilities of the slots of a list, whose rows in `probabilities` (pctr_poi, pctr_creative, pcvr) are
/// `rows`.
pub(super) fn slot_values(
    context: Context,
    shown: &[Shown],
    probabilities: [&[f32]; 3],
    rows: std::ops::Range<usize>,
) -> Vec<SlotValue> {
    let [poi, creative, cvr] = probabilities;
    let value = |(slot, row): (&Shown, usize)| SlotValue {
        bid: context.snapshot.bid(slot.item).in_units(context.config.bid_unit_micros),
        pctr_poi: f64::from(poi[row]),
        pctr_creative: f64::from(creative[row]),
        pcvr: f64::from(cvr[row]),
    };
    shown.iter().zip(rows).map(value).collect()
}

/// Refuses the request where one of its numbers is an infinity or no number.
pub(super) fn is_finite(
    field: &str,
    what: &str,
    mut numbers: impl Iterator<Item = f64>,
) -> Result<(), RequestError> {
    match numbers.find(|number| !number.is_finite()) {
        None => Ok(()),
        Some(bad) => {
            Err(RequestError::new(RequestErrorKind::NotFinite, field, format!("{what} holds {bad}")))
        }
    }
}
