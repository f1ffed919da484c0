//! The stages of a batch on the GPU that need nothing of the host: search, creatives, scoring. The launches of each are
//! recorded when a shape of batches is first seen.

use super::gpu_batch::{Batch, Part};
use super::gpu_workspace::GpuWorkspace;
use crate::cuda::beam_attention::{Beams, CHUNK};
use crate::cuda::beam_attention_hopper::Cluster;
use crate::cuda::choice::Code;
use crate::cuda::creative::Sources;
use crate::cuda::decoder::Step;
use crate::cuda::lists::Lists;
use crate::cuda::reward_choice::multipliers;
use crate::cuda::scoring::ScoringInput;
use crate::cuda::search::SearchRequest;
use crate::error::DeviceError;

/// What the launches of a batch depend on, besides the buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BatchShape {
    /// Requests, rows of each in a decode step, and keys.
    pub beams: Beams,
    /// Slots of the longest list.
    pub slots: usize,
}

/// A part of the work that is recorded, and timed, by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Every position of the decoder, and the lists.
    Search,
    /// Their creatives.
    Creatives,
    /// Their rewards, the winners and their rates.
    Scoring,
}

/// What a recording was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Recording {
    stage: Stage,
    shape: BatchShape,
    /// See [`Search::moves`](crate::cuda::search::Search::moves).
    moves: u64,
    /// Number of the catalog.
    catalog: u64,
}

/// Recordings that are kept: three for each shape of batches.
const MOST_RECORDINGS: usize = 3 * 64;

/// Rows of a request are a multiple of this, so that similar widths share a recording.
const ROWS_STEP: usize = 16;

/// The logits of every row at every step: [steps][rows, W].
pub(super) type LogitsLog = Vec<Vec<f32>>;

impl Batch<'_> {
    /// The shape of a batch. Rows and keys are rounded up, to few shapes; what a request gets does not depend on them.
    pub fn shape(&self, parts: &[Part], most_beams: usize) -> BatchShape {
        let most = |of: fn(&Part) -> usize| parts.iter().map(of).max().unwrap_or(0);
        let widest = most(|(task, _)| task.resolved.rules.beam_width).max(1);
        let behaviors = most(|(task, _)| task.resolved.history.behaviors.len());
        let beams = Beams {
            requests: parts.len(),
            beams: widest.next_multiple_of(ROWS_STEP).min(most_beams),
            heads: self.model.shape.heads,
            head_size: self.model.shape.head_size(),
            most_keys: self.model.config.history_tokens(behaviors).next_multiple_of(CHUNK),
        };
        BatchShape { beams, slots: most(|(task, _)| task.resolved.rules.list_len) }
    }

    /// Uploads what the requests ask for.
    pub fn begin(&self, ws: &mut GpuWorkspace, parts: &[Part], shape: BatchShape) -> Result<(), DeviceError> {
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
        ws.search.begin(&requests, shape.beams.beams)?;
        let objectives: Vec<f64> =
            parts.iter().flat_map(|(task, _)| multipliers(&task.request.objective)).collect();
        ws.objectives.upload(0, &objectives)
    }

    /// Enqueues a stage as one: the launches of `work`, recorded where that has not been done.
    pub fn replay(
        &self,
        ws: &mut GpuWorkspace,
        stage: Stage,
        shape: BatchShape,
        work: impl Fn(&mut GpuWorkspace) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let key = Recording { stage, shape, moves: ws.search.moves(), catalog: self.catalog.number() };
        if !ws.recordings.contains_key(&key) {
            if ws.recordings.len() == MOST_RECORDINGS {
                ws.recordings.clear();
            }
            let stream = ws.stream.clone();
            let recorded = self.catalogs.undisturbed(|| stream.capture(&mut || work(ws)))?;
            ws.recordings.insert(key, recorded);
        }
        ws.recordings.get(&key).map_or(Ok(()), |recorded| recorded.launch())
    }

    /// Every position of the search, and the one after the last code, whose hidden states the creatives of the last
    /// slot are chosen by; then the lists. Launches alone, unless there is a log to be kept.
    pub fn search(
        &self,
        ws: &mut GpuWorkspace,
        shape: BatchShape,
        mut log: Option<&mut LogitsLog>,
    ) -> Result<(), DeviceError> {
        let config = &self.model.config;
        let BatchShape { beams, slots } = shape;
        let steps = slots * config.poi_code_layers;
        if log.is_none() && self.search_in_one(ws, beams, steps)? {
            return ws.search.finish();
        }
        // A log needs logits in device memory.
        let cluster = if log.is_none() { self.step_cluster(ws, beams) } else { None };
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
            if let Some((cluster, layer)) = cluster.zip(head) {
                let head = self.model.decoder.headless_step(
                    &*ws.stream,
                    config,
                    table,
                    angles,
                    encoder,
                    step,
                    layer,
                    decoder,
                )?;
                ws.search.step(cluster, head)?;
                continue;
            }
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
        ws.search.finish()
    }

    /// Runs all steps in one launch, where that is chosen and finds room; false where it does not.
    fn search_in_one(&self, ws: &mut GpuWorkspace, beams: Beams, steps: usize) -> Result<bool, DeviceError> {
        let (config, decoder) = (&self.model.config, &self.model.decoder);
        let (table, angles) = (self.model.table.ptr(), self.model.angles.ptr());
        let GpuWorkspace { stream, encoder, search, decoder: state, .. } = ws;
        let encoder = (&self.model.encoder, &*encoder);
        decoder.search(&**stream, config, table, angles, encoder, beams, steps, search, state)
    }

    /// The cluster that runs head and search of a step in one launch, where that is chosen and finds room. A position of
    /// the decoder in one launch has its own head.
    fn step_cluster(&self, ws: &GpuWorkspace, beams: Beams) -> Option<Cluster> {
        let chosen = self.model.search_step == Code::Hopper && ws.decoder.team.is_none();
        ws.search.cluster(beams.requests, beams.beams, self.model.shape.d).filter(|_| chosen)
    }

    /// The creative of every slot of every list. Launches alone, unless there is a log to be kept.
    pub fn choose_creatives(
        &self,
        ws: &mut GpuWorkspace,
        shape: BatchShape,
        log: Option<&mut LogitsLog>,
    ) -> Result<(), DeviceError> {
        let config = &self.model.config;
        let BatchShape { beams, slots } = shape;
        ws.slots.open(&*ws.stream, ws.search.searched(), &self.catalog.creative_offsets)?;
        let sources = Sources {
            table: &self.model.table,
            angles: self.model.angles.ptr(),
            codes: &self.catalog.creative_codes,
            hidden: &ws.decoder.hidden,
            cross: self.model.encoder.cross(&ws.encoder, config.decoder_layers),
            longest: beams.most_keys,
        };
        let rows = (beams.requests, beams.beams * slots);
        let creative = &self.model.creative;
        creative.choose(&*ws.stream, config, sources, rows, &mut ws.slots, &mut ws.creative, log)
    }

    /// The rewards of all lists, the winners, and their rates.
    pub fn score(&self, ws: &mut GpuWorkspace, shape: BatchShape) -> Result<(), DeviceError> {
        let BatchShape { beams, slots } = shape;
        let searched = ws.search.searched();
        let input = ScoringInput {
            requests: beams.requests,
            lists: Lists::new(beams.requests * beams.beams, slots, &ws.slots.lengths),
            offsets: &ws.slots.offsets,
            list_request: &ws.slots.list_request,
            scores: searched.scores,
            items: searched.items,
            creatives: &ws.slots.creative,
            bids: &ws.slots.bids,
            ln_z: searched.ln_z,
            objectives: &ws.objectives,
        };
        ws.scoring.run(&*ws.stream, self.model, self.catalog, &ws.encoder.mean, input)
    }
}
