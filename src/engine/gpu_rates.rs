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
use crate::cuda::scoring::ScoringInput;
use crate::error::DeviceError;
use crate::model::payment::{PaymentInput, PaymentNetwork, write_input};

/// The one list of one request, in device memory.
struct OneList {
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
    fn upload(
        stream: &Arc<dyn Stream>,
        catalog: &DeviceCatalog,
        task: &Task,
        query: &RateQuery,
    ) -> Result<Self, DeviceError> {
        let shown = query.shown;
        let words = |of: &dyn Fn(usize) -> u32| -> Result<Buffer<u32>, DeviceError> {
            let words: Vec<u32> = (0..shown.len()).map(of).collect();
            Buffer::from_slice(stream, &words)
        };
        let bids: Vec<u64> = shown.iter().map(|shown| task.context.snapshot.bid(shown.item).0).collect();
        // What the rates of the other slots would be is not read.
        let mut ln_z = vec![0.0; shown.len()];
        ln_z[query.slot] = query.ln_z;
        Ok(Self {
            lengths: Buffer::from_slice(stream, &[shown.len() as i32])?,
            offsets: Buffer::from_slice(stream, &[0, 1])?,
            list_request: Buffer::from_slice(stream, &[0])?,
            scores: Buffer::from_slice(stream, &[0.0])?,
            items: words(&|slot| shown[slot].item)?,
            creatives: words(&|slot| catalog.place(shown[slot].item, shown[slot].creative))?,
            bids: Buffer::from_slice(stream, &bids)?,
            ln_z: Buffer::from_slice(stream, &ln_z)?,
            objectives: Buffer::from_slice(stream, &multipliers(&task.request.objective))?,
        })
    }

    fn input(&self) -> ScoringInput<'_> {
        ScoringInput {
            requests: 1,
            lists: Lists::new(1, self.items.len(), &self.lengths),
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
        let list = OneList::upload(&ws.stream, self.catalog, task, query)?;
        ws.scoring.run(&*ws.stream, self.model, self.catalog, &ws.encoder.mean, list.input())?;
        let scored = ws.scoring.scored(1, 1, slots)?;
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
