// Input vectors: x[t] = tokens[token[t]] (+ the token's feature rows, in their order).
//
//   table          bf16 [V, d], token u32 [t], each below V
//   features       bf16 [all sizes, d]: every feature's table, one below the other
//   feature_start  u32 [t + 1], feature_row u32 [feature_start[t]]: the rows of `features` that
//                  token t adds
//   x              f32 [t, d]; d even
//
// Grid (ceil(t / 8)), 256 threads: a warp a token. 2 d bytes in for each row taken, 4 d out; no
// FLOP worth counting.
#include "embed.cuh"

constexpr int EMBED_WARPS = 8;

extern "C" __global__ void __launch_bounds__(EMBED_WARPS * 32)
    embed(const __nv_bfloat16* __restrict__ table, const unsigned* __restrict__ token,
          float* __restrict__ x, unsigned tokens, unsigned d) {
  begin_kernel();
  const unsigned t = blockIdx.x * EMBED_WARPS + (threadIdx.x >> 5);
  if (t >= tokens) return;
  embed_token(table, token[t], x + (size_t)t * d, d);
}

extern "C" __global__ void __launch_bounds__(EMBED_WARPS * 32)
    embed_with_features(const __nv_bfloat16* __restrict__ table, const unsigned* __restrict__ token,
                        const __nv_bfloat16* __restrict__ features,
                        const unsigned* __restrict__ feature_start,
                        const unsigned* __restrict__ feature_row, float* __restrict__ x,
                        unsigned tokens, unsigned d) {
  begin_kernel();
  const unsigned t = blockIdx.x * EMBED_WARPS + (threadIdx.x >> 5);
  if (t >= tokens) return;
  const unsigned row = token[t], first = feature_start[t], end = feature_start[t + 1];
  for (unsigned column = (threadIdx.x & 31) * 2; column < d; column += 64) {
    float2 sum = row_pair(table, row, d, column);
    for (unsigned i = first; i < end; i++) {
      const float2 feature = row_pair(features, feature_row[i], d, column);
      sum.x += feature.x;
      sum.y += feature.y;
    }
    *reinterpret_cast<float2*>(x + (size_t)t * d + column) = sum;
  }
}
