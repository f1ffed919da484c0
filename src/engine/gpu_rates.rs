//! Single rates of the payment network on the GPU, for audits.

use std::sync::Arc;

use super::counterfactual::{RateQuery, Rated};
use super::gpu_batch::Batch;
use super::gpu_workspace::GpuWorkspace;
use super::task::Task;
use crate::cuda::catalog::DeviceCatalog;
use crate::cuda::launch::{Buffer, Stream};
use crate::cuda::lists::Lists;
use crate::cuda::reward_choice::multipliers;
use crate::cuda::scoring::{Scored, ScoringInput};
use crate::error::DeviceError;
use crate::model::payment::{PaymentInput, PaymentNetwork, write_input};

/// Room for one list of one request, in device memory.
pub(super) struct OneList {
    lengths: Buffer<i32>,
    offsets: Buffer<u32>,
    list_request: Buffer<u32>,
    scores: Buffer<f64>,
    items: Buffer<u32>,
    creatives: Buffer<u32>,
    bids: Buffer<u64>,
    ln_z: Buffer<f64>,
    objectives: Buffer<f64>,
}

impl OneList {
    /// A list of up to `slots` slots.
    pub fn new(stream: &Arc<dyn Stream>, slots: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            lengths: Buffer::new(stream, 1)?,
            offsets: Buffer::from_slice(stream, &[0, 1])?,
            list_request: Buffer::from_slice(stream, &[0])?,
            scores: Buffer::from_slice(stream, &[0.0])?,
            items: Buffer::new(stream, slots)?,
            creatives: Buffer::new(stream, slots)?,
            bids: Buffer::new(stream, slots)?,
            ln_z: Buffer::new(stream, slots)?,
            objectives: Buffer::new(stream, 4)?,
        })
    }

    fn upload(&mut self, catalog: &DeviceCatalog, task: &Task, query: &RateQuery) -> Result<(), DeviceError> {
        let shown = query.shown.iter();
        let items: Vec<u32> = shown.clone().map(|shown| shown.item).collect();
        let creatives: Vec<u32> =
            shown.clone().map(|shown| catalog.place(shown.item, shown.creative)).collect();
        let bids: Vec<u64> = shown.map(|shown| task.context.snapshot.bid(shown.item).0).collect();
        // What the rates of the other slots would be is not read.
        let mut ln_z = vec![0.0; items.len()];
        ln_z[query.slot] = query.ln_z;
        self.lengths.upload(0, &[items.len() as i32])?;
        self.items.upload(0, &items)?;
        self.creatives.upload(0, &creatives)?;
        self.bids.upload(0, &bids)?;
        self.ln_z.upload(0, &ln_z)?;
        self.objectives.upload(0, &multipliers(&task.request.objective))
    }

    fn input(&self, slots: usize) -> ScoringInput<'_> {
        ScoringInput {
            requests: 1,
            lists: Lists::new(1, slots, &self.lengths),
            offsets: &self.offsets,
            list_request: &self.list_request,
            scores: &self.scores,
            items: &self.items,
            creatives: &self.creatives,
            bids: &self.bids,
            ln_z: &self.ln_z,
            objectives: &self.objectives,
        }
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let words = [&self.offsets, &self.list_request, &self.items, &self.creatives];
        let doubles = [&self.scores, &self.ln_z, &self.objectives];
        words.iter().map(|b| b.bytes()).sum::<usize>()
            + doubles.iter().map(|b| b.bytes()).sum::<usize>()
            + self.lengths.bytes()
            + self.bids.bytes()
    }
}

impl Batch<'_> {
    /// The payment network's rate of each query, about a request whose history this encodes.
    pub fn rates(
        &self,
        ws: &mut GpuWorkspace,
        task: &Task,
        queries: &[RateQuery],
    ) -> Result<Vec<Rated>, DeviceError> {
        self.encode(ws, &[&task.resolved.history])?;
        queries.iter().map(|query| self.rate(ws, task, query)).collect()
    }

    fn rate(&self, ws: &mut GpuWorkspace, task: &Task, query: &RateQuery) -> Result<Rated, DeviceError> {
        let config = &self.model.config;
        let slots = query.shown.len();
        ws.one_list.upload(self.catalog, task, query)?;
        let input = ws.one_list.input(slots);
        ws.scoring.run(&*ws.stream, self.model, self.catalog, &ws.encoder.mean, input)?;
        let mut scored = Scored::new(1, 1, slots);
        ws.stream.download(&mut ws.scoring.downloads(&mut scored))?;
        let features = ws.scoring.features(self.model, slots, 0, slots)?;
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
    }
}
