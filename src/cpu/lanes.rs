//! Sixteen numbers side by side: the fixed layout of every horizontal reduction.
//!
//! Element i of a row goes to lane i mod 16, and the lanes are joined by one fixed tree. Neither depends on the
//! instruction set, so neither do the bits.

/// Number of lanes.
pub(crate) const LANES: usize = 16;

/// Sum of the lanes: halves onto halves.
#[inline(always)]
pub(crate) fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Largest lane; NaN lanes are passed over.
#[inline(always)]
pub(crate) fn max(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = larger(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The larger of two, `b` where they are not comparable; one instruction everywhere.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The product of two rows of equal length, summed lane by lane: one fused multiply-add per element.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a_lines, a_rest) = a.as_chunks::<LANES>();
    let (b_lines, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_lines.iter().zip(b_lines) {
        for l in 0..LANES {
            lanes[l] = a[l].mul_add(b[l], lanes[l]);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane = a.mul_add(*b, *lane);
    }
    sum(lanes)
}
