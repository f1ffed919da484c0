//! Rates of the payment network under misreports on the GPU, for audits: all of a request's at once.

use std::sync::Arc;

use super::counterfactual::{RateQuery, Rated};
use super::gpu_batch::Batch;
use super::gpu_workspace::GpuWorkspace;
use super::task::Task;
use crate::cuda::catalog::DeviceCatalog;
use crate::cuda::launch::{Buffer, Stream};
use crate::cuda::lists::Lists;
use crate::cuda::reward_choice::multipliers;
use crate::cuda::scoring::{Misreports, ScoringInput};
use crate::error::DeviceError;
use crate::model::payment::{PaymentInput, PaymentNetwork, write_input};
use crate::model::reward::Shown;

/// Most queries of a launch.
pub(super) const MOST_QUERIES: usize = 256;

/// What some queries are about.
#[derive(Debug, PartialEq)]
struct Asked<'q> {
    /// The lists, each once.
    lists: Vec<&'q [Shown]>,
    /// The list of each query.
    list_of: Vec<usize>,
    /// Slots of the longest list.
    slots: usize,
    /// Row of each group of queries that follow one another and are of one slot.
    rows: Vec<u32>,
    /// First query of each group, and the number of queries.
    offsets: Vec<u32>,
}

impl<'q> Asked<'q> {
    fn of(queries: &[RateQuery<'q>]) -> Self {
        let (mut lists, mut list_of) = (Vec::<&[Shown]>::new(), Vec::new());
        for query in queries {
            let known = lists.iter().position(|list| std::ptr::eq(*list, query.shown));
            list_of.push(known.unwrap_or(lists.len()));
            if known.is_none() {
                lists.push(query.shown);
            }
        }
        let slots = lists.iter().map(|list| list.len()).max().unwrap_or(0);
        let (mut rows, mut offsets) = (Vec::new(), Vec::new());
        for (index, (query, list)) in queries.iter().zip(&list_of).enumerate() {
            let row = (list * slots + query.slot) as u32;
            if rows.last() != Some(&row) {
                rows.push(row);
                offsets.push(index as u32);
            }
        }
        offsets.push(queries.len() as u32);
        Self { lists, list_of, slots, rows, offsets }
    }

    /// What `value` says of each slot of each list, a row of `slots` for each list.
    fn in_rows<T: Copy + Default>(&self, value: impl Fn(&Shown) -> T) -> Vec<T> {
        let mut rows = vec![T::default(); self.lists.len() * self.slots];
        for (list, row) in self.lists.iter().zip(rows.chunks_mut(self.slots)) {
            row.iter_mut().zip(*list).for_each(|(to, shown)| *to = value(shown));
        }
        rows
    }
}

/// Room for the lists of one request and for queries about them, in device memory.
pub(super) struct RateLists {
    lengths: Buffer<i32>,
    offsets: Buffer<u32>,
    list_request: Buffer<u32>,
    scores: Buffer<f64>,
    items: Buffer<u32>,
    creatives: Buffer<u32>,
    bids: Buffer<u64>,
    /// Zeros: which list would win, and at what rates, is not read.
    ln_z: Buffer<f64>,
    objectives: Buffer<f64>,
    rows: Buffer<u32>,
    groups: Buffer<u32>,
    misreported: Buffer<f64>,
}

impl RateLists {
    /// Up to `lists` lists of up to `slots` slots.
    pub fn new(stream: &Arc<dyn Stream>, lists: usize, slots: usize) -> Result<Self, DeviceError> {
        let lists = lists.min(MOST_QUERIES);
        Ok(Self {
            lengths: Buffer::new(stream, lists)?,
            offsets: Buffer::new(stream, 2)?,
            list_request: Buffer::from_slice(stream, &vec![0; lists])?,
            scores: Buffer::from_slice(stream, &vec![0.0; lists])?,
            items: Buffer::new(stream, lists * slots)?,
            creatives: Buffer::new(stream, lists * slots)?,
            bids: Buffer::new(stream, lists * slots)?,
            ln_z: Buffer::from_slice(stream, &vec![0.0; lists * slots])?,
            objectives: Buffer::new(stream, 4)?,
            rows: Buffer::new(stream, MOST_QUERIES)?,
            groups: Buffer::new(stream, MOST_QUERIES + 1)?,
            misreported: Buffer::new(stream, MOST_QUERIES)?,
        })
    }

    fn upload(
        &mut self,
        catalog: &DeviceCatalog,
        task: &Task,
        asked: &Asked,
        queries: &[RateQuery],
    ) -> Result<(), DeviceError> {
        let lengths: Vec<i32> = asked.lists.iter().map(|list| list.len() as i32).collect();
        let ln_z: Vec<f64> = queries.iter().map(|query| query.ln_z).collect();
        self.lengths.upload(0, &lengths)?;
        self.offsets.upload(0, &[0, asked.lists.len() as u32])?;
        self.items.upload(0, &asked.in_rows(|shown| shown.item))?;
        self.creatives.upload(0, &asked.in_rows(|shown| catalog.place(shown.item, shown.creative)))?;
        self.bids.upload(0, &asked.in_rows(|shown| task.context.snapshot.bid(shown.item).0))?;
        self.objectives.upload(0, &multipliers(&task.request.objective))?;
        self.rows.upload(0, &asked.rows)?;
        self.groups.upload(0, &asked.offsets)?;
        self.misreported.upload(0, &ln_z)
    }

    fn lists(&self, asked: &Asked) -> ScoringInput<'_> {
        ScoringInput {
            requests: 1,
            lists: Lists::new(asked.lists.len(), asked.slots, &self.lengths),
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

    fn misreports(&self, asked: &Asked) -> Misreports<'_> {
        Misreports {
            groups: asked.rows.len(),
            rows: &self.rows,
            offsets: &self.groups,
            ln_z: &self.misreported,
        }
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let words =
            [&self.offsets, &self.list_request, &self.items, &self.creatives, &self.rows, &self.groups];
        let doubles = [&self.scores, &self.ln_z, &self.objectives, &self.misreported];
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
        let mut rated = Vec::with_capacity(queries.len());
        for queries in queries.chunks(MOST_QUERIES) {
            rated.extend(self.rate(ws, task, queries)?);
        }
        Ok(rated)
    }

    /// The rates of up to [`MOST_QUERIES`] queries: one pass over their lists, one launch, one wait.
    fn rate(
        &self,
        ws: &mut GpuWorkspace,
        task: &Task,
        queries: &[RateQuery],
    ) -> Result<Vec<Rated>, DeviceError> {
        let asked = Asked::of(queries);
        ws.rate_lists.upload(self.catalog, task, &asked, queries)?;
        let lists = ws.rate_lists.lists(&asked);
        ws.scoring.run(&*ws.stream, self.model, self.catalog, &ws.encoder.mean, lists)?;
        let misreports = ws.rate_lists.misreports(&asked);
        ws.scoring.misreports(&*ws.stream, self.model, lists, misreports, &mut ws.rates)?;
        let mut rates = vec![0.0; queries.len()];
        ws.stream.download(&mut [ws.rates.reading(0, &mut rates)])?;
        let inputs = match task.context.report.rate_inputs {
            true => self.rate_inputs(ws, &asked, queries)?,
            false => vec![Vec::new(); queries.len()],
        };
        let rated = rates.into_iter().zip(inputs);
        Ok(rated.map(|(rate, input)| Rated { rate: f64::from(rate), input }).collect())
    }

    /// What the network read for each query.
    fn rate_inputs(
        &self,
        ws: &GpuWorkspace,
        asked: &Asked,
        queries: &[RateQuery],
    ) -> Result<Vec<Vec<f32>>, DeviceError> {
        let config = &self.model.config;
        let d_r = config.reward_hidden_size;
        let features = ws.scoring.features(self.model, asked.slots, 0, asked.lists.len() * asked.slots)?;
        let input = |(query, list): (&RateQuery, &usize)| {
            let rows = features[list * asked.slots * d_r..].chunks_exact(d_r).zip(query.values);
            let read: Vec<PaymentInput> = rows
                .map(|(features, value)| PaymentInput {
                    features,
                    bid: value.bid,
                    z_pctr: libm::exp(query.ln_z) * value.pctr_poi,
                })
                .collect();
            let mut input = vec![0.0; PaymentNetwork::input_size(config)];
            write_input(&read, query.slot, &mut input);
            input
        };
        Ok(queries.iter().zip(&asked.list_of).map(input).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_asked_about_once_and_a_slot_in_one_group() {
        let shown = |item| Shown { item, creative: 0 };
        let (long, short) = (vec![shown(1), shown(2), shown(3)], vec![shown(4)]);
        // Equal lists are not one list: what is theirs is told by where they stand.
        let twin = short.clone();
        let query = |list, slot| RateQuery { shown: list, values: &[], slot, ln_z: 0.0 };
        let queries = [
            query(&short[..], 0),
            query(&short, 0),
            query(&long, 2),
            query(&short, 0),
            query(&twin, 0),
            query(&twin, 0),
            query(&long, 0),
        ];
        let asked = Asked::of(&queries);
        assert_eq!(asked.list_of, [0, 0, 1, 0, 2, 2, 1]);
        assert_eq!(asked.slots, 3);
        assert_eq!(asked.rows, [0, 5, 0, 6, 3]);
        assert_eq!(asked.offsets, [0, 2, 3, 4, 6, 7]);
        assert_eq!(asked.in_rows(|shown| shown.item), [4, 0, 0, 1, 2, 3, 4, 0, 0]);
    }
}
