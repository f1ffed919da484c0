// exp, log and log1p in f64, operation by operation those of the `libm` crate that the CPU engine
// uses. CUDA's own differ from these in the last bit; with these the search weighs, sums and orders
// on a GPU exactly as on the CPU.
//
// They hold only without contraction of products and sums to fused ones: every file that includes
// this one is compiled with --fmad=false (-ffp-contract=off on the emulator).
//
// After FreeBSD's msun e_exp.c, e_log.c and s_log1p.c:
//   Copyright (C) 1993, 2004 by Sun Microsystems, Inc. All rights reserved.
//   Permission to use, copy, modify, and distribute this software is freely granted, provided that
//   this notice is preserved.
#pragma once

#include "ptx.cuh"

namespace libm {

constexpr double LN2_HIGH = 6.93147180369123816490e-01;
constexpr double LN2_LOW = 1.90821492927058770002e-10;

PTX_FN uint64_t bits_of(double x) { return (uint64_t)__double_as_longlong(x); }
PTX_FN double from_bits(uint64_t bits) { return __longlong_as_double((long long)bits); }
PTX_FN uint32_t high_word(double x) { return (uint32_t)(bits_of(x) >> 32); }

// x 2^n for -1,076 <= n <= 1,024 and x in [0.5, 2]; rounded once where the result is subnormal.
PTX_FN double scale(double x, int n) {
  if (n > 1023) {
    x *= 0x1p1023;
    n -= 1023;
  } else if (n < -1022) {
    // 53 bits are left to the second factor, so that the first product is exact.
    x *= 0x1p-969;
    n += 969;
  }
  return x * from_bits((uint64_t)(1023 + n) << 52);
}

PTX_FN double exp(double x) {
  constexpr double P1 = 1.66666666666666019037e-01, P2 = -2.77777777770155933842e-03,
                   P3 = 6.61375632143793436117e-05, P4 = -1.65339022054652515390e-06,
                   P5 = 4.13813679705723846039e-08;
  const uint32_t h = high_word(x) & 0x7fffffff;
  const int sign = (int)(high_word(x) >> 31);
  if (h >= 0x4086232b) {  // |x| >= 708.39
    if (x != x) return x;
    if (x > 709.782712893383973096) return x * 0x1p1023;
    if (x < -745.13321910194110842) return 0.0;
  }
  int k = 0;
  double high = x, low = 0.0;
  if (h > 0x3fd62e42) {  // |x| > ln 2 / 2
    k = h >= 0x3ff0a2b2 ? (int)(1.44269504088896338700e+00 * x + (sign ? -0.5 : 0.5))
                        : 1 - sign - sign;
    high = x - k * LN2_HIGH;
    low = k * LN2_LOW;
    x = high - low;
  } else if (h <= 0x3e300000) {  // |x| <= 2^-28
    return 1.0 + x;
  }
  const double xx = x * x;
  const double c = x - xx * (P1 + xx * (P2 + xx * (P3 + xx * (P4 + xx * P5))));
  const double y = 1.0 + (x * c / (2.0 - c) - low + high);
  return k == 0 ? y : scale(y, k);
}

// log(1 + f) - f + f^2 / 2 over s = f / (2 + f), for 1 + f in [sqrt(2) / 2, sqrt(2)]: the part that
// log and log1p share.
PTX_FN double log_remainder(double s) {
  constexpr double L1 = 6.666666666666735130e-01, L2 = 3.999999999940941908e-01,
                   L3 = 2.857142874366239149e-01, L4 = 2.222219843214978396e-01,
                   L5 = 1.818357216161805012e-01, L6 = 1.531383769920937332e-01,
                   L7 = 1.479819860511658591e-01;
  const double z = s * s, w = z * z;
  const double even = w * (L2 + w * (L4 + w * L6));
  const double odd = z * (L1 + w * (L3 + w * (L5 + w * L7)));
  return odd + even;
}

// Splits x = 2^k y with y in [sqrt(2) / 2, sqrt(2)]; returns y. `x` is positive and normal.
PTX_FN double reduce(double x, int& k) {
  const uint32_t h = high_word(x) + (0x3ff00000 - 0x3fe6a09e);
  k = (int)(h >> 20) - 0x3ff;
  const uint64_t high = (h & 0x000fffff) + 0x3fe6a09e;
  return from_bits(high << 32 | (bits_of(x) & 0xffffffff));
}

// For x >= 0; log 0 = -infinity.
PTX_FN double log(double x) {
  if (x == 0.0) return -INFINITY;
  if (high_word(x) >= 0x7ff00000) return x;
  if (x == 1.0) return 0.0;
  int shift = 0, k;
  if (high_word(x) < 0x00100000) {  // subnormal
    shift = 54;
    x *= 0x1p54;
  }
  const double f = reduce(x, k) - 1.0, half = 0.5 * f * f, s = f / (2.0 + f);
  const double dk = (double)(k - shift);
  return s * (half + log_remainder(s)) + dk * LN2_LOW - half + f + dk * LN2_HIGH;
}

// For x >= 0.
PTX_FN double log1p(double x) {
  const uint32_t h = high_word(x);
  if (h < 0x3ca00000) return x;   // x < 2^-53
  if (h >= 0x7ff00000) return x;
  int k = 0;
  double f = x, c = 0.0;
  if (h >= 0x3fda827a) {  // 1 + x >= sqrt(2)
    const double u = 1.0 + x;
    f = reduce(u, k) - 1.0;
    // What rounding 1 + x lost.
    if (k < 54) c = (k >= 2 ? 1.0 - (u - x) : x - (u - 1.0)) / u;
  }
  const double half = 0.5 * f * f, s = f / (2.0 + f), dk = (double)k;
  return s * (half + log_remainder(s)) + (dk * LN2_LOW + c) - half + f + dk * LN2_HIGH;
}

}  // namespace libm
