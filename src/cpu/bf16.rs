//! Pairs of bf16 numbers, and their products with f32 sums where the machine has no instruction for them.

use bytemuck::{Pod, Zeroable};

/// Two bf16 numbers, the first in the low half.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub(crate) struct Pair(pub(super) u32);

impl Pair {
    /// Rounds both numbers to the nearest bf16, ties to even; NaN stays NaN.
    #[inline(always)]
    pub(crate) fn new(first: f32, second: f32) -> Self {
        Self(round_bits(first) >> 16 | round_bits(second) & 0xffff_0000)
    }

    #[inline(always)]
    fn first(self) -> f32 {
        f32::from_bits(self.0 << 16)
    }

    #[inline(always)]
    fn second(self) -> f32 {
        f32::from_bits(self.0 & 0xffff_0000)
    }
}

/// The bits of `x`, rounded so that the upper half is the nearest bf16.
#[inline(always)]
fn round_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    if x.is_nan() { bits | 0x0040_0000 } else { rounded }
}

/// Rounds a row to pairs; a last number without a partner gets a zero.
#[inline(always)]
pub(crate) fn round(row: &[f32], to: &mut [Pair]) {
    let (pairs, rest) = row.as_chunks::<2>();
    let (to, last) = to[..row.len().div_ceil(2)].split_at_mut(pairs.len());
    for (to, [first, second]) in to.iter_mut().zip(pairs) {
        *to = Pair::new(*first, *second);
    }
    if let ([last], [first]) = (last, rest) {
        *last = Pair::new(*first, 0.0);
    }
}

/// `sum` and the products of the second and of the first numbers, added in this order, each with one rounding.
///
/// The hardware's instruction does the same, except that it takes subnormal numbers for zero; and a product of two bf16
/// numbers is exact in f32. So the bits agree wherever no subnormal number takes part.
#[inline(always)]
pub(crate) fn multiply_add(a: Pair, b: Pair, sum: f32) -> f32 {
    a.first().mul_add(b.first(), a.second().mul_add(b.second(), sum))
}
