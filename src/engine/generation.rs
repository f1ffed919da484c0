//! From a history to candidate lists with their rewards, on the CPU: encoder, search, creatives, reward model, list
//! choice, payment network.

use std::sync::Arc;

use super::creatives::{Decision, Decisions, decisions};
use super::redecode::Shared;
use super::task::{Generated, Logits, Task, Tensors, is_finite, slot_values};
use super::timed;
use super::workspace::Workspace;
use crate::auction::choice::{list_reward, winner};
use crate::catalog::{ItemKind, Snapshot};
use crate::cpu::Exec;
use crate::decode::prefixes::Entry;
use crate::decode::search::{CandidateList, Row, Search, SearchRules};
use crate::error::RequestError;
use crate::model::Model;
use crate::model::encoder::add;
use crate::model::payment::PaymentInput;
use crate::model::reward::Shown;
use crate::response::Timings;

/// A request whose history is encoded in a workspace.
pub(super) struct Run<'m, 'w> {
    pub(super) model: &'m Model,
    pub(super) exec: Exec<'m>,
    pub(super) workspace: &'w mut Workspace,
    /// Tokens of the history.
    tokens: usize,
    /// What the search went through, where it is needed after it.
    pub(super) log: Option<SearchLog>,
    /// What searches under other bids share, once there was one.
    pub(super) shared: Option<Shared>,
}

/// What a search went through.
#[derive(Default)]
pub(super) struct SearchLog {
    /// Of every row at every step, [steps][rows, W].
    logits: Arc<Vec<Vec<f32>>>,
    /// The rows at each position.
    pub(super) rows: Vec<Vec<Entry>>,
}

impl<'m, 'w> Run<'m, 'w> {
    /// Encodes the history of `task`, and packs the keys and values that the decoders read.
    pub fn encode(
        model: &'m Model,
        exec: Exec<'m>,
        workspace: &'w mut Workspace,
        task: &Task,
        timings: &mut Timings,
    ) -> Result<Self, RequestError> {
        let mut run = Self { model, exec, workspace, tokens: 0, log: None, shared: None };
        timed(&mut timings.encode_us, || run.encode_history(task))?;
        timed(&mut timings.creative_us, || run.begin_creatives());
        Ok(run)
    }

    fn encode_history(&mut self, task: &Task) -> Result<(), RequestError> {
        let history = &task.resolved.history;
        let _span = tracing::debug_span!("encode", behaviors = history.behaviors.len()).entered();
        let (model, ws) = (self.model, &mut *self.workspace);
        self.tokens = model.encoder.run(
            self.exec,
            &model.config,
            &model.embeddings,
            &model.rotary,
            history,
            &mut ws.x,
            &mut ws.states,
            &mut ws.keys,
            &mut ws.scratch,
        );
        let d = model.shape.d;
        let states = &ws.states[..self.tokens * d];
        is_finite("history", "the encoder's output", states.iter().copied().map(f64::from))?;
        ws.mean.fill(0.0);
        states.chunks_exact(d).for_each(|row| add(&mut ws.mean, row));
        ws.mean.iter_mut().for_each(|x| *x /= self.tokens as f32);
        model.decoder.begin(self.exec, states, &mut ws.scratch.qkv, &mut ws.cross);
        Ok(())
    }

    fn begin_creatives(&mut self) {
        let ws = &mut *self.workspace;
        let states = &ws.states[..self.tokens * self.model.shape.d];
        self.model.creative.begin(self.exec, states, &mut ws.scratch.qkv, &mut ws.creative);
    }

    /// Searches lists, chooses their creatives, scores them, and asks the payment network about the winner.
    pub fn generate(&mut self, task: &Task, timings: &mut Timings) -> Result<Generated, RequestError> {
        self.log = (task.reads_logits() || task.searches_again()).then(SearchLog::default);
        let lists = timed(&mut timings.search_us, || {
            let _span = tracing::debug_span!("search", beams = task.resolved.rules.beam_width).entered();
            self.search(task)
        })?;
        let shown = timed(&mut timings.creative_us, || {
            let _span = tracing::debug_span!("creative", lists = lists.len()).entered();
            self.run_last_position(task.context.snapshot, &task.resolved.rules, &lists);
            self.choose_creatives(task.context.snapshot, &lists)
        })?;
        let mut generated = timed(&mut timings.reward_us, || {
            let _span = tracing::debug_span!("reward", lists = lists.len()).entered();
            self.score(task, lists, shown)
        })?;
        generated.rates =
            timed(&mut timings.payment_us, || self.winners_rates(task.context.snapshot, &generated))?;
        generated.logits = self.log.as_ref().map(|log| Logits {
            steps: log.logits.clone(),
            first: 0,
            width: self.model.config.codebook_size,
        });
        generated.tensors =
            task.context.report.trace.then(|| self.tensors(task.context.snapshot, &generated));
        Ok(generated)
    }

    fn search(&mut self, task: &Task) -> Result<Vec<CandidateList>, RequestError> {
        let (model, resolved) = (self.model, &task.resolved);
        let snapshot = task.context.snapshot;
        let mut search = Search::new(&resolved.rules, snapshot, &resolved.ads, &resolved.organic, None);
        let mut steps = Vec::new();
        while !search.is_over() {
            let position = search.step();
            let m = self.step(position, search.rows());
            let decoder = &mut self.workspace.decoder;
            let logits = model.decoder.logits(self.exec, &model.config, position, 0, m, decoder);
            if self.log.is_some() {
                steps.push(logits.to_vec());
            }
            search.advance(self.exec, logits)?;
        }
        if let Some(log) = &mut self.log {
            log.logits = Arc::new(steps);
        }
        Ok(search.into_lists())
    }

    /// Runs `rows` of the POI decoder at `position`; returns their number.
    fn step<'r>(&mut self, position: usize, rows: impl Iterator<Item = Row<'r>> + Clone) -> usize {
        if let Some(log) = &mut self.log {
            log.rows.push(rows.clone().map(|row| Some((*row.path.last()?, row.last_code?))).collect());
        }
        let (model, ws) = (self.model, &mut *self.workspace);
        model.decoder.step(
            self.exec,
            &model.config,
            &model.embeddings,
            &model.rotary,
            position,
            0,
            rows,
            &ws.cross,
            &mut ws.decoder,
            &mut ws.scratch,
        )
    }

    /// Runs the position after the last code of the lists that fill every slot. It has a hidden state, for the
    /// creatives of the last slot, but no head, and so no part in the search.
    fn run_last_position(&mut self, snapshot: &Snapshot, rules: &SearchRules, lists: &[CandidateList]) {
        self.step(rules.list_len * rules.code_layers, last_rows(snapshot, rules, lists));
    }

    /// The creative of every slot of every list.
    fn choose_creatives(
        &mut self,
        snapshot: &Snapshot,
        lists: &[CandidateList],
    ) -> Result<Vec<Vec<Shown>>, RequestError> {
        let (model, ws) = (self.model, &mut *self.workspace);
        let decisions = Decisions::of(lists, model.config.poi_code_layers);
        let decoder = &ws.decoder;
        let items = decisions
            .all
            .iter()
            .map(|&Decision { item, position, row }| (item, decoder.hidden(position, row, model.shape.d)));
        let creatives = model.creative.choose(
            self.exec,
            &model.config,
            &model.embeddings,
            &model.rotary,
            snapshot,
            items,
            &mut ws.creative,
            &mut ws.scratch,
        )?;
        Ok(decisions.shown(&creatives))
    }

    /// Rewards of the lists, and the one that wins. The rates are still to come.
    fn score(
        &mut self,
        task: &Task,
        lists: Vec<CandidateList>,
        shown: Vec<Vec<Shown>>,
    ) -> Result<Generated, RequestError> {
        let (model, snapshot) = (self.model, task.context.snapshot);
        let ws = &mut *self.workspace;
        let reward = &mut ws.reward;
        model.reward.run(self.exec, &model.config, &model.embeddings, snapshot, &ws.mean, &shown, reward);
        let probabilities = reward.probabilities.each_ref().map(|p| &p[..]);
        let values: Vec<_> = shown
            .iter()
            .enumerate()
            .map(|(list, shown)| slot_values(task.context, shown, probabilities, reward.rows(list)))
            .collect();
        let rewards: Vec<f64> = values.iter().map(|v| list_reward(&task.request.objective, v)).collect();
        is_finite("objective", "the reward of a list", rewards.iter().copied())?;
        let winner = winner(rewards.iter().copied().zip(lists.iter().map(|l| l.score))).unwrap_or_default();
        Ok(Generated {
            lists,
            shown,
            values,
            rewards,
            winner,
            rates: Vec::new(),
            logits: None,
            tensors: None,
        })
    }

    /// The payment network's rates of the winning list.
    fn winners_rates(
        &mut self,
        snapshot: &Snapshot,
        generated: &Generated,
    ) -> Result<Vec<f64>, RequestError> {
        let winner = generated.winner;
        let d_r = self.model.config.reward_hidden_size;
        let items = &generated.lists[winner].items;
        let ws = &mut *self.workspace;
        let inputs: Vec<_> = ws
            .reward
            .rows(winner)
            .zip(&generated.values[winner])
            .zip(items)
            .map(|((row, value), chosen)| PaymentInput {
                features: &ws.reward.features[row * d_r..(row + 1) * d_r],
                bid: value.bid,
                z_pctr: libm::exp(chosen.ln_z) * value.pctr_poi,
            })
            .collect();
        let rates = self.model.payment.rates(self.exec, &inputs, 0..inputs.len(), &mut ws.payment);
        is_finite("payment", "the payment network's rate", rates.iter().copied().map(f64::from))?;
        let is_ad = |item: u32| snapshot.kind(item) == ItemKind::Ad;
        Ok(items
            .iter()
            .zip(rates)
            .map(|(chosen, &rate)| if is_ad(chosen.item) { f64::from(rate) } else { 0.0 })
            .collect())
    }

    /// The creative decoder's logits along the creatives of the winning list, [filled slots, C_c, W].
    fn creative_logits(&mut self, snapshot: &Snapshot, generated: &Generated) -> Vec<f32> {
        let (model, ws) = (self.model, &mut *self.workspace);
        let decoder = &ws.decoder;
        let items = decisions(&generated.lists[generated.winner], model.config.poi_code_layers)
            .zip(&generated.shown[generated.winner])
            .map(|(at, shown)| (shown.creative, decoder.hidden(at.position, at.row, model.shape.d)));
        model.creative.logits_along(
            self.exec,
            &model.config,
            &model.embeddings,
            &model.rotary,
            snapshot,
            items,
            &mut ws.creative,
            &mut ws.scratch,
        )
    }

    fn tensors(&mut self, snapshot: &Snapshot, generated: &Generated) -> Tensors {
        let creative_logits = self.creative_logits(snapshot, generated);
        let (config, ws) = (&self.model.config, &*self.workspace);
        let best = &generated.lists[generated.winner];
        let filled = best.items.len() * config.poi_code_layers;
        let d_r = config.reward_hidden_size;
        let features = ws.reward.rows(generated.winner);
        let logits = generated.logits.as_ref();
        Tensors {
            encoder: ws.states[..self.tokens * config.hidden_size].to_vec(),
            poi_logits: logits.map_or_else(Vec::new, |logits| logits.along(best, filled)),
            creative_logits,
            features: ws.reward.features[features.start * d_r..features.end * d_r].to_vec(),
        }
    }
}

/// The rows after the last code of the lists that fill every slot, in the order of the lists.
pub(super) fn last_rows<'l>(
    snapshot: &'l Snapshot,
    rules: &SearchRules,
    lists: &'l [CandidateList],
) -> impl Iterator<Item = Row<'l>> + Clone + use<'l> {
    let position = rules.list_len * rules.code_layers;
    lists.iter().filter(move |list| list.path.len() > position).map(move |list| Row {
        last_code: list.items.last().and_then(|last| snapshot.codes(last.item).last().copied()),
        path: &list.path[..position],
    })
}
