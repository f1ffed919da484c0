// Self-attention of decoder rows over their own past, a warp a row and head: the core of
// beam_self_attention.cu, which says what the arrays are, and of the persistent decoder.
//
// All in f32. Up to 32 positions at a time: for the scores a lane has a position and adds four sums
// of products, dimensions from 0 up; for the values a lane has HEAD / 32 dimensions and adds
// positions from 0 up.
#pragma once

#include "softmax.cuh"
#include "warp.cuh"

template <int N>
struct Vector;
template <>
struct Vector<1> {
  using Type = float;
};
template <>
struct Vector<2> {
  using Type = float2;
};
template <>
struct Vector<4> {
  using Type = float4;
};

PTX_FN void scale_by(float& x, float s) { x *= s; }
PTX_FN void scale_by(float2& x, float s) { x.x *= s, x.y *= s; }
PTX_FN void scale_by(float4& x, float s) { x.x *= s, x.y *= s, x.z *= s, x.w *= s; }

PTX_FN void add_scaled(float& x, float w, float v) { x = fmaf(w, v, x); }
PTX_FN void add_scaled(float2& x, float w, float2 v) {
  x.x = fmaf(w, v.x, x.x), x.y = fmaf(w, v.y, x.y);
}
PTX_FN void add_scaled(float4& x, float w, float4 v) {
  x.x = fmaf(w, v.x, x.x), x.y = fmaf(w, v.y, x.y), x.z = fmaf(w, v.z, x.z),
  x.w = fmaf(w, v.w, x.w);
}

PTX_FN void store_rounded(__nv_bfloat16* to, float x) { *to = __float2bfloat16_rn(x); }
PTX_FN void store_rounded(__nv_bfloat16* to, float2 x) {
  *reinterpret_cast<uint32_t*>(to) = pack_bf16(x.x, x.y);
}
PTX_FN void store_rounded(__nv_bfloat16* to, float4 x) {
  *reinterpret_cast<uint2*>(to) = make_uint2(pack_bf16(x.x, x.y), pack_bf16(x.z, x.w));
}

template <int HEAD>
PTX_FN float dot(const float4* q, const float* key) {
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
  for (int i = 0; i < HEAD / 4; i++) {
    const float4 k = reinterpret_cast<const float4*>(key)[i], x = q[i];
    sum = make_float4(fmaf(x.x, k.x, sum.x), fmaf(x.y, k.y, sum.y), fmaf(x.z, k.z, sum.z),
                      fmaf(x.w, k.w, sum.w));
  }
  return (sum.x + sum.y) + (sum.z + sum.w);
}

// Unit `unit` = row * heads + head, if there is such a row, by one warp. `query` holds HEAD floats
// of the warp's own shared memory.
template <int HEAD>
PTX_FN void beam_self_attention(unsigned unit, float4* query, const float* qkv, float* keys,
                                float* values, const unsigned* ancestors, const unsigned* newest,
                                __nv_bfloat16* out, unsigned rows, unsigned heads, unsigned beams,
                                unsigned positions) {
  using Lane = typename Vector<HEAD / 32>::Type;
  const unsigned lane = threadIdx.x & 31, row = unit / heads;
  if (row >= rows) return;
  const unsigned t = *newest;
  const size_t d = (size_t)heads * HEAD, head = (size_t)(unit % heads) * HEAD;
  const float *q = qkv + row * 3 * d + head, *own_key = q + d, *own_value = q + 2 * d;
  const unsigned first_row = row - row % beams;

  const size_t slot = (t * (size_t)rows + row) * d + head;
  reinterpret_cast<Lane*>(keys + slot)[lane] = reinterpret_cast<const Lane*>(own_key)[lane];
  const Lane newest_value = reinterpret_cast<const Lane*>(own_value)[lane];
  reinterpret_cast<Lane*>(values + slot)[lane] = newest_value;

  reinterpret_cast<Lane*>(query)[lane] = reinterpret_cast<const Lane*>(q)[lane];
  __syncwarp();

  Lane sum = {};
  float largest = -INFINITY, total = 0;
  for (unsigned start = 0; start <= t; start += 32) {
    const unsigned position = start + lane;
    unsigned from = row;
    if (ancestors && position < t) {
      from = first_row + ancestors[row * (size_t)positions + position];
    }
    float score = -INFINITY;
    if (position <= t) {
      const float* key =
          position < t ? keys + (position * (size_t)rows + from) * d + head : own_key;
      // Not to be fused with what is subtracted below, whatever the file's options.
      score = __fmul_rn(dot<HEAD>(query, key), SCORE_SCALE<HEAD>);
    }
    const float before = largest;
    largest = fmaxf(before, warp_max(score));
    const float base = softmax_base(largest);
    const float shrink = ex2(before - base), weight = ex2(score - base);
    total = fmaf(total, shrink, warp_sum(weight));
    scale_by(sum, shrink);
    const unsigned count = min(t - start, 32u);  // positions before t
#pragma unroll 4
    for (unsigned i = 0; i < count; i++) {
      const unsigned ancestor = __shfl_sync(~0u, from, i);
      const size_t at = ((start + i) * (size_t)rows + ancestor) * d + head;
      add_scaled(sum, __shfl_sync(~0u, weight, i),
                 reinterpret_cast<const Lane*>(values + at)[lane]);
    }
    if (count < 32) add_scaled(sum, __shfl_sync(~0u, weight, count), newest_value);
  }
  scale_by(sum, 1.0f / total);
  store_rounded(out + row * d + head + lane * (HEAD / 32), sum);
}
