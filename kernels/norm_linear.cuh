// y = rotary(rms_norm(x) W^T): the core of norm_linear.cu, which says what the arrays are, and of
// the persistent decoder.
#pragma once

#include "norm_product.cuh"
#include "store.cuh"


// Slots in which the two halves of each head of 32 << shift columns lie 16 apart; shift 0 changes
// no order.
struct HeadSlots {
  unsigned shift;

  PTX_FN unsigned operator()(unsigned slot) const {
    const unsigned pair = slot >> 5, head = pair >> shift, run = pair & ((1u << shift) - 1);
    return (head << (5 + shift)) + ((slot >> 4 & 1) << (4 + shift)) + (run << 4) + (slot & 15);
  }
};

struct Rotary {
  const float* angles;
  const unsigned* position;
  unsigned position_stride, rotated, shift;

  // Turns the pair of columns `column` and `column + head_size / 2` of row `row`.
  PTX_FN void turn(unsigned row, unsigned column, float& low, float& high) const {
    const unsigned half = 16u << shift;
    const float* angle = angles + (size_t)position[row * position_stride] * half * 2;
    const float cosine = angle[column & (half - 1)], sine = angle[half + (column & (half - 1))];
    const float x = low, y = high;
    low = fmaf(x, cosine, -__fmul_rn(y, sine));
    high = fmaf(y, cosine, __fmul_rn(x, sine));
  }
};

template <int COLUMNS, class Store>
PTX_FN void norm_linear(Place place, const NormedRows& rows, const __nv_bfloat16* w, Store store,
                        unsigned n, Rotary rotary, unsigned tiles_per_block) {
  const HeadSlots column_of{rotary.shift};
  norm_product<COLUMNS>(place, rows, w, n, tiles_per_block, column_of,
                        [=](unsigned row, unsigned slot, float a, float b, float c, float d) {
                          const unsigned low = column_of(slot), high = column_of(slot + 16);
                          if (low < rotary.rotated) {
                            rotary.turn(row, low, a, c);
                            rotary.turn(row, low + 1, b, d);
                          }
                          store_pair(store, row, n, low, a, b);
                          store_pair(store, row, n, high, c, d);
                        });
}
