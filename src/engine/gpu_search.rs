//! The search of a batch on the GPU: every position of the decoder and what it selects, recorded once for each shape of
//! batches.

use super::gpu_batch::{Batch, Part};
use super::gpu_workspace::GpuWorkspace;
use crate::cuda::beam_attention::{Beams, CHUNK};
use crate::cuda::decoder::Step;
use crate::cuda::search::SearchRequest;
use crate::error::DeviceError;

/// What a recorded decode loop was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Loop {
    beams: Beams,
    steps: usize,
    /// See [`Search::moves`].
    moves: u64,
}

/// Decode loops that are kept: one for each shape of batches.
const MOST_LOOPS: usize = 64;

/// Rows of a request are a multiple of this, so that similar widths share a loop.
const ROWS_STEP: usize = 16;

/// The logits of every row at every step: [steps][rows, W].
pub(super) type LogitsLog = Vec<Vec<f32>>;

impl Batch<'_> {
    /// The rows of a decode step. Rows and keys are rounded up, to few shapes; what a request gets does not depend on
    /// them.
    pub fn beams(&self, parts: &[Part], most: usize) -> Beams {
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
    pub fn search(
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
}
