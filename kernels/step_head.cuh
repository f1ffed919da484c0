// The head of a step's rows by the blocks of a cluster: the logits of each row in the shared memory of
// the block that has it. Of all codes, or of those alone that may follow.
#pragma once

#include "follow.cuh"
#include "hopper.cuh"
#include "row_norm.cuh"
#include "step_memory.cuh"
#include "store.cuh"

namespace search {

// Norms row `row` as norm_rows does, and stores it; rounded too, with zeros up to a multiple of 16,
// unless `rounded` is null. Warp-wide.
PTX_FN void store_normed(const NormedRows& rows, unsigned row, uint32_t* rounded) {
  const float* x = rows.x + (size_t)row * rows.d;
  float* to = rows.normed + (size_t)row * rows.d;
  float scale[1] = {1};
  if (rows.weight) inverse_rms(x, 1, rows.d, rows.eps, scale);
  for (unsigned column = threadIdx.x % 32 * 2; column < (rows.d + 15) / 16 * 16; column += 64) {
    float2 pair = make_float2(0, 0), gain = make_float2(1, 1);
    if (column < rows.d) {
      pair = *reinterpret_cast<const float2*>(x + column);
      if (rows.weight) gain = *reinterpret_cast<const float2*>(rows.weight + column);
      pair = make_float2(pair.x * scale[0] * gain.x, pair.y * scale[0] * gain.y);
      *reinterpret_cast<float2*>(to + column) = pair;
    }
    if (rounded) rounded[column / 2] = pack_bf16(pair.x, pair.y);
  }
}

#ifdef HOPPER

// The head of one request by block `rank` of its cluster. A row's beam is known: see StepBeam.
struct StepHead {
  NormedRows rows;
  const __nv_bfloat16* w;  // [W, d]
  const StepMemory& memory;
  const Selection& in;  // of the request
  unsigned rank;

  PTX_FN unsigned warp() const { return threadIdx.x / 32; }
  PTX_FN unsigned warps() const { return blockDim.x / 32; }

  // The hidden states of the block's rows, and where `few` the operands of score_all_few.
  PTX_FN void store_hidden(bool few) const {
    for (unsigned slot = warp(); slot < memory.slots(); slot += warps()) {
      const unsigned row = slot * memory.blocks + rank;
      if (row < rows.m) store_normed(rows, row, few ? (uint32_t*)memory.row(slot) : nullptr);
    }
  }

  // Whether the block with the most codes to be scored reads less for them, 2 d bytes each, and for
  // its own rows than it would for the product: all rows and its part of all codes. Every block
  // comes to the same answer.
  PTX_FN bool follows_few() const {
    unsigned most = 0;
    for (unsigned block = 0; block < memory.blocks; ++block)
      most = max(most, memory.block().codes[block]);
    return 2 * memory.slots() + most <= 2 * in.n + in.codes / memory.blocks;
  }

  // The logits of the codes that may follow each of the block's beams, and of no others. A warp has
  // eight codes of a beam at a time. All rows of its products are the beam's, so that an element is
  // what it is in norm_product: one sequence of mma.m16n8k16.
  PTX_FN void score_all_few() const {
    unsigned turn = 0;
    for (unsigned slot = 0; slot < memory.slots(); ++slot) {
      const StepBeam& beam = memory.beams()[slot];
      if (beam.index == NONE) continue;
      const unsigned count = beam.ways.count + (beam.organic != NONE);
      for (unsigned base = 0; base < count; base += FEW_CODES, ++turn)
        if (turn % warps() == warp()) score_few(beam, slot, base);
    }
  }

  // Those of codes `base` to `base` + 7 of a beam; the organic item's is the last. Warp-wide.
  PTX_FN void score_few(const StepBeam& beam, unsigned slot,
                        unsigned base) const {
    const unsigned lane = threadIdx.x % 32, row_bytes = memory.row_bytes(), d = memory.d;
    const unsigned code = few_code(beam, base);
    unsigned char* weights = memory.weights(warp());
    for (unsigned row = 0; row < FEW_CODES; ++row) {
      const unsigned of_row = __shfl_sync(0xffffffff, code, row);
      const __nv_bfloat16* from = w + (of_row == NONE ? 0 : (size_t)of_row * d);
      for (unsigned column = lane * 8; column < (d + 15) / 16 * 16; column += 32 * 8) {
        const bool inside = of_row != NONE && column < d;
        cp_async16(smem_u32(weights + row * row_bytes + column * 2), from + (inside ? column : 0),
                   inside);
      }
    }
    cp_async_wait_all();
    __syncwarp();
    float sums[4] = {};
    const uint32_t* x = (const uint32_t*)memory.row(slot) + lane % 4;
    const uint32_t b = smem_u32(weights + lane % 8 * row_bytes + lane / 8 % 2 * 16);
    for (unsigned k = 0; k < (d + 15) / 16; ++k) {
      const uint32_t low = x[k * 8], high = x[k * 8 + 4], a[4] = {low, low, high, high};
      uint32_t columns[2];
      ldsm_x2(columns, b + k * 32);
      mma_bf16(sums, a, columns[0], columns[1]);
    }
    float* logits = memory.logits() + (size_t)slot * in.codes;
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned of_sum = __shfl_sync(0xffffffff, code, lane % 4 * 2 + i);
      if (lane < 4 && of_sum != NONE) logits[of_sum] = sums[i];
    }
    __syncwarp();  // the next weights overwrite these
  }

  // The code number base + lane % 8 of a beam, or NONE: past the last, and of an organic item whose
  // code a child has. Children are in the order of their codes.
  PTX_FN unsigned few_code(const StepBeam& beam, unsigned base) const {
    const unsigned lane = threadIdx.x % 32, i = base + lane % FEW_CODES;
    auto of_child = [&](unsigned child) {
      return in.nodes[(size_t)(beam.ways.first + child) * NODE_WORDS + CODE];
    };
    if (i < beam.ways.count) return of_child(i);
    if (i > beam.ways.count) return NONE;
    unsigned low = 0, high = beam.ways.count;  // the first child whose code is not below
    while (low < high) {
      const unsigned middle = (low + high) / 2;
      if (of_child(middle) < beam.organic)
        low = middle + 1;
      else
        high = middle;
    }
    return low < beam.ways.count && of_child(low) == beam.organic ? NONE : beam.organic;
  }

  // Columns of 64 of the product by turns; each logit goes to the block that has its row.
  PTX_FN void multiply() const {
    NormedRows normed = rows;
    normed.normed = nullptr;
    constexpr unsigned COLUMNS = 64;
    const unsigned tiles = (in.codes + COLUMNS - 1) / COLUMNS, codes = in.codes;
    const unsigned each = (tiles + memory.blocks - 1) / memory.blocks, first = rank * each;
    if (first >= tiles) return;
    for (unsigned row = 0; row < in.n; row += NORM_ROWS) {
      const Place place{rank, row / NORM_ROWS, 0, 1, 1, 1};
      norm_product<COLUMNS>(
          place, normed, w, codes, each, [](unsigned code) { return code; },
          [&](unsigned row, unsigned code, float a, float b, float c, float d) {
            const StoreF32 to{cluster_pointer(memory.logits(), memory.owner(row))};
            store_pair(to, memory.slot_of(row), codes, code, a, b);
            store_pair(to, memory.slot_of(row), codes, code + 16, c, d);
          });
      __syncthreads();  // the next rows overwrite these
    }
  }
};

#endif  // HOPPER

}  // namespace search
