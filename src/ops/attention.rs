//! Attention of many rows over one request's keys, without a mask.
//!
//! For each head: `out[r] = sum over i of w[r, i] v[i]`, `w[r, .] = softmax over i of (q[r] . k[i] / sqrt(head_size))`.
//! Queries are rows of a wider matrix, as are keys and values; `out` is [m, heads * head_size], head after head. It
//! serves the encoder, whose rows look at one another, and the beams of a decoder, which look at the encoder's rows.
//! Without keys the result is zeros.
//!
//! Scale of the tolerance: the largest |v| of the head, for scores up to 16 in magnitude.

use super::Tolerance;

/// In bf16 queries, keys, values and weights are rounded; maximum, exponentials and sums are f32.
pub const TOLERANCE: Tolerance = Tolerance { f32: 4e-6, bf16: 3e-2 };

/// One row and head in f64: `q` `[head_size]`, `keys` and `values` one slice of head_size per key.
pub fn reference(q: &[f64], keys: &[&[f64]], values: &[&[f64]]) -> Vec<f64> {
    let scale = 1.0 / (q.len() as f64).sqrt();
    let score = |key: &&[f64]| q.iter().zip(*key).map(|(q, k)| q * k).sum::<f64>() * scale;
    let scores: Vec<f64> = keys.iter().map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0; q.len()];
    for (weight, value) in weights.iter().zip(values) {
        for (out, value) in out.iter_mut().zip(*value) {
            *out += weight / total * value;
        }
    }
    out
}
