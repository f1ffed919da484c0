//! Products of bf16 numbers with f32 sums: AVX512-BF16 where the machine has it, else the same sums in f32.
//!
//! The hardware adds the product of the second numbers of two pairs first, then that of the first ones, each with one
//! rounding to nearest, and takes subnormal numbers for zero. A product of two bf16 numbers is exact in f32, so the
//! fallback gives the same bits wherever no subnormal number takes part.

use bytemuck::{Pod, Zeroable};

use crate::cpu::isa::Machine;

/// Two bf16 numbers, the first in the low half.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub(crate) struct Pair(u32);

impl Pair {
    /// Rounds both numbers to the nearest bf16, ties to even; NaN stays NaN.
    #[inline(always)]
    pub(crate) fn new(first: f32, second: f32) -> Self {
        Self(round(first) >> 16 | round(second) & 0xffff_0000)
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
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    if x.is_nan() { bits | 0x0040_0000 } else { rounded }
}

/// Rounds a row to pairs; a last number without a partner gets a zero.
#[inline(always)]
pub(crate) fn convert<M: Machine>(row: &[f32], to: &mut [Pair]) {
    let (pairs, rest) = row.as_chunks::<2>();
    let (to, last) = to[..row.len().div_ceil(2)].split_at_mut(pairs.len());
    for (to, [first, second]) in to.iter_mut().zip(pairs) {
        *to = Pair::new(*first, *second);
    }
    if let ([last], [first]) = (last, rest) {
        *last = Pair::new(*first, 0.0);
    }
}

/// `sums[r][c] += sum over k of a[r * lda + k] . b[k * ldb + c]`, in order of k.
#[inline(always)]
pub(crate) fn accumulate<M: Machine, const R: usize, const C: usize>(
    a: &[Pair],
    lda: usize,
    b: &[Pair],
    ldb: usize,
    depth: usize,
    sums: &mut [[f32; C]; R],
) {
    #[cfg(target_arch = "x86_64")]
    if M::BF16 && C == 32 {
        // SAFETY: `M::BF16` code runs only where AVX512-BF16 was detected.
        return unsafe { hardware(a, lda, b, ldb, depth, sums) };
    }
    let rows: [&[Pair]; R] = std::array::from_fn(|r| &a[r * lda..r * lda + depth]);
    let b = &b[..depth.saturating_sub(1) * ldb + C];
    let mut registers = *sums;
    for k in 0..depth {
        let b: &[Pair; C] = b[k * ldb..k * ldb + C].try_into().expect("C columns");
        for r in 0..R {
            let a = rows[r][k];
            for c in 0..C {
                registers[r][c] = a.second().mul_add(b[c].second(), registers[r][c]);
                registers[r][c] = a.first().mul_add(b[c].first(), registers[r][c]);
            }
        }
    }
    *sums = registers;
}

/// [`accumulate`] for 32 columns in two registers a row.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn hardware<const R: usize, const C: usize>(
    a: &[Pair],
    lda: usize,
    b: &[Pair],
    ldb: usize,
    depth: usize,
    sums: &mut [[f32; C]; R],
) {
    use std::arch::x86_64::*;
    let rows: [&[Pair]; R] = std::array::from_fn(|r| &a[r * lda..r * lda + depth]);
    let b = &b[..depth.saturating_sub(1) * ldb + C];
    let line = |pairs: &[Pair]| {
        let pairs: &[Pair; 16] = pairs.try_into().expect("16 pairs");
        // SAFETY: 64 readable bytes, at any alignment.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(pairs.as_ptr().cast())) }
    };
    let mut registers = [[_mm512_setzero_ps(); 2]; R];
    for (register, sums) in registers.iter_mut().zip(&*sums) {
        // SAFETY: each of the two reads 16 of the row's 32 numbers.
        *register = unsafe { [_mm512_loadu_ps(sums[..16].as_ptr()), _mm512_loadu_ps(sums[16..].as_ptr())] };
    }
    for k in 0..depth {
        let b = &b[k * ldb..k * ldb + 32];
        let b = [line(&b[..16]), line(&b[16..])];
        for r in 0..R {
            // SAFETY: both types are 512 bits without invalid values.
            let a =
                unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(rows[r][k].0 as i32)) };
            registers[r][0] = _mm512_dpbf16_ps(registers[r][0], a, b[0]);
            registers[r][1] = _mm512_dpbf16_ps(registers[r][1], a, b[1]);
        }
    }
    for (register, sums) in registers.iter().zip(sums) {
        // SAFETY: each of the two writes 16 of the row's 32 numbers.
        unsafe {
            _mm512_storeu_ps(sums[..16].as_mut_ptr(), register[0]);
            _mm512_storeu_ps(sums[16..].as_mut_ptr(), register[1]);
        }
    }
}
