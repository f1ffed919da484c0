//! The buffers that a batch on the GPU works in.

use std::collections::HashMap;
use std::sync::Arc;

use super::Limits;
use super::gpu_rates::{MOST_QUERIES, RateLists};
use super::gpu_stages::Recording;
use crate::catalog::Snapshot;
use crate::cuda::beam_attention::Beams;
use crate::cuda::creative::CreativeState;
use crate::cuda::decoder::DecoderState;
use crate::cuda::encoder::EncoderState;
use crate::cuda::launch::{Buffer, Graph, Stream};
use crate::cuda::list_slots::ListSlots;
use crate::cuda::model::DeviceModel;
use crate::cuda::scoring::ScoringState;
use crate::cuda::search::{Search, SearchLimits};
use crate::error::DeviceError;

/// The buffers of a batch, all in the memory of one device, and the stream that works on them.
pub(super) struct GpuWorkspace {
    /// Recorded stages. They use the buffers below, and go before them.
    pub recordings: HashMap<Recording, Box<dyn Graph>>,
    pub stream: Arc<dyn Stream>,
    pub encoder: EncoderState,
    pub search: Search,
    pub decoder: DecoderState,
    pub slots: ListSlots,
    pub creative: CreativeState,
    /// Multipliers of each request's objective, [requests, 4].
    pub objectives: Buffer<f64>,
    pub scoring: ScoringState,
    pub rate_lists: RateLists,
    /// Rates under misreports.
    pub rates: Buffer<f32>,
    pub most_beams: usize,
}

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
            recordings: HashMap::new(),
            most_beams: beams,
            encoder: model.encoder.state(stream, batch, tokens, features)?,
            search,
            decoder: model.decoder.state(stream, config, rows(beams), positions)?,
            slots: ListSlots::new(stream, batch, beams, slots)?,
            creative: model.creative.state(stream, config, rows(beams * slots))?,
            objectives: Buffer::new(stream, 4 * batch)?,
            scoring: ScoringState::new(stream, model, batch, beams, slots)?,
            rate_lists: RateLists::new(stream, beams, slots)?,
            rates: Buffer::new(stream, MOST_QUERIES)?,
            stream: stream.clone(),
        })
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.encoder.bytes()
            + self.search.bytes()
            + self.decoder.bytes()
            + self.slots.bytes()
            + self.creative.bytes()
            + self.objectives.bytes()
            + self.scoring.bytes()
            + self.rate_lists.bytes()
            + self.rates.bytes()
    }
}
