//! One batch on the GPU: from resolved requests to candidate lists with their rewards.

use std::sync::Arc;
use std::time::Instant;

use super::gpu_lists::Found;
use super::gpu_stages::{BatchShape, LogitsLog, Stage};
use super::gpu_workspace::GpuWorkspace;
use super::micros_since;
use super::task::{Generated, Logits, Task, Tensors};
use crate::cuda::catalog::{Catalogs, DeviceCatalog};
use crate::cuda::model::DeviceModel;
use crate::decode::search::Chosen;
use crate::error::{DeviceError, RequestError};
use crate::model::encoder::History;
use crate::response::Timings;

/// A task of a batch, and an item that no list of it may show.
pub(super) type Part<'a, 't> = (&'a Task<'t>, Option<Chosen>);

/// A batch that runs.
#[derive(Clone, Copy)]
pub(super) struct Batch<'m> {
    pub model: &'m DeviceModel,
    pub catalogs: &'m Catalogs,
    /// The items and creatives that all tasks see.
    pub catalog: &'m DeviceCatalog,
    /// Whether to keep [`Generated::tensors`].
    pub trace: bool,
    /// Whether to keep [`Generated::logits`].
    pub logits: bool,
    /// Whether to wait after each stage, so that its time can be told.
    pub timed: bool,
}

impl Batch<'_> {
    /// Searches and scores the lists of `parts`, no more than there is room for. Between the upload of what they ask for
    /// and the download of what was found the host only enqueues.
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
            self.encode(ws, &histories)
        })?;
        let shape = self.shape(parts, ws.most_beams);
        let mut log = self.logits.then(LogitsLog::new);
        self.stage(ws, &mut timings.search_us, |ws| {
            self.begin(ws, parts, shape)?;
            match &mut log {
                // What is read between the steps cannot be recorded.
                Some(log) => self.search(ws, shape, Some(log)),
                None => self.replay(ws, Stage::Search, shape, |ws| self.search(ws, shape, None)),
            }
        })?;
        let mut creative_log = self.trace.then(LogitsLog::new);
        self.stage(ws, &mut timings.creative_us, |ws| match &mut creative_log {
            Some(log) => self.choose_creatives(ws, shape, Some(log)),
            None => self.replay(ws, Stage::Creatives, shape, |ws| self.choose_creatives(ws, shape, None)),
        })?;
        let found = self.stage(ws, &mut timings.reward_us, |ws| {
            self.replay(ws, Stage::Scoring, shape, |ws| self.score(ws, shape))?;
            Found::read(ws, self.model.shape.d, shape)
        })?;
        let mut all = found.generated(parts.iter().map(|(task, _)| *task), self.catalog);
        let log = log.map(Arc::new);
        for (request, generated) in all.iter_mut().enumerate() {
            let Ok(generated) = generated else { continue };
            generated.logits = log.clone().map(|steps| Logits {
                steps,
                first: request * shape.beams.beams,
                width: self.model.config.codebook_size,
            });
            if let Some(creatives) = &creative_log {
                generated.tensors = Some(self.tensors(ws, shape, request, generated, creatives)?);
            }
        }
        Ok(all)
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

    /// The encoder's states of some histories.
    pub fn encode(&self, ws: &mut GpuWorkspace, histories: &[&History]) -> Result<(), DeviceError> {
        let (table, angles) = (self.model.table.ptr(), self.model.angles.ptr());
        let config = &self.model.config;
        self.model.encoder.run(&*ws.stream, config, table, angles, histories, &mut ws.encoder)
    }

    fn tensors(
        &self,
        ws: &GpuWorkspace,
        shape: BatchShape,
        request: usize,
        generated: &Generated,
        creatives: &LogitsLog,
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
        let list = request * shape.beams.beams + generated.winner;
        let features = ws.scoring.features(self.model, shape.slots, list, best.items.len())?;
        let w = config.codebook_size;
        let creative_logits = (list * shape.slots..)
            .take(best.items.len())
            .flat_map(|row| creatives.iter().flat_map(move |layer| &layer[row * w..(row + 1) * w]))
            .copied()
            .collect();
        Ok(Tensors { encoder, poi_logits, creative_logits, features })
    }
}
