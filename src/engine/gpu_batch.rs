//! One batch on the GPU: from resolved requests to candidate lists with their rewards.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::counterfactual::RateQuery;
use super::creatives::{Decision, Decisions};
use super::task::{Context, Generated, Logits, Task, Tensors, is_finite, slot_values};
use super::{Limits, micros_since};
use crate::catalog::{ItemKind, Snapshot};
use crate::cuda::beam_attention::{Beams, CHUNK};
use crate::cuda::creative::{CreativeState, Job, Sources};
use crate::cuda::decoder::{DecoderState, Step};
use crate::cuda::encoder::EncoderState;
use crate::cuda::launch::{Graph, Stream};
use crate::cuda::model::DeviceModel;
use crate::cuda::reward_choice::multipliers;
use crate::cuda::scoring::{ListsInput, Scored, ScoringState};
use crate::cuda::search::{Search, SearchLimits, SearchRequest};
use crate::decode::search::{CandidateList, Chosen};
use crate::error::{DeviceError, RequestError, RequestErrorKind};
use crate::model::reward::Shown;
use crate::response::Timings;

/// The buffers of a batch, all in the memory of one device, and the stream that works on them.
pub(super) struct GpuWorkspace {
    /// Recorded decode loops. They use the buffers below, and go before them.
    loops: HashMap<Loop, Box<dyn Graph>>,
    stream: Arc<dyn Stream>,
    encoder: EncoderState,
    search: Search,
    decoder: DecoderState,
    creative: CreativeState,
    scoring: ScoringState,
    most_beams: usize,
}

/// What a recorded decode loop was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Loop {
    beams: Beams,
    steps: usize,
    /// See [`Search::moves`].
    moves: u64,
}

/// Decode loops that are kept: one for each shape of batches.
const MOST_LOOPS: usize = 64;

/// Rows of a request are a multiple of this, so that similar widths share a loop.
const ROWS_STEP: usize = 16;

impl GpuWorkspace {
    /// Room for batches of requests within `limits`, and the ads of `snapshot`.
    pub fn new(
        stream: &Arc<dyn Stream>,
        model: &DeviceModel,
        limits: &Limits,
        snapshot: &Snapshot,
    ) -> Result<Self, DeviceError> {
        let config = &model.config;
        let Limits { batch, history, beams, candidates, slots } = *limits;
        let tokens = config.history_tokens(history);
        let features = config.context_features.len() + history * config.behavior_features.len();
        let positions = slots * config.poi_code_layers + 1;
        let rows = |beams| Beams {
            requests: batch,
            beams,
            heads: model.shape.heads,
            head_size: model.shape.head_size(),
            most_keys: tokens,
        };
        let limits = SearchLimits { requests: batch, beams, slots, candidates };
        let mut search = Search::new(stream, limits, config.poi_code_layers, config.codebook_size)?;
        search.hold_all(snapshot)?;
        Ok(Self {
            loops: HashMap::new(),
            most_beams: beams,
            encoder: model.encoder.state(stream, batch, tokens, features)?,
            search,
            decoder: model.decoder.state(stream, config, rows(beams), positions)?,
            creative: model.creative.state(stream, config, rows(beams * slots))?,
            scoring: ScoringState::new(stream, model, batch, beams, slots)?,
            stream: stream.clone(),
        })
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.encoder.bytes()
            + self.search.bytes()
            + self.decoder.bytes()
            + self.creative.bytes()
            + self.scoring.bytes()
    }
}

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
type ShownLists = Vec<Result<Vec<Vec<Shown>>, RequestError>>;

/// What the search of one request came to.
type Lists = Result<Vec<CandidateList>, RequestError>;

/// The logits of every row at every step: [steps][rows, W].
type LogitsLog = Vec<Vec<f32>>;

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
            let input = self.lists_input(parts, beams.beams, &lists, &shown);
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

    /// The rows of a decode step. Rows and keys are rounded up, to few shapes; what a request gets does not depend on
    /// them.
    fn beams(&self, parts: &[Part], most: usize) -> Beams {
        let widths = parts.iter().map(|(task, _)| task.resolved.rules.beam_width);
        let widest = widths.max().unwrap_or(1);
        let tokens = parts.iter().map(|(task, _)| task.resolved.history.behaviors.len()).max().unwrap_or(0);
        Beams {
            requests: parts.len(),
            beams: widest.next_multiple_of(ROWS_STEP).min(most),
            heads: self.model.shape.heads,
            head_size: self.model.shape.head_size(),
            most_keys: self.model.config.history_tokens(tokens).next_multiple_of(CHUNK),
        }
    }

    /// Runs the search from end to end. The loop over its positions is recorded when a shape of batches is first seen,
    /// and enqueued as one from then on.
    fn search(
        &self,
        ws: &mut GpuWorkspace,
        parts: &[Part],
        beams: Beams,
        log: Option<&mut LogitsLog>,
    ) -> Result<(), DeviceError> {
        let organic: Vec<Vec<u32>> = parts
            .iter()
            .map(|(task, excluded)| {
                let organic = task.resolved.organic.iter().copied();
                organic.filter(|&item| excluded.is_none_or(|e| e.item != item)).collect()
            })
            .collect();
        let requests: Vec<_> = parts
            .iter()
            .zip(&organic)
            .map(|((task, excluded), organic)| SearchRequest {
                rules: &task.resolved.rules,
                snapshot: task.context.snapshot,
                ads: &task.resolved.ads,
                organic,
                excluded: excluded.and_then(|chosen| chosen.position),
            })
            .collect();
        ws.search.begin(&requests, beams.beams)?;
        let slots = parts.iter().map(|(task, _)| task.resolved.rules.list_len).max().unwrap_or(0);
        let steps = slots * self.model.config.poi_code_layers;
        // What is read between the steps cannot be recorded.
        if log.is_some() {
            return self.decode(ws, beams, steps, log);
        }
        let key = Loop { beams, steps, moves: ws.search.moves() };
        if !ws.loops.contains_key(&key) {
            if ws.loops.len() == MOST_LOOPS {
                ws.loops.clear();
            }
            let stream = ws.stream.clone();
            let recorded = stream.capture(&mut || self.decode(ws, beams, steps, None))?;
            ws.loops.insert(key, recorded);
        }
        ws.loops.get(&key).map_or(Ok(()), |recorded| recorded.launch())
    }

    /// Every position of the search, and the one after the last code, whose hidden states the creatives of the last
    /// slot are chosen by: launches alone, unless there is a log to be kept.
    fn decode(
        &self,
        ws: &mut GpuWorkspace,
        beams: Beams,
        steps: usize,
        mut log: Option<&mut LogitsLog>,
    ) -> Result<(), DeviceError> {
        let config = &self.model.config;
        for position in 0..=steps {
            let step = Step {
                beams,
                position,
                newest: ws.search.position(),
                tokens: ws.search.tokens(),
                ancestors: ws.search.ancestors(),
            };
            let head = (position < steps).then_some(position % config.poi_code_layers);
            let (table, angles) = (self.model.table.ptr(), self.model.angles.ptr());
            let encoder = (&self.model.encoder, &ws.encoder);
            let decoder = &mut ws.decoder;
            self.model.decoder.step(&*ws.stream, config, table, angles, encoder, step, head, decoder)?;
            if head.is_some() {
                if let Some(log) = log.as_deref_mut() {
                    let mut logits = vec![0.0; beams.requests * beams.beams * config.codebook_size];
                    ws.decoder.logits.download(0, &mut logits)?;
                    log.push(logits);
                }
                ws.search.advance(ws.decoder.logits.ptr())?;
            }
        }
        Ok(())
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
    ) -> Result<Vec<f64>, DeviceError> {
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
            Ok(f64::from(scored.rates[query.slot]))
        };
        queries.iter().map(rate).collect()
    }

    /// The lists as the reward model reads them; requests that failed have none.
    fn lists_input(
        &self,
        parts: &[Part],
        per_request: usize,
        lists: &[Lists],
        shown: &[Result<Vec<Vec<Shown>>, RequestError>],
    ) -> ListsInput {
        let slots = parts.iter().map(|(task, _)| task.resolved.rules.list_len).max().unwrap_or(1);
        let mut input = ListsInput::new(parts.len(), per_request, slots);
        let mut columns = Columns::default();
        for (request, (task, _)) in parts.iter().enumerate() {
            input.objectives.extend(multipliers(&task.request.objective));
            let (Ok(lists), Ok(shown)) = (&lists[request], &shown[request]) else { continue };
            for (index, (list, shown)) in lists.iter().zip(shown).enumerate() {
                let at = request * per_request + index;
                input.lengths[at] = list.items.len() as i32;
                input.scores[at] = list.score;
                for (slot, (chosen, shown)) in list.items.iter().zip(shown).enumerate() {
                    let row = at * slots + slot;
                    input.ln_z[row] = chosen.ln_z;
                    input.items[row] = columns.item(task.context, shown.item, &mut input);
                    input.creatives[row] =
                        columns.creative(task.context.snapshot, shown.creative, &mut input);
                }
            }
        }
        input
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

/// What was found of one request, from what the device says about the batch.
fn assemble(
    task: &Task,
    request: usize,
    lists: Vec<CandidateList>,
    shown: Vec<Vec<Shown>>,
    input: &ListsInput,
    scored: &Scored,
) -> Result<Generated, RequestError> {
    let first = request * input.per_request;
    let rewards = scored.rewards[first..first + lists.len()].to_vec();
    is_finite("objective", "the reward of a list", rewards.iter().copied())?;
    let rates = &scored.rates[request * input.slots..];
    let winner = scored.winner[request] as usize - first;
    let rates: Vec<f64> = shown[winner].iter().zip(rates).map(|(_, &rate)| f64::from(rate)).collect();
    is_finite("payment", "the payment network's rate", rates.iter().copied())?;
    let is_ad = |item: u32| task.context.snapshot.kind(item) == ItemKind::Ad;
    let rates =
        shown[winner].iter().zip(rates).map(|(s, rate)| if is_ad(s.item) { rate } else { 0.0 }).collect();
    let probabilities = scored.probabilities.each_ref().map(|p| &p[..]);
    let values = shown
        .iter()
        .enumerate()
        .map(|(list, shown)| {
            let row = (first + list) * input.slots;
            slot_values(task.context, shown, probabilities, row..row + shown.len())
        })
        .collect();
    Ok(Generated { lists, shown, values, rewards, winner, rates, logits: None, tensors: None })
}

/// Which items and creatives of the snapshot are uploaded, and where they stand.
#[derive(Default)]
struct Columns {
    items: HashMap<u32, u32>,
    creatives: HashMap<u32, u32>,
}

impl Columns {
    /// The row of an item in the columns of `input`, where it is put if it is new.
    fn item(&mut self, context: Context, item: u32, input: &mut ListsInput) -> u32 {
        let (snapshot, d_item) = (context.snapshot, context.config.item_embedding_size);
        let next = self.items.len() as u32;
        *self.items.entry(item).or_insert_with(|| {
            let start = input.embeddings.len();
            input.embeddings.resize(start + d_item, 0.0);
            snapshot.embedding(item, &mut input.embeddings[start..]);
            input.item_codes.extend_from_slice(snapshot.codes(item));
            input.bids.push(snapshot.bid(item).0);
            next
        })
    }

    /// The row of a creative in the columns of `input`, where it is put if it is new.
    fn creative(&mut self, snapshot: &Snapshot, creative: u32, input: &mut ListsInput) -> u32 {
        let next = self.creatives.len() as u32;
        *self.creatives.entry(creative).or_insert_with(|| {
            input.creative_codes.extend_from_slice(snapshot.creative_codes(creative));
            next
        })
    }
}
