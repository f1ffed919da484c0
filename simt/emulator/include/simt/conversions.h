// Conversions between numbers with an explicit rounding. A float that does not fit an integer gives
// the nearest one, as on a GPU, where plain C++ casts would be undefined.
#pragma once

#include <math.h>

#include <limits>

#include "simt/keywords.h"

namespace simt {

// `x` has been rounded to a whole number.
template <class To, class From>
SIMT_UNCHECKED constexpr To saturate(From x) {
  constexpr To lowest = std::numeric_limits<To>::min();
  constexpr To highest = std::numeric_limits<To>::max();
  if (x != x) {  // PTX: zero, or the highest bit alone where 64 bits are involved
    return sizeof(From) == 8 || sizeof(To) == 8 ? To(To(1) << (sizeof(To) * 8 - 1)) : To(0);
  }
  // Compared with 2^n, which every type of float can express, not with 2^n - 1.
  if (x >= From(highest / 2 + 1) * 2) return highest;
  if (x < From(lowest)) return lowest;
  return To(x);
}

}  // namespace simt

#define SIMT_TO_INTEGER(FLOAT, NAME, TYPE, SUFFIX)      \
  static inline TYPE __##FLOAT##2##NAME##_rn(FLOAT x) { \
    return simt::saturate<TYPE>(nearbyint##SUFFIX(x));  \
  }                                                     \
  static inline TYPE __##FLOAT##2##NAME##_rz(FLOAT x) { \
    return simt::saturate<TYPE>(trunc##SUFFIX(x));      \
  }                                                     \
  static inline TYPE __##FLOAT##2##NAME##_rd(FLOAT x) { \
    return simt::saturate<TYPE>(floor##SUFFIX(x));      \
  }                                                     \
  static inline TYPE __##FLOAT##2##NAME##_ru(FLOAT x) { \
    return simt::saturate<TYPE>(ceil##SUFFIX(x));       \
  }
SIMT_TO_INTEGER(float, int, int, f)
SIMT_TO_INTEGER(float, uint, unsigned, f)
SIMT_TO_INTEGER(float, ll, long long, f)
SIMT_TO_INTEGER(float, ull, unsigned long long, f)
SIMT_TO_INTEGER(double, int, int, )
SIMT_TO_INTEGER(double, uint, unsigned, )
SIMT_TO_INTEGER(double, ll, long long, )
SIMT_TO_INTEGER(double, ull, unsigned long long, )
#undef SIMT_TO_INTEGER

static inline float __int2float_rn(int x) { return float(x); }
static inline float __uint2float_rn(unsigned x) { return float(x); }
static inline float __ll2float_rn(long long x) { return float(x); }
static inline float __ull2float_rn(unsigned long long x) { return float(x); }
static inline double __int2double_rn(int x) { return double(x); }
static inline double __uint2double_rn(unsigned x) { return double(x); }
static inline double __ll2double_rn(long long x) { return double(x); }
static inline double __ull2double_rn(unsigned long long x) { return double(x); }
static inline float __double2float_rn(double x) { return float(x); }
