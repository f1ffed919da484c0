//! exp, sigmoid and SiLU by polynomials: the same bits on every instruction set.
//!
//! The functions of one number are fast where they are inlined into a kernel; elsewhere each fused multiply-add may be a
//! call. For more than a few numbers take the functions of slices.

use crate::cpu::Exec;
use crate::cpu::isa::{Kernel, Machine};
use crate::cpu::lanes::LANES;

/// 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;

/// e^x, within 2 units in the last place; infinity above the range, through the subnormal numbers to 0 below it, NaN
/// for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Beyond these bounds the result no longer changes; between them the exponent below fits.
    let high = if x > 90.0 { 90.0 } else { x };
    let x = if high < -105.0 { -105.0 } else { high };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, the first short enough for n times it to be exact.
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-355.0 / 512.0, x));
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    p = p.mul_add(r * r, r) + 1.0;
    // 2^n as two factors: n may lie beyond the exponents of normal numbers.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// 2^x for x <= 0, within 2 units in the last place; 0 below -126, NaN for NaN. The exponential of every softmax.
#[inline(always)]
pub(crate) fn exp2_nonpositive(x: f32) -> f32 {
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let mut p = 1.535_336_2e-4f32;
    p = p.mul_add(r, 1.339_887_4e-3);
    p = p.mul_add(r, 9.618_437e-3);
    p = p.mul_add(r, 5.550_332_5e-2);
    p = p.mul_add(r, 2.402_264_8e-1);
    p = p.mul_add(r, 6.931_472e-1);
    p = p.mul_add(r, 1.0);
    // The integer part sits in the low bits of `shifted`: moved up it is an exponent.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < -126.0 { 0.0 } else { p * scale }
}

/// 1 / (1 + e^-x), within 3 units in the last place; 0 for negative infinity, 1 for infinity.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// x / (1 + e^-x), within 3 units in the last place (0 below -88.7); 0 for negative infinity.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    let bounded = if x < -1e4 { -1e4 } else { x };
    bounded / (1.0 + exp(-bounded))
}

struct Map<'a, F>(&'a mut [f32], F);

impl<F: Fn(f32) -> f32> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let (lines, rest) = self.0.as_chunks_mut::<LANES>();
        for line in lines {
            for x in line {
                *x = self.1(*x);
            }
        }
        for x in rest {
            *x = self.1(*x);
        }
    }
}

/// [`exp`] of each element, in place, on the calling thread.
pub fn exp_in_place(exec: Exec, x: &mut [f32]) {
    exec.isa.run(Map(x, exp));
}

/// [`sigmoid`] of each element, in place, on the calling thread.
pub fn sigmoid_in_place(exec: Exec, x: &mut [f32]) {
    exec.isa.run(Map(x, sigmoid));
}

/// [`silu`] of each element, in place, on the calling thread.
pub fn silu_in_place(exec: Exec, x: &mut [f32]) {
    exec.isa.run(Map(x, silu));
}
