// __nv_bfloat16 and __half: 16-bit floats. Every operation is computed in float and rounded once,
// to nearest even.
#pragma once

#include <math.h>
#include <stdint.h>

#include <bit>
#include <concepts>

#include "simt/vector_types.h"

namespace simt {

constexpr float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }

constexpr uint16_t float_to_bf16(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;  // the NaN that CUDA gives
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

constexpr float half_to_float(uint16_t bits) {
  uint32_t sign = uint32_t(bits & 0x8000) << 16;
  uint32_t exponent = bits >> 10 & 31;
  uint32_t mantissa = bits & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  float magnitude = float(mantissa) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

constexpr uint16_t float_to_half(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  uint32_t sign = bits >> 16 & 0x8000;
  uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return 0x7fff;                    // NaN
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);  // rounds to infinity
  if (magnitude < 0x38800000) {
    // Subnormal: adding 0.5 leaves the sum a multiple of 2^-24, the spacing of subnormal halves.
    float rounded = std::bit_cast<float>(magnitude) + 0.5f;
    return uint16_t(sign | (std::bit_cast<uint32_t>(rounded) - 0x3f000000));
  }
  uint32_t rebased = magnitude - 0x38000000;  // the exponent's bias is 15, not 127
  return uint16_t(sign | ((rebased + 0xfff + (rebased >> 13 & 1)) >> 13));
}

}  // namespace simt

struct alignas(2) __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  constexpr __nv_bfloat16(float x) : bits(simt::float_to_bf16(x)) {}
  constexpr __nv_bfloat16(double x) : __nv_bfloat16(float(x)) {}
  constexpr __nv_bfloat16(int x) : __nv_bfloat16(float(x)) {}
  constexpr operator float() const { return simt::bf16_to_float(bits); }
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

struct alignas(2) __half {
  uint16_t bits;
  __half() = default;
  constexpr __half(float x) : bits(simt::float_to_half(x)) {}
  constexpr __half(double x) : __half(float(x)) {}
  constexpr __half(int x) : __half(float(x)) {}
  constexpr operator float() const { return simt::half_to_float(bits); }
};
struct alignas(4) __half2 {
  __half x, y;
};

using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;
using half = __half;
using half2 = __half2;

namespace simt {
template <class T>
concept Half = std::same_as<T, __nv_bfloat16> || std::same_as<T, __half>;
template <class T>
concept HalfPair = std::same_as<T, __nv_bfloat162> || std::same_as<T, __half2>;
}  // namespace simt

// ---- Arithmetic

template <simt::Half T>
constexpr T operator+(T a, T b) { return T(float(a) + float(b)); }
template <simt::Half T>
constexpr T operator-(T a, T b) { return T(float(a) - float(b)); }
template <simt::Half T>
constexpr T operator*(T a, T b) { return T(float(a) * float(b)); }
template <simt::Half T>
constexpr T operator/(T a, T b) { return T(float(a) / float(b)); }
template <simt::Half T>
constexpr T operator-(T a) { return T(-float(a)); }
template <simt::Half T>
constexpr T& operator+=(T& a, T b) { return a = a + b; }
template <simt::Half T>
constexpr T& operator-=(T& a, T b) { return a = a - b; }
template <simt::Half T>
constexpr T& operator*=(T& a, T b) { return a = a * b; }
template <simt::Half T>
constexpr T& operator/=(T& a, T b) { return a = a / b; }

template <simt::Half T>
constexpr T __hadd(T a, T b) { return a + b; }
template <simt::Half T>
constexpr T __hsub(T a, T b) { return a - b; }
template <simt::Half T>
constexpr T __hmul(T a, T b) { return a * b; }
template <simt::Half T>
constexpr T __hdiv(T a, T b) { return a / b; }
template <simt::Half T>
constexpr T __hneg(T a) { return -a; }
template <simt::Half T>
inline T __habs(T a) { return T(fabsf(float(a))); }
template <simt::Half T>
inline T __hmax(T a, T b) { return T(fmaxf(float(a), float(b))); }
template <simt::Half T>
inline T __hmin(T a, T b) { return T(fminf(float(a), float(b))); }
// The product of two 16-bit floats is exact in double, and the sum nearly always is.
template <simt::Half T>
inline T __hfma(T a, T b, T c) { return T(float(double(float(a)) * float(b) + float(c))); }

template <simt::HalfPair T>
constexpr T __hadd2(T a, T b) { return {a.x + b.x, a.y + b.y}; }
template <simt::HalfPair T>
constexpr T __hsub2(T a, T b) { return {a.x - b.x, a.y - b.y}; }
template <simt::HalfPair T>
constexpr T __hmul2(T a, T b) { return {a.x * b.x, a.y * b.y}; }
template <simt::HalfPair T>
inline T __hfma2(T a, T b, T c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
template <simt::HalfPair T>
constexpr float __low2float(T a) { return a.x; }
template <simt::HalfPair T>
constexpr float __high2float(T a) { return a.y; }

// ---- Conversions

constexpr __nv_bfloat16 __float2bfloat16(float x) { return x; }
constexpr __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
constexpr __nv_bfloat16 __double2bfloat16(double x) { return x; }
constexpr float __bfloat162float(__nv_bfloat16 x) { return x; }
constexpr __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {x, y}; }
constexpr __nv_bfloat162 __float22bfloat162_rn(float2 v) { return {v.x, v.y}; }
constexpr __nv_bfloat162 __float2bfloat162_rn(float x) { return {x, x}; }
constexpr float2 __bfloat1622float2(__nv_bfloat162 v) { return {v.x, v.y}; }
constexpr __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
constexpr __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 x) { return {x, x}; }
constexpr __nv_bfloat16 __low2bfloat16(__nv_bfloat162 v) { return v.x; }
constexpr __nv_bfloat16 __high2bfloat16(__nv_bfloat162 v) { return v.y; }
constexpr unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
constexpr __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  return std::bit_cast<__nv_bfloat16>(bits);
}

constexpr __half __float2half(float x) { return x; }
constexpr __half __float2half_rn(float x) { return x; }
constexpr float __half2float(__half x) { return x; }
constexpr __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
constexpr __half2 __float22half2_rn(float2 v) { return {v.x, v.y}; }
constexpr __half2 __float2half2_rn(float x) { return {x, x}; }
constexpr float2 __half22float2(__half2 v) { return {v.x, v.y}; }
constexpr __half2 __halves2half2(__half x, __half y) { return {x, y}; }
constexpr unsigned short __half_as_ushort(__half x) { return x.bits; }
constexpr __half __ushort_as_half(unsigned short bits) { return std::bit_cast<__half>(bits); }
