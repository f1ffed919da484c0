// hidden = silu(h gate^T) * (h up^T), h = rms_norm(x): the core of swiglu.cu, which says what the
// arrays are, and of the persistent decoder.
#pragma once

#include "norm_product.cuh"
#include "silu.cuh"

template <int COLUMNS>
PTX_FN void swiglu(Place place, const NormedRows& rows, const __nv_bfloat16* w,
                   __nv_bfloat16* hidden, unsigned ffn, unsigned tiles_per_block) {
  norm_product<COLUMNS>(
      place, rows, w, 2 * ffn, tiles_per_block, [](unsigned slot) { return slot; },
      [=](unsigned row, unsigned slot, float gate0, float gate1, float up0, float up1) {
        const unsigned column = (slot >> 5) * 16 + (slot & 15);
        if (column >= ffn) return;
        *reinterpret_cast<uint32_t*>(hidden + (size_t)row * ffn + column) =
            pack_bf16(silu(gate0) * up0, silu(gate1) * up1);
      });
}
