//! Elementwise functions: exp, sigmoid `1 / (1 + e^-x)` and SiLU `x / (1 + e^-x)`.
//!
//! Any shape. Limits hold at both infinities (`exp(-inf) = 0`, `silu(-inf) = 0`), NaN gives NaN.
//!
//! Scale of the tolerance: the result's magnitude, but no less than the smallest normal f32. Sigmoid and SiLU may give
//! 0 where `e^-x` overflows.

use super::Tolerance;

/// For f32 three units in the last place; these functions are never computed in bf16.
pub const TOLERANCE: Tolerance = Tolerance { f32: 3.6e-7, bf16: 3.6e-7 };

/// `1 / (1 + e^-x)` in f64.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `x / (1 + e^-x)` in f64; 0 for negative infinity.
pub fn silu(x: f64) -> f64 {
    if x == f64::NEG_INFINITY { 0.0 } else { x * sigmoid(x) }
}
