//! Searching again under other bids, on the CPU, with what such searches can share: the encoder's output, the states of
//! the POI decoder by code prefix, creatives by item and prefix, probabilities by list. None of these depends on a bid.
//!
//! Some searches advance in lockstep; the rows of a position that no search ran before are run together. The rows of the
//! request's own search are there from the start. Rows are kept for later searches until a position has no room for
//! more; a search that finds none is begun again after the others, when all but the request's own rows are forgotten.
//! Every result is that of its search alone, bit for bit: a row's bits depend on its prefix only.

use std::collections::HashMap;

use super::counterfactual::{Counterfactuals, DecoderWork, RateQuery, Rated, Variant};
use super::creatives::{Decision, decisions};
use super::generation::{Run, last_rows};
use super::task::{Generated, Task, is_finite, slot_values};
use super::timed;
use crate::auction::choice::{SlotValue, list_reward, winner};
use crate::catalog::Snapshot;
use crate::decode::candidates::Ads;
use crate::decode::prefixes::{Entry, Prefix, Prefixes};
use crate::decode::search::{CandidateList, Room, Row, Search};
use crate::error::RequestError;
use crate::model::decoder::DecoderRows;
use crate::model::payment::PaymentInput;
use crate::model::reward::{RewardState, Shown};
use crate::request::PaymentRule;
use crate::response::Timings;

/// What the searches of one request share.
pub(super) struct Shared {
    prefixes: Prefixes,
    /// The rows of the prefixes.
    rows: DecoderRows,
    /// The rows' logits, by position [rows, W].
    logits: Vec<Vec<f32>>,
    creatives: HashMap<(u32, Prefix), u32>,
    /// Probabilities of lists, with the true bids.
    values: HashMap<Vec<Shown>, Vec<SlotValue>>,
    work: DecoderWork,
}

impl Shared {
    /// Leaves what the request's own search ran.
    fn forget(&mut self, width: usize) {
        self.prefixes.forget();
        for (position, logits) in self.logits.iter_mut().enumerate() {
            logits.truncate(self.prefixes.rows(position) * width);
        }
    }
}

/// The shared rows of the search of a variant.
struct Track {
    /// Index of the variant.
    variant: usize,
    /// The shared row of each of its own, by position.
    rows: Vec<Vec<u32>>,
}

impl Track {
    /// Enters the search's rows at its next position; false where there is no room for them.
    fn enter<'r>(
        &mut self,
        prefixes: &mut Prefixes,
        position: usize,
        rows: impl Iterator<Item = Row<'r>>,
    ) -> bool {
        let parents = self.rows.last();
        let entry = |row: Row| Some((parents?[*row.path.last()? as usize], row.last_code?));
        let entries: Vec<Entry> = rows.map(entry).collect();
        let mut shared = Vec::with_capacity(entries.len());
        let fits = prefixes.enter(position, &entries, &mut shared);
        self.rows.push(shared);
        fits
    }

    /// The lists with shared rows for the search's own.
    fn found(&self, mut lists: Vec<CandidateList>) -> Found {
        for list in &mut lists {
            list.path.iter_mut().zip(&self.rows).for_each(|(row, shared)| *row = shared[*row as usize]);
        }
        Found { variant: self.variant, lists, shown: Vec::new() }
    }
}

/// What the search of a variant came to.
struct Found {
    variant: usize,
    /// Their paths are of shared rows.
    lists: Vec<CandidateList>,
    /// Items and creatives of each list.
    shown: Vec<Vec<Shown>>,
}

impl Run<'_, '_> {
    /// Room for what searches share, with what the request's own search left.
    fn share(&self, task: &Task, truth: &Generated) -> Shared {
        let (model, rules) = (self.model, &task.resolved.rules);
        let capacity = task.context.audit.rows.max(2 * rules.beam_width);
        let positions = rules.list_len * rules.code_layers + 1;
        let at_once = capacity.min(rows_at_once(task));
        let mut shared = Shared {
            prefixes: Prefixes::new(positions, capacity),
            rows: model.decoder.rows(&model.config, capacity, at_once, rules.list_len),
            logits: vec![Vec::new(); positions],
            creatives: HashMap::new(),
            values: truth.shown.iter().cloned().zip(truth.values.iter().cloned()).collect(),
            work: DecoderWork::default(),
        };
        for (position, entries) in self.log.iter().flat_map(|log| &log.rows).enumerate() {
            shared.prefixes.enter(position, entries, &mut Vec::new());
            shared.rows.adopt(&self.workspace.decoder, position, entries.len(), model.shape.d);
        }
        let steps = truth.logits.iter().flat_map(|logits| logits.steps.iter());
        shared.logits.iter_mut().zip(steps).for_each(|(logits, step)| logits.clone_from(step));
        shared.prefixes.keep();
        for (list, shown) in truth.lists.iter().zip(&truth.shown) {
            for (decision, shown) in decisions(list, rules.code_layers).zip(shown) {
                let prefix = shared.prefixes.prefix(decision.position, decision.row);
                shared.creatives.insert((decision.item, prefix), shown.creative);
            }
        }
        shared
    }

    /// The lists of each variant, in any order.
    fn search_again(
        &mut self,
        shared: &mut Shared,
        task: &Task,
        variants: &[Variant],
        timings: &mut Timings,
    ) -> Result<Vec<Found>, RequestError> {
        let (resolved, snapshot) = (&task.resolved, task.context.snapshot);
        let snapshots: Vec<Snapshot> = variants.iter().map(|variant| variant.snapshot(snapshot)).collect();
        let changed: Vec<(Ads, Vec<u32>)> = variants
            .iter()
            .zip(&snapshots)
            .map(|(variant, snapshot)| (variant.ads(task, snapshot), variant.organic(task)))
            .collect();
        let truth = Search::new(&resolved.rules, snapshot, &resolved.ads, &resolved.organic, None);
        let begin = |&variant: &usize| {
            let (ads, organic) = &changed[variant];
            let search = match variants[variant] {
                Variant::Misreport { position, .. } => truth.with_bid(ads, position),
                Variant::Without(item) => Search::new(&resolved.rules, snapshot, ads, organic, item.position),
            };
            (search, Track { variant, rows: Vec::new() })
        };
        let mut all = Vec::with_capacity(variants.len());
        let mut waiting: Vec<usize> = (0..variants.len()).collect();
        while !waiting.is_empty() {
            let searches = waiting.iter().map(begin).collect();
            waiting.clear();
            let mut found =
                timed(&mut timings.search_us, || self.lockstep(shared, task, searches, &mut waiting))?;
            timed(&mut timings.creative_us, || self.choose_again(shared, task, &mut found))?;
            all.append(&mut found);
            if !waiting.is_empty() {
                shared.forget(resolved.rules.codebook_size);
            }
        }
        Ok(all)
    }

    /// Runs searches side by side to their ends. The variants for which a position has no room go to `waiting`; the
    /// first one never does where nothing but the request's own rows is there.
    fn lockstep(
        &mut self,
        shared: &mut Shared,
        task: &Task,
        mut searches: Vec<(Search, Track)>,
        waiting: &mut Vec<usize>,
    ) -> Result<Vec<Found>, RequestError> {
        let rules = &task.resolved.rules;
        let (steps, width) = (rules.list_len * rules.code_layers, rules.codebook_size);
        let mut room = Room::default();
        for position in 0..steps {
            let first = shared.prefixes.rows(position);
            searches.retain_mut(|(search, track)| {
                let stays = search.is_over() || track.enter(&mut shared.prefixes, position, search.rows());
                waiting.extend((!stays).then_some(track.variant));
                stays
            });
            self.run_new_rows(shared, task, position, first);
            let logits = &shared.logits[position];
            for (search, track) in searches.iter_mut().filter(|(search, _)| !search.is_over()) {
                let rows = &track.rows[position];
                search.swap_room(&mut room);
                search.advance_by(self.exec, |row| &logits[rows[row] as usize * width..][..width])?;
                search.swap_room(&mut room);
            }
        }
        let first = shared.prefixes.rows(steps);
        let mut found = Vec::with_capacity(searches.len());
        for (search, mut track) in searches {
            let lists = search.into_lists();
            if track.enter(&mut shared.prefixes, steps, last_rows(task.context.snapshot, rules, &lists)) {
                shared.work.rows_alone += track.rows.iter().map(Vec::len).sum::<usize>();
                found.push(track.found(lists));
            } else {
                waiting.push(track.variant);
            }
        }
        self.run_new_rows(shared, task, steps, first);
        waiting.sort_unstable();
        Ok(found)
    }

    /// Runs the rows of a position from `first` on.
    fn run_new_rows(&mut self, shared: &mut Shared, task: &Task, position: usize, first: usize) {
        let (model, ws) = (self.model, &mut *self.workspace);
        let total = shared.prefixes.rows(position);
        let at_once = rows_at_once(task);
        for first in (first..total).step_by(at_once) {
            let m = model.decoder.step(
                self.exec,
                &model.config,
                &model.embeddings,
                &model.rotary,
                position,
                first,
                shared.prefixes.rows_from(position, first).take(at_once),
                &ws.cross,
                &mut shared.rows,
                &mut ws.scratch,
            );
            if position + 1 < shared.logits.len() {
                let rows = &mut shared.rows;
                let logits = model.decoder.logits(self.exec, &model.config, position, first, m, rows);
                shared.logits[position].extend_from_slice(logits);
            }
            shared.work.rows += m;
        }
    }

    /// Chooses the creatives of the lists, those that no search had to choose before.
    fn choose_again(
        &mut self,
        shared: &mut Shared,
        task: &Task,
        found: &mut [Found],
    ) -> Result<(), RequestError> {
        let (model, ws) = (self.model, &mut *self.workspace);
        let layers = task.resolved.rules.code_layers;
        let mut new = Vec::new();
        let lists = found.iter().flat_map(|found| &found.lists);
        for decision in lists.flat_map(|list| decisions(list, layers)) {
            let prefix = shared.prefixes.prefix(decision.position, decision.row);
            shared.creatives.entry((decision.item, prefix)).or_insert_with(|| {
                new.push((decision, prefix));
                u32::MAX
            });
        }
        for new in new.chunks(rows_at_once(task)) {
            let rows = &shared.rows;
            let items = new.iter().map(|(decision, _)| {
                (decision.item, rows.hidden(decision.position, decision.row, model.shape.d))
            });
            let chosen = model.creative.choose(
                self.exec,
                &model.config,
                &model.embeddings,
                &model.rotary,
                task.context.snapshot,
                items,
                &mut ws.creative,
                &mut ws.scratch,
            )?;
            let keys = new.iter().map(|(decision, prefix)| (decision.item, *prefix));
            shared.creatives.extend(keys.zip(chosen));
        }
        let shown = |decision: Decision| {
            let prefix = shared.prefixes.prefix(decision.position, decision.row);
            Shown { item: decision.item, creative: shared.creatives[&(decision.item, prefix)] }
        };
        for Found { lists, shown: all, .. } in found {
            *all = lists.iter().map(|list| decisions(list, layers).map(shown).collect()).collect();
        }
        Ok(())
    }

    /// Asks the reward model about the lists that it was not asked about before.
    fn score_again(&mut self, shared: &mut Shared, task: &Task, found: &[Found]) {
        let mut new: Vec<Vec<Shown>> = Vec::new();
        for shown in found.iter().flat_map(|found| &found.shown) {
            shared.values.entry(shown.clone()).or_insert_with(|| {
                new.push(shown.clone());
                Vec::new()
            });
        }
        let lists_at_once = task.context.limits.beams;
        for lists in new.chunks(lists_at_once) {
            let reward = self.reward(task.context.snapshot, lists);
            let probabilities = reward.probabilities.each_ref().map(|p| &p[..]);
            for (list, shown) in lists.iter().enumerate() {
                let values = slot_values(task.context, shown, probabilities, reward.rows(list));
                shared.values.insert(shown.clone(), values);
            }
        }
    }

    /// Runs the reward model on some lists, as many as there are beams at most.
    fn reward(&mut self, snapshot: &Snapshot, lists: &[Vec<Shown>]) -> &RewardState {
        let (model, ws) = (self.model, &mut *self.workspace);
        let reward = &mut ws.reward;
        model.reward.run(self.exec, &model.config, &model.embeddings, snapshot, &ws.mean, lists, reward);
        reward
    }

    /// The lists of a variant with their rewards, and the rate of the ad that misreports.
    fn generated(
        &mut self,
        shared: &Shared,
        task: &Task,
        variant: Variant,
        found: Found,
    ) -> Result<Generated, RequestError> {
        let unit = task.context.config.bid_unit_micros;
        let mut values: Vec<Vec<SlotValue>> =
            found.shown.iter().map(|shown| shared.values[shown].clone()).collect();
        if let Variant::Misreport { item, bid, .. } = variant {
            let slots = found.shown.iter().flatten().zip(values.iter_mut().flatten());
            slots
                .filter(|(shown, _)| shown.item == item)
                .for_each(|(_, value)| value.bid = bid.in_units(unit));
        }
        let rewards: Vec<f64> = values.iter().map(|v| list_reward(&task.request.objective, v)).collect();
        is_finite("objective", "the reward of a list", rewards.iter().copied())?;
        let scores = found.lists.iter().map(|list| list.score);
        let winner = winner(rewards.iter().copied().zip(scores)).unwrap_or_default();
        let mut rates = vec![0.0; values[winner].len()];
        let misreporting = found.shown[winner].iter().position(|shown| variant.misreports(shown.item));
        if let (Some(slot), PaymentRule::Network) = (misreporting, task.request.payment) {
            let (shown, values) = (&found.shown[winner], &values[winner]);
            let ln_z = found.lists[winner].items[slot].ln_z;
            rates[slot] = self.rates(task, &[RateQuery { shown, values, slot, ln_z }])?[0].rate;
        }
        let Found { lists, shown, .. } = found;
        Ok(Generated { lists, shown, values, rewards, winner, rates, logits: None, tensors: None })
    }
}

impl Counterfactuals for Run<'_, '_> {
    fn lists(
        &mut self,
        task: &Task,
        truth: &Generated,
        variants: &[Variant],
        timings: &mut Timings,
    ) -> Result<Vec<Generated>, RequestError> {
        let mut shared = self.shared.take().unwrap_or_else(|| self.share(task, truth));
        let mut found = self.search_again(&mut shared, task, variants, timings)?;
        found.sort_unstable_by_key(|found| found.variant);
        let generated = timed(&mut timings.reward_us, || {
            self.score_again(&mut shared, task, &found);
            let found = found.into_iter().zip(variants);
            found.map(|(found, &variant)| self.generated(&shared, task, variant, found)).collect()
        });
        self.shared = Some(shared);
        generated
    }

    fn work(&self) -> Option<DecoderWork> {
        let work = |shared: &Shared| DecoderWork { unique_prefixes: shared.prefixes.count(), ..shared.work };
        Some(self.shared.as_ref().map(work).unwrap_or_default())
    }

    fn rates(&mut self, task: &Task, queries: &[RateQuery]) -> Result<Vec<Rated>, RequestError> {
        let mut lists: Vec<Vec<Shown>> = Vec::new();
        let mut list_of = Vec::with_capacity(queries.len());
        for query in queries {
            let known = lists.iter().position(|shown| shown == query.shown);
            list_of.push(known.unwrap_or_else(|| {
                lists.push(query.shown.to_vec());
                lists.len() - 1
            }));
        }
        let d_r = self.model.config.reward_hidden_size;
        self.reward(task.context.snapshot, &lists);
        let (model, ws) = (self.model, &mut *self.workspace);
        let mut rates = Vec::with_capacity(queries.len());
        for (query, list) in queries.iter().zip(list_of) {
            let rows = ws.reward.rows(list).zip(query.values);
            let inputs: Vec<PaymentInput> = rows
                .map(|(row, value)| PaymentInput {
                    features: &ws.reward.features[row * d_r..(row + 1) * d_r],
                    bid: value.bid,
                    z_pctr: libm::exp(query.ln_z) * value.pctr_poi,
                })
                .collect();
            let wanted = query.slot..query.slot + 1;
            let rate = f64::from(model.payment.rates(self.exec, &inputs, wanted, &mut ws.payment)[0]);
            rates.push(Rated { rate, input: ws.payment.first_input().to_vec() });
        }
        is_finite("payment", "the payment network's rate", rates.iter().map(|rated| rated.rate))?;
        Ok(rates)
    }
}

/// Rows that the buffers of blocks, creatives and reward model hold.
fn rows_at_once(task: &Task) -> usize {
    task.context.limits.beams * task.context.limits.slots
}
