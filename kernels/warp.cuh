// Reductions over a warp: butterflies, the same bits in every lane.
#pragma once

#include "ptx.cuh"

PTX_FN float warp_sum(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

// NaN is passed over.
PTX_FN float warp_max(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    value = fmaxf(value, __shfl_xor_sync(~0u, value, step));
  }
  return value;
}
