//! Linear: `y = x W^T`, with an epilogue.
//!
//! `x` is [m, in], `W` [out, in], `y` [m, out], `y[r, o] = sum over k of x[r, k] W[o, k]`, then one of: stored, added to
//! what `y` holds, plus a bias `[out]`, that and `max(., 0)`, or, for two matrices gate and up,
//! `silu(x gate^T) * (x up^T)`.
//!
//! Scale of the tolerance: `sum over k of |x[r, k] W[o, k]|`, for the error of the sum itself.

use super::Tolerance;

/// The bf16 bound is that of rounding both operands, 2 * 2^-8.
pub const TOLERANCE: Tolerance = Tolerance { f32: 2e-6, bf16: 8e-3 };

/// `x W^T` [m, out] in f64.
pub fn reference(x: &[f64], m: usize, w: &[f64], in_size: usize) -> Vec<f64> {
    let out_size = w.len() / in_size;
    let mut y = vec![0.0; m * out_size];
    for row in 0..m {
        for out in 0..out_size {
            for k in 0..in_size {
                y[row * out_size + out] += x[row * in_size + k] * w[out * in_size + k];
            }
        }
    }
    y
}
