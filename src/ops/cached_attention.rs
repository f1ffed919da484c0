//! Attention of each row over its own past, in a cache that beams share.
//!
//! The cache is `[position][slot][heads * head_size]` and only ever grows: at each position every row writes the slot it
//! has then. Rows that descend from one another share entries, so row r reads, at position p, slot `ancestors[r, p]`;
//! nothing is copied when beams are reordered. Softmax and scale are those of [`super::attention`].
//!
//! Tolerance and its scale are those of [`super::attention`] in f32: this operation has no bf16 form.

use super::{Tolerance, attention};

/// The f32 bound of [`attention::TOLERANCE`] for every precision.
pub const TOLERANCE: Tolerance = Tolerance { f32: attention::TOLERANCE.f32, bf16: attention::TOLERANCE.f32 };

/// One row in f64: `q` [heads * head_size], `cache` keys and values, `ancestors` the row's slots, one per position.
pub fn reference(
    q: &[f64],
    cache: (&[f64], &[f64]),
    slots: usize,
    ancestors: &[u32],
    heads: usize,
) -> Vec<f64> {
    let d = q.len();
    let head_size = d / heads;
    let mut out = Vec::with_capacity(d);
    for head in 0..heads {
        let rows = |cache: &'_ [f64]| -> Vec<Vec<f64>> {
            let entry = |(position, &slot): (usize, &u32)| {
                let start = (position * slots + slot as usize) * d + head * head_size;
                cache[start..start + head_size].to_vec()
            };
            ancestors.iter().enumerate().map(entry).collect()
        };
        let (keys, values) = (rows(cache.0), rows(cache.1));
        let keys: Vec<&[f64]> = keys.iter().map(Vec::as_slice).collect();
        let values: Vec<&[f64]> = values.iter().map(Vec::as_slice).collect();
        out.extend(attention::reference(&q[head * head_size..(head + 1) * head_size], &keys, &values));
    }
    out
}
