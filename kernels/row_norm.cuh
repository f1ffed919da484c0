// RMSNorm of a row by one warp: the one place that fixes the order of its sum, for all kernels that
// norm.
//
// Lane l holds columns 64 j + 2 l and 64 j + 2 l + 1, j = 0, 1, ..
#pragma once

#include "warp.cuh"

// 1 / sqrt(mean(x^2) + eps) of each of ROWS rows of `x` [rows, d], d even; no row
// past `rows` is read. The rows' loads are in flight together.
template <int ROWS>
PTX_FN void inverse_rms(const float* x, int rows, unsigned d, float eps, float (&scale)[ROWS]) {
  const unsigned lane = threadIdx.x & 31;
  float sums[ROWS] = {};
#pragma unroll 4
  for (unsigned column = lane * 2; column < d; column += 64) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      if (r < rows) {
        const float2 pair = *reinterpret_cast<const float2*>(x + (size_t)r * d + column);
        sums[r] = fmaf(pair.y, pair.y, fmaf(pair.x, pair.x, sums[r]));
      }
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++) scale[r] = 1.0f / sqrtf(warp_sum(sums[r]) / (float)d + eps);
}
