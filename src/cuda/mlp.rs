//! The MLPs of the towers and of the payment network as their kernels read them: the first layer by itself, the others
//! (128 -> 32 -> 10 -> 1) in one piece.

use std::borrow::Cow;

use crate::model::mlp::HIDDEN;
use crate::model::weights::Weights;

/// Numbers that a tail takes, padding included.
pub const TAIL: usize = 4480;

/// Weights of one MLP on the host.
#[derive(Debug)]
pub struct MlpWeights<'w> {
    /// Of the first layer, [128, in].
    pub first: Cow<'w, [f32]>,
    /// `[128]`
    pub bias: Cow<'w, [f32]>,
    /// Weights and biases of the other layers, one after the other, zeros at the end: `[TAIL]`.
    pub tail: Vec<f32>,
}

impl<'w> MlpWeights<'w> {
    /// Reads `{prefix}.{0..3}.weight` and `.bias`.
    pub fn read(weights: &'w Weights, prefix: &str) -> Self {
        let part = |layer: usize, name: &str| weights.f32(&format!("{prefix}.{layer}.{name}"));
        let parts = (1..=HIDDEN.len()).flat_map(|layer| [part(layer, "weight"), part(layer, "bias")]);
        Self { first: part(0, "weight"), bias: part(0, "bias"), tail: pack(parts) }
    }
}

/// Puts the parts of a tail side by side.
fn pack<'a>(parts: impl Iterator<Item = Cow<'a, [f32]>>) -> Vec<f32> {
    let mut tail = Vec::with_capacity(TAIL);
    parts.for_each(|part| tail.extend_from_slice(&part));
    assert!(tail.len() <= TAIL);
    tail.resize(TAIL, 0.0);
    tail
}
