//! Root-mean-square norm: `y = x * rsqrt(mean(x^2) + eps) * weight`, row by row.
//!
//! `x` and `y` are [m, d], `weight` `[d]`; the mean is over a row.
//!
//! Scale of the tolerance: the result's magnitude.

use super::Tolerance;

/// The norm is never computed in bf16.
pub const TOLERANCE: Tolerance = Tolerance { f32: 2e-6, bf16: 2e-6 };

/// The norm of each row [m, d] in f64.
pub fn reference(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks(weight.len()) {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        for (x, weight) in row.iter().zip(weight) {
            y.push(x / (mean + eps).sqrt() * weight);
        }
    }
    y
}
