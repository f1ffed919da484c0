//! One batch on the GPU: from resolved requests to candidate lists with their rewards.

use std::sync::Arc;
use std::time::Instant;

use super::counterfactual::{RateQuery, Rated};
use super::creatives::{Decision, Decisions};
use super::gpu_lists::{Columns, assemble, lists_input};
use super::gpu_search::LogitsLog;
use super::gpu_workspace::GpuWorkspace;
use super::micros_since;
use super::task::{Generated, Logits, Task, Tensors, is_finite};
use crate::catalog::Snapshot;
use crate::cuda::beam_attention::Beams;
use crate::cuda::creative::{Job, Sources};
use crate::cuda::model::DeviceModel;
use crate::cuda::reward_choice::multipliers;
use crate::cuda::scoring::ListsInput;
use crate::decode::search::{CandidateList, Chosen};
use crate::error::{DeviceError, RequestError, RequestErrorKind};
use crate::model::payment::{PaymentInput, PaymentNetwork, write_input};
use crate::model::reward::Shown;
use crate::response::Timings;

/// A task of a batch, and an item that no list of it may show.
pub(super) type Part<'a, 't> = (&'a Task<'t>, Option<Chosen>);

/// A batch that runs.
pub(super) struct Batch<'m> {
    pub model: &'m DeviceModel,
    /// Whether to keep [`Generated::tensors`].
    pub trace: bool,
    /// Whether to keep [`Generated::logits`].
    pub logits: bool,
    /// Whether to wait after each stage, so that its time can be told.
    pub timed: bool,
}

/// Items and creatives of the lists of each request.
pub(super) type ShownLists = Vec<Result<Vec<Vec<Shown>>, RequestError>>;

/// What the search of one request came to.
pub(super) type Lists = Result<Vec<CandidateList>, RequestError>;

impl Batch<'_> {
    /// Searches and scores the lists of `parts`, no more than there is room for.
    pub fn generate(
        &self,
        ws: &mut GpuWorkspace,
        parts: &[Part],
        timings: &mut Timings,
    ) -> Result<Vec<Result<Generated, RequestError>>, DeviceError> {
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        self.stage(ws, &mut timings.encode_us, |ws| {
            let histories: Vec<_> = parts.iter().map(|(task, _)| &task.resolved.history).collect();
            let (table, angles) = (self.model.table.ptr(), self.model.angles.ptr());
            let config = &self.model.config;
            self.model.encoder.run(&*ws.stream, config, table, angles, &histories, &mut ws.encoder)
        })?;
        let mut log = self.logits.then(LogitsLog::new);
        let beams = self.beams(parts, ws.most_beams);
        let lists = self.stage(ws, &mut timings.search_us, |ws| {
            self.search(ws, parts, beams, log.as_mut())?;
            ws.search.finish()?;
            let lists = ws.search.lists()?;
            self.refuse_infinite(ws, lists)
        })?;
        let decisions: Vec<Decisions> = lists
            .iter()
            .map(|lists| Decisions::of(lists.as_ref().map_or(&[], |l| l), self.model.config.poi_code_layers))
            .collect();
        let shown = self
            .stage(ws, &mut timings.creative_us, |ws| self.choose_creatives(ws, parts, beams, &decisions))?;
        let (input, scored) = self.stage(ws, &mut timings.reward_us, |ws| {
            let input = lists_input(parts, beams.beams, &lists, &shown);
            let scored = ws.scoring.run(&*ws.stream, self.model, &ws.encoder.mean, &input)?;
            Ok((input, scored))
        })?;
        let log = log.map(Arc::new);
        let results = lists.into_iter().zip(shown).enumerate();
        let mut out = Vec::with_capacity(parts.len());
        for (index, (lists, shown)) in results {
            let generated =
                lists.and_then(|lists| assemble(parts[index].0, index, lists, shown?, &input, &scored));
            let generated = generated.map(|generated| Generated {
                logits: log.clone().map(|steps| Logits {
                    steps,
                    first: index * beams.beams,
                    width: self.model.config.codebook_size,
                }),
                ..generated
            });
            out.push(match generated {
                Ok(mut generated) if self.trace => {
                    generated.tensors = Some(self.tensors(ws, index, &generated, &input)?);
                    Ok(generated)
                }
                generated => generated,
            });
        }
        Ok(out)
    }

    /// Runs a stage, and adds its time to `micros` where times are asked for.
    fn stage<T>(
        &self,
        ws: &mut GpuWorkspace,
        micros: &mut u64,
        work: impl FnOnce(&mut GpuWorkspace) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let started = Instant::now();
        let out = work(ws)?;
        if self.timed {
            ws.stream.synchronize()?;
            *micros += micros_since(started);
        }
        Ok(out)
    }

    /// Refuses the requests whose encoder states hold an infinity or no number: their mean does then too.
    fn refuse_infinite(&self, ws: &GpuWorkspace, lists: Vec<Lists>) -> Result<Vec<Lists>, DeviceError> {
        let d = self.model.shape.d;
        let mut means = vec![0.0; lists.len() * d];
        ws.encoder.mean.download(0, &mut means)?;
        let checked = means.chunks_exact(d).zip(lists).map(|(mean, lists)| {
            is_finite("history", "the encoder's output", mean.iter().copied().map(f64::from))?;
            lists
        });
        Ok(checked.collect())
    }

    /// Items and creatives of all lists of all requests.
    fn choose_creatives(
        &self,
        ws: &mut GpuWorkspace,
        parts: &[Part],
        beams: Beams,
        decisions: &[Decisions],
    ) -> Result<ShownLists, DeviceError> {
        let config = &self.model.config;
        let Some((task, _)) = parts.first() else { return Ok(Vec::new()) };
        let snapshot = task.context.snapshot;
        let rows = beams.requests * beams.beams;
        let jobs: Vec<Vec<Job>> = decisions
            .iter()
            .enumerate()
            .map(|(request, decisions)| {
                let hidden = |decision: &Decision| {
                    (decision.position * rows + request * beams.beams) as u32 + decision.row
                };
                let job = |decision: &Decision| Job {
                    hidden: hidden(decision),
                    creatives: sorted_creatives(snapshot, decision.item),
                };
                decisions.all.iter().map(job).collect()
            })
            .collect();
        let sources = Sources {
            table: &self.model.table,
            angles: self.model.angles.ptr(),
            hidden: &ws.decoder.hidden,
            cross: self.model.encoder.cross(&ws.encoder, config.decoder_layers),
            longest: beams.most_keys,
        };
        let codes = |creative| snapshot.creative_codes(creative);
        let creative = &self.model.creative;
        let chosen = creative.choose(&ws.stream, config, sources, &jobs, codes, &mut ws.creative)?;
        let shown = chosen.into_iter().zip(decisions).map(|(chosen, decisions)| match chosen {
            Some(chosen) => Ok(decisions.shown(&chosen)),
            None => Err(RequestError::new(
                RequestErrorKind::NotFinite,
                "history",
                "the logit of a creative code is not finite",
            )),
        });
        Ok(shown.collect())
    }

    /// The payment network's rate of each query, about a request whose history this encodes.
    pub fn rates(
        &self,
        ws: &mut GpuWorkspace,
        task: &Task,
        queries: &[RateQuery],
    ) -> Result<Vec<Rated>, DeviceError> {
        let config = &self.model.config;
        let (table, angles) = (self.model.table.ptr(), self.model.angles.ptr());
        let histories = [&task.resolved.history];
        self.model.encoder.run(&*ws.stream, config, table, angles, &histories, &mut ws.encoder)?;
        let slots = task.resolved.rules.list_len;
        let rate = |query: &RateQuery| {
            let mut input = ListsInput::new(1, 1, slots);
            let mut columns = Columns::default();
            input.objectives.extend(multipliers(&task.request.objective));
            input.lengths[0] = query.shown.len() as i32;
            input.ln_z[query.slot] = query.ln_z;
            for (row, shown) in query.shown.iter().enumerate() {
                input.items[row] = columns.item(task.context, shown.item, &mut input);
                input.creatives[row] = columns.creative(task.context.snapshot, shown.creative, &mut input);
            }
            // One list, which wins.
            let scored = ws.scoring.run(&*ws.stream, self.model, &ws.encoder.mean, &input)?;
            let features = ws.scoring.features(self.model, slots, 0, query.shown.len())?;
            let read = features.chunks_exact(config.reward_hidden_size).zip(query.values);
            let read: Vec<PaymentInput> = read
                .map(|(features, value)| PaymentInput {
                    features,
                    bid: value.bid,
                    z_pctr: libm::exp(query.ln_z) * value.pctr_poi,
                })
                .collect();
            let mut input = vec![0.0; PaymentNetwork::input_size(config)];
            write_input(&read, query.slot, &mut input);
            Ok(Rated { rate: f64::from(scored.rates[query.slot]), input })
        };
        queries.iter().map(rate).collect()
    }

    fn tensors(
        &self,
        ws: &GpuWorkspace,
        request: usize,
        generated: &Generated,
        input: &ListsInput,
    ) -> Result<Tensors, DeviceError> {
        let config = &self.model.config;
        let d = self.model.shape.d;
        let rows = ws.encoder.rows[request] as usize..ws.encoder.rows[request + 1] as usize;
        let mut encoder = vec![0.0; rows.len() * d];
        ws.encoder.states.download(rows.start * d, &mut encoder)?;
        let best = &generated.lists[generated.winner];
        let filled = best.items.len() * config.poi_code_layers;
        let logits = generated.logits.as_ref();
        let poi_logits = logits.map_or_else(Vec::new, |logits| logits.along(best, filled));
        let list = request * input.per_request + generated.winner;
        let features = ws.scoring.features(self.model, input.slots, list, best.items.len())?;
        Ok(Tensors { encoder, poi_logits, features })
    }
}

/// The creatives of an item in the order of their codes, equals in catalog order.
fn sorted_creatives(snapshot: &Snapshot, item: u32) -> Vec<u32> {
    let mut creatives: Vec<u32> = snapshot.creatives(item).collect();
    creatives.sort_by_key(|&creative| snapshot.creative_codes(creative));
    creatives
}
