//! Rotary embedding, half-split: in each head the pair (i, i + head_size / 2) turns by `position * theta^(-2 i / head_size)`.
//!
//! With x the lower and y the upper element of a pair and a the angle: `x' = x cos a - y sin a`,
//! `y' = y cos a + x sin a`. Works in place on whole heads, any number of them in a row.
//!
//! Scale of the tolerance: `|x| + |y|` of the pair.

use super::Tolerance;

/// The angles come from f64; the rotation is never computed in bf16.
pub const TOLERANCE: Tolerance = Tolerance { f32: 2e-7, bf16: 2e-7 };

/// Turns one head in place, in f64.
pub fn reference(theta: f64, head: &mut [f64], position: usize) {
    let half = head.len() / 2;
    for i in 0..half {
        let angle = position as f64 * theta.powf(-2.0 * i as f64 / head.len() as f64);
        let (x, y) = (head[i], head[i + half]);
        head[i] = x * angle.cos() - y * angle.sin();
        head[i + half] = y * angle.cos() + x * angle.sin();
    }
}
