//! Full attention inside each of many short segments of rows: the lists of the reward model.
//!
//! `qkv` is [rows, 3 d]: queries, keys and values side by side, d = heads * head_size, any head size. Row r attends to
//! the rows of its own segment. Softmax and scale are those of [`super::attention`].
//!
//! Tolerance and its scale are those of [`super::attention`] in f32: this operation has no bf16 form.

use super::{Tolerance, attention};

/// The f32 bound of [`attention::TOLERANCE`] for every precision.
pub const TOLERANCE: Tolerance = Tolerance { f32: attention::TOLERANCE.f32, bf16: attention::TOLERANCE.f32 };

/// One segment in f64: `qkv` [n, 3 d], result [n, d].
pub fn reference(qkv: &[f64], heads: usize, head_size: usize) -> Vec<f64> {
    let d = heads * head_size;
    let mut out = Vec::new();
    for row in qkv.chunks(3 * d) {
        for head in 0..heads {
            let part = |part: usize| -> Vec<&[f64]> {
                let start = part * d + head * head_size;
                qkv.chunks(3 * d).map(|row| &row[start..start + head_size]).collect()
            };
            let q = &row[head * head_size..(head + 1) * head_size];
            out.extend(attention::reference(q, &part(1), &part(2)));
        }
    }
    out
}
