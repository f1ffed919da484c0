//! What lists are worth and what their ads pay, on the GPU: reward model, list choice, payment network.

use std::sync::Arc;

use super::launch::{Buffer, Stream};
use super::lists::{Lists, NO_LIST};
use super::model::DeviceModel;
use super::payment::PaymentInputs;
use super::reward::RewardState;
use super::reward_choice::{self, Choice, Values};
use super::reward_input::{Shown, Tables};
use crate::error::DeviceError;
use crate::model::config::ModelConfig;

/// Lists of several requests, as the kernels read them: request i has the lists `i * per_request` and following, list l
/// the rows `l * slots` and following. Rows beyond a list's length hold zeros.
#[derive(Debug, Default)]
pub struct ListsInput {
    /// Number of requests.
    pub requests: usize,
    /// Room for lists of each.
    pub per_request: usize,
    /// Room for slots of each list.
    pub slots: usize,
    /// Filled slots of each list; -1 where there is no such list.
    pub lengths: Vec<i32>,
    /// Sum of ln z of each list.
    pub scores: Vec<f64>,
    /// Row in the item columns of each slot.
    pub items: Vec<u32>,
    /// Row in the creative columns of each slot.
    pub creatives: Vec<u32>,
    /// ln z of each slot's item.
    pub ln_z: Vec<f64>,
    /// Multipliers of each request's objective, [requests, 4].
    pub objectives: Vec<f64>,
    /// Codes of the items that are shown, [items, C_p].
    pub item_codes: Vec<u16>,
    /// Their raw embeddings, [items, d_item].
    pub embeddings: Vec<f32>,
    /// Their bids in micros, 0 for organic items.
    pub bids: Vec<u64>,
    /// Codes of the creatives that are shown, [creatives, C_c].
    pub creative_codes: Vec<u16>,
}

impl ListsInput {
    /// No lists, with room for `per_request` lists of `slots` slots for each of `requests` requests.
    pub fn new(requests: usize, per_request: usize, slots: usize) -> Self {
        let lists = requests * per_request;
        Self {
            requests,
            per_request,
            slots,
            lengths: vec![NO_LIST; lists],
            scores: vec![0.0; lists],
            items: vec![0; lists * slots],
            creatives: vec![0; lists * slots],
            ln_z: vec![0.0; lists * slots],
            ..Self::default()
        }
    }

    fn rows(&self) -> usize {
        self.items.len()
    }
}

/// The verdict on the lists.
#[derive(Debug)]
pub struct Scored {
    /// pctr_poi, pctr_creative, pcvr of each row.
    pub probabilities: [Vec<f32>; 3],
    /// Reward of each list.
    pub rewards: Vec<f64>,
    /// The winning list of each request, as an index among all lists.
    pub winner: Vec<u32>,
    /// Rates of the winning list's slots, [requests, slots].
    pub rates: Vec<f32>,
    /// 1 for each request with a reward that is not finite.
    pub reward_fault: Vec<u32>,
    /// 1 for each request with a rate that is not finite.
    pub rate_fault: Vec<u32>,
}

/// Buffers of a pass.
#[derive(Debug)]
pub struct ScoringState {
    lengths: Buffer<i32>,
    list_request: Buffer<u32>,
    scores: Buffer<f64>,
    items: Buffer<u32>,
    creatives: Buffer<u32>,
    ln_z: Buffer<f64>,
    objectives: Buffer<f64>,
    offsets: Buffer<u32>,
    item_codes: Buffer<u16>,
    embeddings: Buffer<f32>,
    bids: Buffer<u64>,
    creative_codes: Buffer<u16>,
    reward: RewardState,
    rewards: Buffer<f64>,
    winner: Buffer<u32>,
    rates: Buffer<f32>,
    reward_fault: Buffer<u32>,
    rate_fault: Buffer<u32>,
}

impl ScoringState {
    /// Room for `per_request` lists of `slots` slots for each of `requests` requests.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn new(
        stream: &Arc<dyn Stream>,
        model: &DeviceModel,
        requests: usize,
        per_request: usize,
        slots: usize,
    ) -> Result<Self, DeviceError> {
        let ModelConfig { poi_code_layers, creative_code_layers, item_embedding_size, .. } = model.config;
        let lists = requests * per_request;
        let rows = lists * slots;
        Ok(Self {
            lengths: Buffer::new(stream, lists)?,
            list_request: Buffer::new(stream, lists)?,
            scores: Buffer::new(stream, lists)?,
            items: Buffer::new(stream, rows)?,
            creatives: Buffer::new(stream, rows)?,
            ln_z: Buffer::new(stream, rows)?,
            objectives: Buffer::new(stream, requests * 4)?,
            offsets: Buffer::new(stream, requests + 1)?,
            item_codes: Buffer::new(stream, rows * poi_code_layers)?,
            embeddings: Buffer::new(stream, rows * item_embedding_size)?,
            bids: Buffer::new(stream, rows)?,
            creative_codes: Buffer::new(stream, rows * creative_code_layers)?,
            reward: model.reward.state(stream, rows)?,
            rewards: Buffer::new(stream, lists)?,
            winner: Buffer::new(stream, requests)?,
            rates: Buffer::new(stream, requests * slots)?,
            reward_fault: Buffer::new(stream, requests)?,
            rate_fault: Buffer::new(stream, requests)?,
        })
    }

    /// Scores the lists of `input`, chooses the winners and asks the payment network about them. `mean` is the mean of
    /// each request's encoder states, [requests, d].
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn run(
        &mut self,
        stream: &dyn Stream,
        model: &DeviceModel,
        mean: &Buffer<f32>,
        input: &ListsInput,
    ) -> Result<Scored, DeviceError> {
        self.upload(input)?;
        let lists = Lists::new(input.requests * input.per_request, input.slots, &self.lengths);
        let shown = Shown { items: &self.items, creatives: &self.creatives, requests: &self.list_request };
        let tables = Tables {
            embed: &model.table,
            poi_codes: &self.item_codes,
            creative_codes: &self.creative_codes,
            embedding: &self.embeddings,
        };
        model.reward.run(stream, lists, shown, tables, mean, &mut self.reward)?;
        let values = Values {
            probabilities: &self.reward.probabilities,
            items: &self.items,
            bids: &self.bids,
            bid_unit: model.config.bid_unit_micros,
            scores: &self.scores,
            objectives: &self.objectives,
            offsets: &self.offsets,
        };
        let fault = &mut self.reward_fault;
        let mut choice = Choice { rewards: &mut self.rewards, winner: &mut self.winner, fault };
        reward_choice::run(stream, lists, values, input.requests, &mut choice)?;
        let inputs = PaymentInputs {
            winner: &self.winner,
            features: &self.reward.features,
            pctr_poi: &self.reward.probabilities,
            ln_z: &self.ln_z,
            items: &self.items,
            bids: &self.bids,
        };
        let (rates, fault) = (&mut self.rates, &mut self.rate_fault);
        model.payment.rates(stream, lists, inputs, input.requests, rates, fault)?;
        self.download(input)
    }

    fn upload(&mut self, input: &ListsInput) -> Result<(), DeviceError> {
        let ListsInput { requests, per_request, .. } = *input;
        let list_request: Vec<u32> =
            (0..requests * per_request).map(|list| (list / per_request) as u32).collect();
        let offsets: Vec<u32> = (0..=requests).map(|request| (request * per_request) as u32).collect();
        self.lengths.upload(0, &input.lengths)?;
        self.list_request.upload(0, &list_request)?;
        self.scores.upload(0, &input.scores)?;
        self.items.upload(0, &input.items)?;
        self.creatives.upload(0, &input.creatives)?;
        self.ln_z.upload(0, &input.ln_z)?;
        self.objectives.upload(0, &input.objectives)?;
        self.offsets.upload(0, &offsets)?;
        self.item_codes.upload(0, &input.item_codes)?;
        self.embeddings.upload(0, &input.embeddings)?;
        self.bids.upload(0, &input.bids)?;
        self.creative_codes.upload(0, &input.creative_codes)?;
        self.reward_fault.upload(0, &vec![0; requests])?;
        self.rate_fault.upload(0, &vec![0; requests])
    }

    fn download(&self, input: &ListsInput) -> Result<Scored, DeviceError> {
        let (requests, rows) = (input.requests, input.rows());
        let mut scored = Scored {
            probabilities: std::array::from_fn(|_| vec![0.0; rows]),
            rewards: vec![0.0; requests * input.per_request],
            winner: vec![0; requests],
            rates: vec![0.0; requests * input.slots],
            reward_fault: vec![0; requests],
            rate_fault: vec![0; requests],
        };
        for (tower, probabilities) in scored.probabilities.iter_mut().enumerate() {
            self.reward.probabilities.download(tower * rows, probabilities)?;
        }
        self.rewards.download(0, &mut scored.rewards)?;
        self.winner.download(0, &mut scored.winner)?;
        self.rates.download(0, &mut scored.rates)?;
        self.reward_fault.download(0, &mut scored.reward_fault)?;
        self.rate_fault.download(0, &mut scored.rate_fault)?;
        Ok(scored)
    }

    /// Reward features of `count` slots of list `list` of the last pass, [count, d_r].
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn features(
        &self,
        model: &DeviceModel,
        slots: usize,
        list: usize,
        count: usize,
    ) -> Result<Vec<f32>, DeviceError> {
        let d_r = model.config.reward_hidden_size;
        let mut features = vec![0.0; count * d_r];
        self.reward.features.download(list * slots * d_r, &mut features)?;
        Ok(features)
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let words = [
            &self.list_request,
            &self.items,
            &self.creatives,
            &self.offsets,
            &self.winner,
            &self.reward_fault,
            &self.rate_fault,
        ];
        let doubles = [&self.scores, &self.ln_z, &self.objectives, &self.rewards];
        words.iter().map(|b| b.bytes()).sum::<usize>()
            + doubles.iter().map(|b| b.bytes()).sum::<usize>()
            + self.lengths.bytes()
            + self.item_codes.bytes()
            + self.creative_codes.bytes()
            + self.embeddings.bytes()
            + self.bids.bytes()
            + self.rates.bytes()
            + self.reward.bytes()
    }
}
