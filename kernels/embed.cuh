// Input vectors, a warp a token: the core of embed.cu and of the persistent decoder.
#pragma once

#include "ptx.cuh"

// The two columns of a row from `column` on.
PTX_FN float2 row_pair(const __nv_bfloat16* table, unsigned row, unsigned d, unsigned column) {
  const uint32_t pair = *reinterpret_cast<const uint32_t*>(table + (size_t)row * d + column);
  return make_float2(bf16_low(pair), bf16_high(pair));
}

// x [d] = row `row` of `table`, by one warp.
PTX_FN void embed_token(const __nv_bfloat16* table, unsigned row, float* x, unsigned d) {
  for (unsigned column = (threadIdx.x & 31) * 2; column < d; column += 64) {
    *reinterpret_cast<float2*>(x + column) = row_pair(table, row, d, column);
  }
}
