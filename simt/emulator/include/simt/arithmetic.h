// Arithmetic of float and double beyond <math.h>, which offers the rest under the names that CUDA
// has too.
//
// Kernels and emulator are compiled with -ffp-contract=off: a product and a sum are rounded one
// after the other unless the kernel says fma. What a GPU approximates (__expf, rsqrtf) is computed
// to the last bit or nearly so.
#pragma once

#include <math.h>

#include <type_traits>

// CUDA has these for every pair of arithmetic types.
template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using C = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<C>) {
    return C(a) != C(a) || C(b) < C(a) ? C(b) : C(a);  // as fmin: the other one if one is NaN
  } else {
    return C(b) < C(a) ? C(b) : C(a);
  }
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using C = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<C>) {
    return C(a) != C(a) || C(b) > C(a) ? C(b) : C(a);
  } else {
    return C(b) > C(a) ? C(b) : C(a);
  }
}

// Macros, because glibc declares functions of these names.
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __powf(x, y) powf(x, y)

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float rsqrtf(float a) { return float(1.0 / sqrt(double(a))); }
static inline float __frsqrt_rn(float a) { return rsqrtf(a); }
static inline float __saturatef(float a) { return fminf(fmaxf(a, 0.0f), 1.0f); }  // NaN gives 0

static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __drcp_rn(double a) { return 1.0 / a; }
static inline double __dsqrt_rn(double a) { return sqrt(a); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline double rsqrt(double a) { return 1.0 / sqrt(a); }
