//! The payment network (Eq. 25-26): which share of its bid an ad pays.

use std::ops::Range;

use super::blocks::Packer;
use super::config::ModelConfig;
use super::mlp::{Mlp, MlpBuffers};
use crate::cpu::Exec;

/// The payment network's weights. Always f32.
pub struct PaymentNetwork {
    mlp: Mlp,
    list_len: usize,
    d_r: usize,
}

/// Buffers and results of the payment network.
pub struct PaymentState {
    input: Vec<f32>,
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
        let (list_len, d_r) = (config.list_len, config.reward_hidden_size);
        Self { mlp: Mlp::load(packer, "payment.mlp", Self::input_size(config)), list_len, d_r }
    }

    fn input_size(config: &ModelConfig) -> usize {
        config.reward_hidden_size + config.list_len
    }

    /// Room for a list.
    pub fn state(config: &ModelConfig) -> PaymentState {
        let rows = config.list_len;
        PaymentState {
            input: vec![0.0; rows * Self::input_size(config)],
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
        let width = self.d_r + self.list_len;
        let m = wanted.len();
        for (i, row) in wanted.zip(state.input.chunks_exact_mut(width)) {
            row.fill(0.0);
            row[..self.d_r].copy_from_slice(slots[i].features);
            let others = slots.iter().enumerate().filter(|(m, _)| *m != i);
            for ((_, other), x) in others.zip(&mut row[self.d_r..]) {
                *x = libm::log1p(other.bid) as f32;
            }
            row[width - 1] = slots[i].z_pctr as f32;
        }
        self.mlp.sigmoid(exec, &state.input[..m * width], m, &mut state.mlp, &mut state.rates);
        &state.rates[..m]
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.mlp.bytes()
    }
}

impl PaymentState {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        (self.input.len() + self.rates.len()) * 4 + self.mlp.bytes()
    }
}
