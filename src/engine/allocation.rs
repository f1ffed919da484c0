//! One request from end to end.

use super::generation::{Generated, LogitsLog};
use super::workspace::Workspace;
use super::{Engine, Report, timed};
use crate::catalog::Snapshot;
use crate::cpu::{Exec, Team};
use crate::error::{RequestError, RequestErrorKind};
use crate::model::encoder::add;
use crate::money::Micros;
use crate::request::{PaymentRule, Request};
use crate::resolve::{Resolved, resolve};
use crate::response::{Response, Slot, Timings, Trace};

impl Engine {
    /// Answers one request.
    pub(super) fn run(
        &self,
        team: Option<&Team>,
        workspace: &mut Workspace,
        request: &Request,
        snapshot: &Snapshot,
        report: Report,
    ) -> Result<Response, RequestError> {
        let _span = tracing::debug_span!("allocate", request = %request.id).entered();
        let exec = self.exec(team);
        let mut timings = Timings::default();
        let resolved =
            timed(&mut timings.resolve_us, || resolve(request, &self.model.config, &self.limits, snapshot))?;
        let n = timed(&mut timings.encode_us, || self.encode(exec, workspace, &resolved))?;
        timed(&mut timings.creative_us, || self.begin_creatives(exec, workspace, n));
        let mut log = report.trace.then(LogitsLog::new);
        let objective = &request.objective;
        let generated =
            self.generate(exec, workspace, &resolved, objective, snapshot, None, &mut timings, log.as_mut())?;
        let payment_started = std::time::Instant::now();
        let rates = self.rates(exec, workspace, snapshot, &generated)?;
        let payments = self.charge(request.payment, request, snapshot, &generated, &rates);
        let quotes = report.quotes.then(|| self.quotes(request, snapshot, &generated, &rates));
        timings.payment_us += micros_since(payment_started);
        // Before a search without one of the items writes over the buffers.
        let mut trace =
            log.map(|log| Box::new(self.trace(workspace, &resolved, snapshot, &generated, n, &log)));
        let marginals = if request.marginal {
            self.marginals(exec, workspace, request, &resolved, snapshot, &generated, &mut timings)?
        } else {
            vec![None; payments.len()]
        };
        let slots = slots(request, snapshot, &generated, &rates, &payments, &marginals);
        if let Some(trace) = &mut trace {
            trace.rate.iter_mut().zip(&slots).for_each(|(rate, slot)| *rate = slot.rate);
        }
        let best = &generated.lists[generated.winner];
        Ok(Response {
            id: request.id.clone(),
            catalog_version: snapshot.version(),
            slots,
            reward: generated.rewards[generated.winner],
            log_prob: best.score,
            beam: generated.winner,
            lists: generated.lists.len(),
            rejected: resolved.rejected,
            quotes,
            timings: report.timings.then_some(timings),
            trace,
        })
    }

    /// Encodes the history, and packs the keys and values that the POI decoder reads. Returns n, its tokens.
    fn encode(&self, exec: Exec, ws: &mut Workspace, resolved: &Resolved) -> Result<usize, RequestError> {
        let _span = tracing::debug_span!("encode", behaviors = resolved.history.behaviors.len()).entered();
        let model = &self.model;
        let d = model.shape.d;
        let n = model.encoder.run(
            exec,
            &model.config,
            &model.embeddings,
            &model.rotary,
            &resolved.history,
            &mut ws.x,
            &mut ws.states,
            &mut ws.keys,
            &mut ws.scratch,
        );
        let states = &ws.states[..n * d];
        if let Some(bad) = states.iter().find(|x| !x.is_finite()) {
            let message = format!("the encoder's output holds {bad}");
            return Err(RequestError::new(RequestErrorKind::NotFinite, "history", message));
        }
        ws.mean.fill(0.0);
        states.chunks_exact(d).for_each(|row| add(&mut ws.mean, row));
        ws.mean.iter_mut().for_each(|x| *x /= n as f32);
        model.decoder.begin(exec, states, &mut ws.scratch.qkv, &mut ws.decoder);
        Ok(n)
    }

    /// Packs the keys and values of the `n` encoded tokens that the creative decoder reads.
    fn begin_creatives(&self, exec: Exec, ws: &mut Workspace, n: usize) {
        let states = &ws.states[..n * self.model.shape.d];
        self.model.creative.begin(exec, states, &mut ws.scratch.qkv, &mut ws.creative);
    }

    /// The intermediate tensors of a request, padded to N_S lists of K slots.
    #[allow(clippy::too_many_arguments)]
    fn trace(
        &self,
        ws: &Workspace,
        resolved: &Resolved,
        snapshot: &Snapshot,
        generated: &Generated,
        n: usize,
        log: &LogitsLog,
    ) -> Trace {
        let config = &self.model.config;
        let (k, lists) = (config.list_len, resolved.rules.beam_width);
        let best = &generated.lists[generated.winner];
        let mut trace = Trace {
            encoder: ws.states[..n * config.hidden_size].to_vec(),
            items: vec![-1; lists * k],
            creatives: vec![-1; lists * k],
            log_prob: vec![0.0; lists],
            reward: vec![0.0; lists],
            poi_logits: vec![0.0; k * config.poi_code_layers * config.codebook_size],
            reward_features: vec![0.0; k * config.reward_hidden_size],
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
        let w = config.codebook_size;
        let filled = best.items.len() * config.poi_code_layers;
        for ((row, logits), out) in
            best.path.iter().zip(log).zip(trace.poi_logits.chunks_exact_mut(w)).take(filled)
        {
            out.copy_from_slice(&logits[*row as usize * w..][..w]);
        }
        let d_r = config.reward_hidden_size;
        let rows = ws.reward.rows(generated.winner);
        let features = &ws.reward.features[rows.start * d_r..rows.end * d_r];
        trace.reward_features[..features.len()].copy_from_slice(features);
        trace
    }
}

fn slots(
    request: &Request,
    snapshot: &Snapshot,
    generated: &Generated,
    rates: &[f64],
    payments: &[Micros],
    marginals: &[Option<f64>],
) -> Vec<Slot> {
    let winner = generated.winner;
    let share = |payment: Micros, bid: Micros| if bid.0 == 0 { 0.0 } else { payment.0 as f64 / bid.0 as f64 };
    generated.shown[winner]
        .iter()
        .enumerate()
        .map(|(slot, shown)| {
            let (value, bid) = (&generated.values[winner][slot], snapshot.bid(shown.item));
            Slot {
                item: snapshot.id(shown.item),
                kind: snapshot.kind(shown.item),
                creative: snapshot.creative_id(shown.creative),
                bid_micros: bid,
                payment_micros: payments[slot],
                rate: match request.payment {
                    PaymentRule::Network => rates[slot],
                    _ => share(payments[slot], bid),
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

fn micros_since(start: std::time::Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}
