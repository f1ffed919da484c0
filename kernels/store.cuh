// What a product does with its sums: stores them as f32 or bf16, or adds them to what is there.
//
// `one` takes an element, `two` an element at an even index and its neighbour. A pair is written at
// once, so the array must be aligned to two elements.
#pragma once

#include "ptx.cuh"

struct StoreF32 {
  float* y;
  PTX_FN void one(size_t at, float value) const { y[at] = value; }
  PTX_FN void two(size_t at, float first, float second) const {
    *reinterpret_cast<float2*>(y + at) = make_float2(first, second);
  }
};

struct StoreBf16 {
  __nv_bfloat16* y;
  PTX_FN void one(size_t at, float value) const { y[at] = __float2bfloat16_rn(value); }
  PTX_FN void two(size_t at, float first, float second) const {
    *reinterpret_cast<uint32_t*>(y + at) = pack_bf16(first, second);
  }
};

struct AddF32 {
  float* y;
  PTX_FN void one(size_t at, float value) const { y[at] += value; }
  PTX_FN void two(size_t at, float first, float second) const {
    float2* pair = reinterpret_cast<float2*>(y + at);
    const float2 before = *pair;
    *pair = make_float2(before.x + first, before.y + second);
  }
};

// Stores elements `column` (even) and `column + 1` of row `row` of [., n], as far as there are such
// columns.
template <class Store>
PTX_FN void store_pair(const Store& store, size_t row, unsigned n, unsigned column, float first,
                       float second) {
  const size_t at = row * n + column;
  if (n % 2 == 0) {
    if (column < n) store.two(at, first, second);
  } else {
    if (column < n) store.one(at, first);
    if (column + 1 < n) store.one(at + 1, second);
  }
}
