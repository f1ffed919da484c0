//! Numbers in bf16 and their bounds.

use half::bf16;

/// How far an f32 sum of products of bf16 numbers may be from the exact one, as a share of the sum of the products'
/// magnitudes. Tensor cores truncate where they add, so this is wider than [`bidslate::ops::linear::TOLERANCE`].
pub const PRODUCT_TOLERANCE: f64 = 1e-5;

/// Largest share of a number that rounding it to bf16 takes or adds.
pub const BF16_ROUNDING: f64 = 1.0 / 256.0;

pub fn narrow(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|&x| bf16::from_f32(x)).collect()
}

pub fn plain(x: &[bf16]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

pub fn wide_bf16(x: &[bf16]) -> Vec<f64> {
    x.iter().map(|x| x.to_f64()).collect()
}

pub fn absolute(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x.abs()).collect()
}
