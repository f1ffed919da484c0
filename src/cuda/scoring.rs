//! What lists are worth and what their ads pay, on the GPU: reward model, list choice, payment network.

use std::sync::Arc;

use super::catalog::DeviceCatalog;
use super::launch::{Buffer, Download, Stream};
use super::lists::Lists;
use super::model::DeviceModel;
use super::payment::{MisreportInputs, PaymentInputs};
use super::reward::RewardState;
use super::reward_choice::{self, Choice, Values};
use super::reward_input::{Shown, Tables};
use crate::error::DeviceError;

/// Lists of several requests in device memory.
#[derive(Debug, Clone, Copy)]
pub struct ScoringInput<'a> {
    /// Number of requests.
    pub requests: usize,
    /// The lists of all of them.
    pub lists: Lists<'a>,
    /// First list of each request, `[requests + 1]`.
    pub offsets: &'a Buffer<u32>,
    /// Request of each list.
    pub list_request: &'a Buffer<u32>,
    /// Sum of ln z of each list.
    pub scores: &'a Buffer<f64>,
    /// Item of each slot.
    pub items: &'a Buffer<u32>,
    /// Place of the creative of each slot.
    pub creatives: &'a Buffer<u32>,
    /// Bid of each slot in micros, 0 for organic items.
    pub bids: &'a Buffer<u64>,
    /// ln z of each slot's item.
    pub ln_z: &'a Buffer<f64>,
    /// Multipliers of each request's objective, [requests, 4].
    pub objectives: &'a Buffer<f64>,
}

/// Misreports of ads in the slots of lists: see [`MisreportInputs`].
#[derive(Debug, Clone, Copy)]
pub struct Misreports<'a> {
    /// Ads that misreport.
    pub groups: usize,
    /// Row of each ad, `[groups]`.
    pub rows: &'a Buffer<u32>,
    /// First misreport of each ad, `[groups + 1]`.
    pub offsets: &'a Buffer<u32>,
    /// ln z under each misreport.
    pub ln_z: &'a Buffer<f64>,
}

/// The verdict on the lists.
#[derive(Debug)]
pub struct Scored {
    /// pctr_poi, pctr_creative, pcvr, [3, rows].
    pub probabilities: Vec<f32>,
    /// Reward of each list.
    pub rewards: Vec<f64>,
    /// The winning list of each request, as an index among all lists.
    pub winner: Vec<u32>,
    /// Rates of the winning list's slots, [requests, slots].
    pub rates: Vec<f32>,
}

impl Scored {
    /// Room for the verdict on `lists` lists of `slots` slots for `requests` requests.
    pub fn new(requests: usize, lists: usize, slots: usize) -> Self {
        Self {
            probabilities: vec![0.0; 3 * lists * slots],
            rewards: vec![0.0; lists],
            winner: vec![0; requests],
            rates: vec![0.0; requests * slots],
        }
    }
}

/// Buffers and results of a pass.
#[derive(Debug)]
pub struct ScoringState {
    reward: RewardState,
    rewards: Buffer<f64>,
    winner: Buffer<u32>,
    rates: Buffer<f32>,
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
        let lists = requests * per_request;
        Ok(Self {
            reward: model.reward.state(stream, lists * slots)?,
            rewards: Buffer::new(stream, lists)?,
            winner: Buffer::new(stream, requests)?,
            rates: Buffer::new(stream, requests * slots)?,
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
        catalog: &DeviceCatalog,
        mean: &Buffer<f32>,
        input: ScoringInput,
    ) -> Result<(), DeviceError> {
        let ScoringInput { requests, lists, items, creatives, bids, .. } = input;
        let shown = Shown { items, creatives, requests: input.list_request };
        let tables = Tables {
            embed: &model.table,
            poi_codes: &catalog.item_codes,
            creative_codes: &catalog.creative_codes,
            embedding: &catalog.embeddings,
        };
        model.reward.run(stream, lists, shown, tables, mean, &mut self.reward)?;
        let values = Values {
            probabilities: &self.reward.probabilities,
            bids,
            bid_unit: model.config.bid_unit_micros,
            scores: input.scores,
            objectives: input.objectives,
            offsets: input.offsets,
        };
        let mut choice = Choice { rewards: &mut self.rewards, winner: &mut self.winner };
        reward_choice::run(stream, lists, values, requests, &mut choice)?;
        let inputs = PaymentInputs {
            winner: &self.winner,
            features: &self.reward.features,
            pctr_poi: &self.reward.probabilities,
            ln_z: input.ln_z,
            bids,
        };
        model.payment.rates(stream, lists, inputs, requests, &mut self.rates)
    }

    /// The rates of ads of the last pass's lists under misreports: what [`PaymentNetwork::misreports`] says of them.
    ///
    /// [`PaymentNetwork::misreports`]: super::payment::PaymentNetwork::misreports
    ///
    /// # Errors
    /// [`DeviceError::Failed`].
    pub fn misreports(
        &self,
        stream: &dyn Stream,
        model: &DeviceModel,
        input: ScoringInput,
        misreports: Misreports,
        rates: &mut Buffer<f32>,
    ) -> Result<(), DeviceError> {
        let inputs = MisreportInputs {
            rows: misreports.rows,
            offsets: misreports.offsets,
            ln_z: misreports.ln_z,
            features: &self.reward.features,
            pctr_poi: &self.reward.probabilities,
            bids: input.bids,
        };
        model.payment.misreports(stream, input.lists, inputs, misreports.groups, rates)
    }

    /// The copies that bring what the last pass found to `scored`.
    pub fn downloads<'h>(&self, scored: &'h mut Scored) -> [Download<'h>; 4] {
        [
            self.reward.probabilities.reading(0, &mut scored.probabilities),
            self.rewards.reading(0, &mut scored.rewards),
            self.winner.reading(0, &mut scored.winner),
            self.rates.reading(0, &mut scored.rates),
        ]
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
        self.reward.bytes() + self.rewards.bytes() + self.winner.bytes() + self.rates.bytes()
    }
}
