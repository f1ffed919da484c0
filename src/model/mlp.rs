//! Small MLPs with biases and ReLU between layers: the towers of the reward model, the payment network.

use super::blocks::Packer;
use crate::cpu::linear::{Epilogue, Linear, linear};
use crate::cpu::math::sigmoid;
use crate::cpu::{Exec, Precision};

/// Hidden widths of every tower and of the payment network; the last layer has one output.
pub const HIDDEN: [usize; 3] = [128, 32, 10];

/// An MLP with one output.
pub struct Mlp {
    layers: Vec<(Linear, Vec<f32>)>,
}

impl Mlp {
    /// Reads `{prefix}.{0..3}.weight` and `.bias`, for inputs of width `in_size`.
    pub fn load(packer: &Packer, prefix: &str, in_size: usize) -> Self {
        let widths = std::iter::once(in_size).chain(HIDDEN);
        let layers = widths
            .enumerate()
            .map(|(i, width)| {
                let weight = packer.weights.f32(&format!("{prefix}.{i}.weight"));
                let bias = packer.vector(&format!("{prefix}.{i}.bias"));
                (Linear::pack(&[&weight], width, Precision::F32), bias)
            })
            .collect();
        Self { layers }
    }

    /// sigmoid(MLP(x)) of the `m` rows of `x` [m, in], into `out` `[m]`.
    pub fn sigmoid(&self, exec: Exec, x: &[f32], m: usize, buffers: &mut MlpBuffers, out: &mut [f32]) {
        let MlpBuffers { from, to } = buffers;
        let last = self.layers.len() - 1;
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            let input = if i == 0 { x } else { &from[..m * weight.in_size()] };
            let output = if i == last { &mut out[..m] } else { &mut to[..m * weight.out_size()] };
            let epilogue = if i == last { Epilogue::Bias(bias) } else { Epilogue::BiasRelu(bias) };
            linear(exec, input, m, weight, epilogue, output);
            std::mem::swap(from, to);
        }
        out[..m].iter_mut().for_each(|y| *y = sigmoid(*y));
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|(weight, bias)| weight.bytes() + bias.len() * 4).sum()
    }
}

/// Hidden activations of an MLP.
pub struct MlpBuffers {
    from: Vec<f32>,
    to: Vec<f32>,
}

impl MlpBuffers {
    /// For up to `rows` rows.
    pub fn new(rows: usize) -> Self {
        Self { from: vec![0.0; rows * HIDDEN[0]], to: vec![0.0; rows * HIDDEN[0]] }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        (self.from.len() + self.to.len()) * 4
    }
}
