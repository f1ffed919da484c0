//! The payment network (Eq. 25-26): which share of its bid an ad pays.

use std::ops::Range;

use super::blocks::Packer;
use super::config::ModelConfig;
use super::mlp::{Mlp, MlpBuffers};
use crate::cpu::Exec;

/// The payment network's weights. Always f32.
pub struct PaymentNetwork {
    mlp: Mlp,
}

/// Buffers and results of the payment network.
pub struct PaymentState {
    /// [K, width]
    input: Vec<f32>,
    width: usize,
    rates: Vec<f32>,
    mlp: MlpBuffers,
}

/// What the network reads of one slot.
#[derive(Debug, Clone, Copy)]
pub struct PaymentInput<'a> {
    /// Slot feature f of the reward model, `[d_r]`.
    pub features: &'a [f32],
    /// Bid in bid units; 0 for organic items.
    pub bid: f64,
    /// z times pctr_poi.
    pub z_pctr: f64,
}

impl PaymentNetwork {
    /// Reads `payment.mlp.*`.
    pub fn load(packer: &Packer, config: &ModelConfig) -> Self {
        Self { mlp: Mlp::load(packer, "payment.mlp", Self::input_size(config)) }
    }

    /// Width of the input, d_r + K.
    pub fn input_size(config: &ModelConfig) -> usize {
        config.reward_hidden_size + config.list_len
    }

    /// Room for a list.
    pub fn state(config: &ModelConfig) -> PaymentState {
        let rows = config.list_len;
        let width = Self::input_size(config);
        PaymentState {
            input: vec![0.0; rows * width],
            width,
            rates: vec![0.0; rows],
            mlp: MlpBuffers::new(rows),
        }
    }

    /// The rates, in (0, 1), of the slots `wanted` of a list of up to K filled slots. A slot sees ln(1 + bid) of the
    /// other K - 1 slots in their order, empty and organic ones 0.
    pub fn rates<'s>(
        &self,
        exec: Exec,
        slots: &[PaymentInput],
        wanted: Range<usize>,
        state: &'s mut PaymentState,
    ) -> &'s [f32] {
        let width = state.width;
        let m = wanted.len();
        for (slot, row) in wanted.zip(state.input.chunks_exact_mut(width)) {
            write_input(slots, slot, row);
        }
        self.mlp.sigmoid(exec, &state.input[..m * width], m, &mut state.mlp, &mut state.rates);
        &state.rates[..m]
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.mlp.bytes()
    }
}

/// Writes what the network reads of one slot of a list into `row`, [d_r + K]: its feature f, ln(1 + bid) of the other
/// K - 1 slots, z times pctr_poi (Eq. 25).
pub fn write_input(slots: &[PaymentInput], slot: usize, row: &mut [f32]) {
    let PaymentInput { features, z_pctr, .. } = slots[slot];
    row.fill(0.0);
    row[..features.len()].copy_from_slice(features);
    let others = slots.iter().enumerate().filter(|(other, _)| *other != slot);
    for ((_, other), x) in others.zip(&mut row[features.len()..]) {
        *x = libm::log1p(other.bid) as f32;
    }
    if let Some(last) = row.last_mut() {
        *last = z_pctr as f32;
    }
}

impl PaymentState {
    /// What the network read of the first slot wanted, [d_r + K].
    pub fn first_input(&self) -> &[f32] {
        &self.input[..self.width]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        (self.input.len() + self.rates.len()) * 4 + self.mlp.bytes()
    }
}
