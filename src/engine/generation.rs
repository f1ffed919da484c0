//! From an encoded history to candidate lists with their rewards: search, creatives, reward model, list choice.

use super::Engine;
use super::workspace::Workspace;
use crate::auction::choice::{SlotValue, list_reward, winner};
use crate::catalog::Snapshot;
use crate::cpu::Exec;
use crate::decode::search::{CandidateList, Chosen, Row, Search, SearchRules};
use crate::error::{RequestError, RequestErrorKind};
use crate::model::reward::Shown;
use crate::request::Objective;
use crate::resolve::Resolved;
use crate::response::Timings;

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
}

/// The logits of every row at every step, kept for a trace.
pub(super) type LogitsLog = Vec<Vec<f32>>;

/// No decision of the creative decoder is needed for this row.
const NONE: usize = usize::MAX;

impl Engine {
    /// Searches lists for the history encoded in `workspace`, chooses their creatives and scores them.
    /// `excluded` is an item that no list may show.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn generate(
        &self,
        exec: Exec,
        workspace: &mut Workspace,
        resolved: &Resolved,
        objective: &Objective,
        snapshot: &Snapshot,
        excluded: Option<Chosen>,
        timings: &mut Timings,
        log: Option<&mut LogitsLog>,
    ) -> Result<Generated, RequestError> {
        let lists = super::timed(&mut timings.search_us, || {
            let _span = tracing::debug_span!("search", beams = resolved.rules.beam_width).entered();
            self.search(exec, workspace, resolved, snapshot, excluded, log)
        })?;
        let shown = super::timed(&mut timings.creative_us, || {
            let _span = tracing::debug_span!("creative", lists = lists.len()).entered();
            self.run_last_position(exec, workspace, snapshot, &resolved.rules, &lists);
            self.choose_creatives(exec, workspace, snapshot, &lists)
        })?;
        super::timed(&mut timings.reward_us, || {
            let _span = tracing::debug_span!("reward", lists = lists.len()).entered();
            self.score(exec, workspace, objective, snapshot, lists, shown)
        })
    }

    fn search(
        &self,
        exec: Exec,
        workspace: &mut Workspace,
        resolved: &Resolved,
        snapshot: &Snapshot,
        excluded: Option<Chosen>,
        mut log: Option<&mut LogitsLog>,
    ) -> Result<Vec<CandidateList>, RequestError> {
        let model = &self.model;
        let config = &model.config;
        let organic: Vec<u32> = resolved
            .organic
            .iter()
            .copied()
            .filter(|&item| excluded.is_none_or(|e| e.item != item))
            .collect();
        let excluded = excluded.and_then(|chosen| chosen.position);
        let mut search = Search::new(&resolved.rules, snapshot, &resolved.ads, &organic, excluded);
        while !search.is_over() {
            let position = search.step();
            let m = model.decoder.step(
                exec,
                config,
                &model.embeddings,
                &model.rotary,
                position,
                search.rows(),
                &mut workspace.decoder,
                &mut workspace.scratch,
            );
            let logits = model.decoder.logits(exec, config, position, m, &mut workspace.decoder);
            if let Some(log) = log.as_deref_mut() {
                log.push(logits.to_vec());
            }
            search.advance(exec, logits)?;
        }
        Ok(search.into_lists())
    }

    /// Runs the position after the last code of the lists that fill every slot. It has a hidden state, for the
    /// creatives of the last slot, but no head, and so no part in the search.
    fn run_last_position(
        &self,
        exec: Exec,
        workspace: &mut Workspace,
        snapshot: &Snapshot,
        rules: &SearchRules,
        lists: &[CandidateList],
    ) {
        let position = rules.list_len * rules.code_layers;
        let rows = lists.iter().filter(|list| list.path.len() > position).map(|list| Row {
            last_code: list.items.last().and_then(|last| snapshot.codes(last.item).last().copied()),
            path: &list.path[..position],
        });
        let model = &self.model;
        model.decoder.step(
            exec,
            &model.config,
            &model.embeddings,
            &model.rotary,
            position,
            rows,
            &mut workspace.decoder,
            &mut workspace.scratch,
        );
    }

    /// The creative of every slot of every list. Lists that descend from the same row at an item's last code
    /// share its hidden state, and so its creative.
    fn choose_creatives(
        &self,
        exec: Exec,
        workspace: &mut Workspace,
        snapshot: &Snapshot,
        lists: &[CandidateList],
    ) -> Result<Vec<Vec<Shown>>, RequestError> {
        let model = &self.model;
        let (layers, beams) = (model.config.poi_code_layers, self.limits.beams);
        let position = |slot: usize| (slot + 1) * layers;
        let mut index_of = vec![NONE; self.limits.slots * beams];
        let mut jobs = Vec::new();
        for list in lists {
            for (slot, chosen) in list.items.iter().enumerate() {
                let row = list.path[position(slot)];
                let index = &mut index_of[slot * beams + row as usize];
                if *index == NONE {
                    *index = jobs.len();
                    jobs.push((chosen.item, position(slot), row));
                }
            }
        }
        let decoder = &workspace.decoder;
        let items =
            jobs.iter().map(|&(item, position, row)| (item, decoder.hidden(position, row, model.shape.d)));
        let creatives = model.creative.choose(
            exec,
            &model.config,
            &model.embeddings,
            &model.rotary,
            snapshot,
            items,
            &mut workspace.creative,
            &mut workspace.scratch,
        )?;
        let shown = |slot: usize, list: &CandidateList| {
            let index = index_of[slot * beams + list.path[position(slot)] as usize];
            Shown { item: list.items[slot].item, creative: creatives[index] }
        };
        Ok(lists.iter().map(|l| (0..l.items.len()).map(|slot| shown(slot, l)).collect()).collect())
    }

    /// Rewards of the lists, and the one that wins.
    fn score(
        &self,
        exec: Exec,
        workspace: &mut Workspace,
        objective: &Objective,
        snapshot: &Snapshot,
        lists: Vec<CandidateList>,
        shown: Vec<Vec<Shown>>,
    ) -> Result<Generated, RequestError> {
        let model = &self.model;
        let reward = &mut workspace.reward;
        model.reward.run(exec, &model.config, &model.embeddings, snapshot, &workspace.mean, &shown, reward);
        let unit = model.config.bid_unit_micros;
        let values: Vec<Vec<SlotValue>> = shown
            .iter()
            .enumerate()
            .map(|(list, shown)| {
                let [poi, creative, cvr] = reward.probabilities.each_ref();
                let value = |(slot, row): (&Shown, usize)| SlotValue {
                    bid: snapshot.bid(slot.item).in_units(unit),
                    pctr_poi: f64::from(poi[row]),
                    pctr_creative: f64::from(creative[row]),
                    pcvr: f64::from(cvr[row]),
                };
                shown.iter().zip(reward.rows(list)).map(value).collect()
            })
            .collect();
        let rewards: Vec<f64> = values.iter().map(|v| list_reward(objective, v)).collect();
        if let Some(bad) = rewards.iter().find(|r| !r.is_finite()) {
            let message = format!("the reward of a list is {bad}");
            return Err(RequestError::new(RequestErrorKind::NotFinite, "objective", message));
        }
        let winner = winner(rewards.iter().copied().zip(lists.iter().map(|l| l.score))).unwrap_or_default();
        Ok(Generated { lists, shown, values, rewards, winner })
    }
}
