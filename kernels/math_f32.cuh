// exp, sigmoid and SiLU in f32, bit for bit those of the CPU (src/cpu/math.rs). Every fused
// multiply-add is written out, and the intrinsics keep the compiler from adding others.
#pragma once

#include "ptx.cuh"

// 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits.
constexpr float ROUND_F32 = 12582912.f;

PTX_FN float power_of_two(int n) { return __uint_as_float(((unsigned)n + 127u) << 23); }

// e^x within 2 units in the last place, with the limits at both infinities; NaN for NaN.
PTX_FN float exp_f32(float x) {
  // Beyond these bounds the result no longer changes; between them the exponent below fits.
  x = x > 90.f ? 90.f : x;
  x = x < -105.f ? -105.f : x;
  float shifted = fmaf(x, 1.4426950408889634f, ROUND_F32);
  float n = __fsub_rn(shifted, ROUND_F32);
  // ln 2 in two parts, the first short enough for n times it to be exact.
  float r = fmaf(n, 2.1219444e-4f, fmaf(n, -355.f / 512.f, x));
  float p = 1.9875691e-4f;
  p = fmaf(p, r, 1.3981999e-3f);
  p = fmaf(p, r, 8.333452e-3f);
  p = fmaf(p, r, 4.1665796e-2f);
  p = fmaf(p, r, 1.6666665e-1f);
  p = fmaf(p, r, 0.5f);
  p = __fadd_rn(fmaf(p, __fmul_rn(r, r), r), 1.f);
  // 2^n as two factors: n may lie beyond the exponents of normal numbers. A NaN is one of any bits.
  unsigned exponent = __float_as_uint(shifted) - __float_as_uint(ROUND_F32);
  int half = (int)exponent >> 1;
  return __fmul_rn(__fmul_rn(p, power_of_two(half)), power_of_two((int)(exponent - half)));
}

// 2^x for x <= 0 within 2 units in the last place; 0 below -126, NaN for NaN. For softmax.
PTX_FN float exp2_nonpositive(float x) {
  float shifted = __fadd_rn(x, ROUND_F32);
  float r = __fsub_rn(x, __fsub_rn(shifted, ROUND_F32));
  float p = 1.5353362e-4f;
  p = fmaf(p, r, 1.3398874e-3f);
  p = fmaf(p, r, 9.618437e-3f);
  p = fmaf(p, r, 5.5503325e-2f);
  p = fmaf(p, r, 2.4022648e-1f);
  p = fmaf(p, r, 6.931472e-1f);
  p = fmaf(p, r, 1.f);
  // The integer part sits in the low bits of `shifted`: moved up it is an exponent.
  unsigned bits = (__float_as_uint(shifted) << 23) + 0x3f800000u;
  float scaled = __fmul_rn(p, __uint_as_float(bits));
  return x < -126.f ? 0.f : scaled;
}

// 1 / (1 + e^-x); 0 for negative infinity, 1 for infinity.
PTX_FN float sigmoid_f32(float x) { return __fdiv_rn(1.f, __fadd_rn(1.f, exp_f32(-x))); }

// x / (1 + e^-x); 0 for negative infinity.
PTX_FN float silu_f32(float x) {
  float bounded = x < -1e4f ? -1e4f : x;
  return __fdiv_rn(bounded, __fadd_rn(1.f, exp_f32(-bounded)));
}

// max(x, 0); NaN stays NaN.
PTX_FN float relu_f32(float x) { return x < 0.f ? 0.f : x; }
