//! What the GPU found for a batch, brought back to the host.

use super::gpu_stages::BatchShape;
use super::gpu_workspace::GpuWorkspace;
use super::task::{Generated, Task, is_finite, slot_values};
use crate::catalog::ItemKind;
use crate::cuda::catalog::DeviceCatalog;
use crate::cuda::scoring::Scored;
use crate::decode::search::CandidateList;
use crate::error::{DeviceError, RequestError, RequestErrorKind};
use crate::model::reward::Shown;

/// The lists of a batch, and all that the device says of them. Request i has the lists `i * per_request` and following,
/// list l the rows `l * slots` and following.
pub(super) struct Found {
    /// Of each request.
    lists: Vec<Result<Vec<CandidateList>, RequestError>>,
    /// Mean of each request's encoder states, [requests, d].
    means: Vec<f32>,
    /// Place in the catalog of each slot's creative.
    creatives: Vec<u32>,
    /// Not 0 for requests of which the logit of a creative's code is not finite.
    faults: Vec<u32>,
    scored: Scored,
    per_request: usize,
    slots: usize,
}

impl Found {
    /// Waits for the batch, and reads.
    pub fn read(ws: &GpuWorkspace, d: usize, shape: BatchShape) -> Result<Self, DeviceError> {
        let BatchShape { beams, slots } = shape;
        let (requests, lists) = (beams.requests, beams.requests * beams.beams);
        let mut searched = ws.search.results();
        let mut scored = Scored::new(requests, lists, slots);
        let (mut means, mut creatives, mut faults) =
            (vec![0.0; requests * d], vec![0; lists * slots], vec![0; requests]);
        let mut copies = vec![
            ws.encoder.mean.reading(0, &mut means),
            ws.slots.creative.reading(0, &mut creatives),
            ws.slots.fault.reading(0, &mut faults),
        ];
        copies.extend(searched.downloads(&ws.search));
        copies.extend(ws.scoring.downloads(&mut scored));
        ws.stream.download(&mut copies)?;
        let lists = searched.lists(&ws.search);
        Ok(Self { lists, means, creatives, faults, scored, per_request: beams.beams, slots })
    }

    /// What was found for each of `tasks`.
    pub fn generated<'t>(
        mut self,
        tasks: impl Iterator<Item = &'t Task<'t>>,
        catalog: &DeviceCatalog,
    ) -> Vec<Result<Generated, RequestError>> {
        let lists = std::mem::take(&mut self.lists);
        let requests = tasks.zip(lists).enumerate();
        requests.map(|(request, (task, lists))| self.of(task, catalog, request, lists)).collect()
    }

    fn of(
        &self,
        task: &Task,
        catalog: &DeviceCatalog,
        request: usize,
        lists: Result<Vec<CandidateList>, RequestError>,
    ) -> Result<Generated, RequestError> {
        let d = task.context.config.hidden_size;
        let mean = &self.means[request * d..(request + 1) * d];
        // Where a state holds an infinity or no number, the mean does too.
        is_finite("history", "the encoder's output", mean.iter().copied().map(f64::from))?;
        let lists = lists?;
        if self.faults[request] != 0 {
            let message = "the logit of a creative code is not finite";
            return Err(RequestError::new(RequestErrorKind::NotFinite, "history", message));
        }
        let first = request * self.per_request;
        let rewards = self.scored.rewards[first..first + lists.len()].to_vec();
        is_finite("objective", "the reward of a list", rewards.iter().copied())?;
        let shown: Vec<Vec<Shown>> =
            lists.iter().zip(first..).map(|(list, index)| self.shown(catalog, index, list)).collect();
        let winner = self.scored.winner[request] as usize - first;
        let rates = &self.scored.rates[request * self.slots..][..shown[winner].len()];
        is_finite("payment", "the payment network's rate", rates.iter().copied().map(f64::from))?;
        let rate = |(shown, &rate): (&Shown, &f32)| match task.context.snapshot.kind(shown.item) {
            ItemKind::Ad => f64::from(rate),
            ItemKind::Organic => 0.0,
        };
        let rates = shown[winner].iter().zip(rates).map(rate).collect();
        let rows = self.creatives.len();
        let probabilities =
            [0, 1, 2].map(|tower| &self.scored.probabilities[tower * rows..(tower + 1) * rows]);
        let values = shown
            .iter()
            .zip(first..)
            .map(|(shown, list)| {
                let row = list * self.slots;
                slot_values(task.context, shown, probabilities, row..row + shown.len())
            })
            .collect();
        Ok(Generated { lists, shown, values, rewards, winner, rates, logits: None, tensors: None })
    }

    /// Items and creatives of a list.
    fn shown(&self, catalog: &DeviceCatalog, index: usize, list: &CandidateList) -> Vec<Shown> {
        let places = &self.creatives[index * self.slots..];
        let shown = |(item, &place): (u32, &u32)| Shown { item, creative: catalog.row(place) };
        list.items.iter().map(|chosen| chosen.item).zip(places).map(shown).collect()
    }
}
