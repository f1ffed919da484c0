// What the attentions made of wgmma share, for heads of 64: operands, masks and the softmax of a
// warpgroup's 64 rows. As in flash.cuh maxima are rounded up to whole powers of two.
//
// A lane has N scores of a tile of 2 N keys as wgmma's d lays them out: of its warp's rows lane / 4
// and lane / 4 + 8, two neighbours of every eight columns.
#pragma once

#include "hopper.cuh"
#include "softmax.cuh"

#ifdef HOPPER

// An operand in rows of 128 bytes from `address` on: along k for queries and keys, along n for
// values.
PTX_FN uint64_t operand(uint32_t address) {
  return matrix_descriptor(address, 0, 8 * 128, MatrixSwizzle::BYTES_128);
}

// Leaves the first `keys` columns.
template <int N>
PTX_FN void mask(float (&scores)[N], int keys) {
#pragma unroll
  for (int i = 0; i < N; i++) {
    if (i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2 >= keys) scores[i] = -INFINITY;
  }
}

// The softmax so far of a lane's two rows, lane / 4 and lane / 4 + 8 of its warp's 16.
struct Softmax {
  float max[2] = {-INFINITY, -INFINITY};  // largest score * SCORE_SCALE, rounded up
  float sum[2] = {0, 0};                  // this lane's share of the sum of weights
  float shrink[2] = {0, 0};               // what the latest maximum makes of older sums

  // Scores to weights relative to the new maximum.
  template <int N>
  PTX_FN void weigh(float (&scores)[N]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float largest = -INFINITY;
#pragma unroll
      for (int i = 2 * r; i < N; i += 4) {
        largest = fmaxf(largest, fmaxf(scores[i], scores[i + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
      largest = fmaxf(max[r], ceilf(largest * SCORE_SCALE<64>));
      const float base = softmax_base(largest);
      shrink[r] = ex2(max[r] - base);
      max[r] = largest;
      float total = 0;
#pragma unroll
      for (int i = 2 * r; i < N; i += 4) {
#pragma unroll
        for (int e = i; e < i + 2; e++) {
          scores[e] = ex2(fmaf(scores[e], SCORE_SCALE<64>, -base));
          total += scores[e];
        }
      }
      sum[r] = fmaf(sum[r], shrink[r], total);
    }
  }

  // Joins the lanes' shares of the sums.
  PTX_FN void join_sums() {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
      sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    }
  }
};

// Weights to the fragments of a product's a: two neighbours of eight columns to one step.
template <int N>
PTX_FN void round(uint32_t (&weights)[N / 8][4], const float (&scores)[N]) {
#pragma unroll
  for (int i = 0; i < N / 2; i++) {
    weights[i / 4][i % 4] = pack_bf16(scores[2 * i], scores[2 * i + 1]);
  }
}

#endif  // HOPPER
