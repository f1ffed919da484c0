// The last three layers of the towers and of the payment network: 128 -> 32 -> 10 -> 1, ReLU
// between them, a sigmoid at the end. In f32, each sum one sequence of fused multiply-adds from
// input 0 up and the bias last, as on the CPU.
#pragma once

#include "math_f32.cuh"

constexpr int MLP_IN = 128;
constexpr int MLP_MIDDLE = 32;
constexpr int MLP_LAST = 10;

// The weights as they lie in memory, [out, in] each.
struct MlpTail {
  float w1[MLP_MIDDLE * MLP_IN], b1[MLP_MIDDLE];
  float w2[MLP_LAST * MLP_MIDDLE], b2[MLP_LAST];
  float w3[MLP_LAST], b3;
};

// The weights in shared memory, padded so that the lanes of a warp read from different banks.
struct MlpShared {
  float w1[MLP_MIDDLE][MLP_IN + 1], b1[MLP_MIDDLE];
  float w2[MLP_LAST][MLP_MIDDLE + 1], b2[MLP_LAST];
  float w3[MLP_LAST], b3;

  // By all threads of the block; a barrier must follow.
  PTX_FN void load(const float* weights) {
    const MlpTail& from = *reinterpret_cast<const MlpTail*>(weights);
    for (int i = threadIdx.x; i < MLP_MIDDLE * MLP_IN; i += blockDim.x) {
      w1[i / MLP_IN][i % MLP_IN] = from.w1[i];
    }
    for (int i = threadIdx.x; i < MLP_LAST * MLP_MIDDLE; i += blockDim.x) {
      w2[i / MLP_MIDDLE][i % MLP_MIDDLE] = from.w2[i];
    }
    if (threadIdx.x < MLP_MIDDLE) b1[threadIdx.x] = from.b1[threadIdx.x];
    if (threadIdx.x < MLP_LAST) {
      b2[threadIdx.x] = from.b2[threadIdx.x];
      w3[threadIdx.x] = from.w3[threadIdx.x];
    }
    if (threadIdx.x == 0) b3 = from.b3;
  }

  // sigmoid of the network on `hidden` [128], which all lanes may read. Warp-wide; every lane has
  // the result.
  PTX_FN float run(const float* hidden) const {
    int lane = threadIdx.x % 32;
    float middle = 0.f;
#pragma unroll 16
    for (int k = 0; k < MLP_IN; k++) middle = fmaf(hidden[k], w1[lane][k], middle);
    middle = relu_f32(middle + b1[lane]);
    int narrow = lane < MLP_LAST ? lane : 0;
    float last = 0.f;
#pragma unroll
    for (int k = 0; k < MLP_MIDDLE; k++) {
      last = fmaf(__shfl_sync(~0u, middle, k), w2[narrow][k], last);
    }
    last = relu_f32(last + b2[narrow]);
    float sum = 0.f;
#pragma unroll
    for (int k = 0; k < MLP_LAST; k++) sum = fmaf(__shfl_sync(~0u, last, k), w3[k], sum);
    return sigmoid_f32(sum + b3);
  }
};
