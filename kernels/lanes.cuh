// Sums of rows in f32 in the order of the CPU's (src/cpu/lanes.rs), so that both give the same
// bits.
//
// Element i of a row goes to lane i % 16, one fused multiply-add after the other; the lanes are
// joined by one tree, halves onto halves. On the GPU a half-warp is the sixteen lanes.
#pragma once

#include "ptx.cuh"

constexpr int LANES = 16;

// Sum over the half-warp. Addition commutes, so every lane ends with the bits of the CPU's lane 0.
// Warp-wide.
PTX_FN float lanes_sum(float x) {
#pragma unroll
  for (int width = LANES / 2; width > 0; width /= 2) x += __shfl_xor_sync(~0u, x, width);
  return x;
}

// 1 / sqrt(mean of squares + eps) of a row of which `element(i)` is the i-th number, i < d.
// Warp-wide, each half-warp with a row of its own.
template <class Element>
PTX_FN float rms_scale(Element element, unsigned d, float eps) {
  float sum = 0.f;
  for (unsigned i = threadIdx.x % LANES; i < d; i += LANES) {
    float x = element(i);
    sum = fmaf(x, x, sum);
  }
  float mean = lanes_sum(sum) / (float)d;
  return 1.f / sqrtf(mean + eps);
}
