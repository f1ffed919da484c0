// What a block of search_step.cuh keeps in its shared memory, and where.
#pragma once

#include "expand.cuh"
#include "norm_product.cuh"
#include "top.cuh"

namespace search {

constexpr unsigned MOST_BLOCKS = 8;

// Codes of a beam that a warp multiplies with at once, where few may follow.
constexpr unsigned FEW_CODES = 8;

// A way on that a block has kept, as the blocks hand them to each other.
struct __align__(16) Candidate {
  unsigned long long key;  // 0: none
  double ln_z;
  unsigned position;  // beam * (W + 1) + way: ties
  unsigned node;      // of the way; NONE: the organic item alone, or nothing
  unsigned row;       // of the parent
  unsigned goes_on;   // 0: the parent has ended
};

// One of a block's beams, at this step.
struct StepBeam {
  Ways ways;         // before the expansion: first and count of the children
  double score;
  unsigned index;    // NONE: no beam has the row
  unsigned organic;  // code of the organic item that may follow too, or NONE
};

// A beam of the next step, until all have read what it overwrites.
struct __align__(16) NextBeam {
  unsigned words[BEAM_WORDS];
  unsigned code;  // NONE: it has ended
  double score, item_ln_z;
};

// What a block needs beside its arrays.
struct StepBlock {
  TopScratch top;
  ExpandScratch expand[NORM_THREADS / 32];
  unsigned filled[2];
  unsigned codes[MOST_BLOCKS];  // that may follow the beams of each block
};

// A block's shared memory. Row r of the decoder belongs to block r % C, as its `slot` r / C.
//
//   the head's operands: of a product those of norm_product; where few codes may follow the normed
//               rows bf16 [slots], and [8] rows of weights for each warp, `row_bytes` apart
//               when its logits are there ln z f64 [slots][W + 1] and used ads by warp
//   candidates  [C][N]       what each block has kept
//   logits      f32 [slots][W]
//   next        [slots]
//   beams       [slots]
//   keys        u64 [N], positions, sources and ranked u32 [N]  of the candidates that are kept
//   paths       u32 [slots][P]
//   StepBlock
struct StepMemory {
  unsigned char* base;
  unsigned n, codes, layers, positions, d, blocks;

  PTX_FN static unsigned round_up(unsigned bytes) { return (bytes + 15) / 16 * 16; }

  PTX_FN unsigned owner(unsigned row) const { return row % blocks; }
  PTX_FN unsigned slot_of(unsigned row) const { return row / blocks; }
  PTX_FN unsigned slots() const { return (n + blocks - 1) / blocks; }
  PTX_FN unsigned ln_z_bytes() const { return slots() * ways_stride(codes) * 8; }
  PTX_FN unsigned row_bytes() const { return (d + 15) / 16 * 32 + 16; }
  PTX_FN unsigned few_bytes() const { return (slots() + blockDim.x / 32 * FEW_CODES) * row_bytes(); }
  PTX_FN unsigned warp_words() const { return used_words((positions - 1) / layers, layers); }
  PTX_FN unsigned candidates_at() const {
    const unsigned expansion = ln_z_bytes() + blockDim.x / 32 * warp_words() * 4;
    return round_up(max(max(norm_product_bytes(d), few_bytes()), expansion));
  }
  PTX_FN unsigned logits_at() const { return candidates_at() + blocks * n * sizeof(Candidate); }
  PTX_FN unsigned next_at() const { return logits_at() + round_up(slots() * codes * 4); }
  PTX_FN unsigned beams_at() const { return next_at() + round_up(slots() * sizeof(NextBeam)); }
  PTX_FN unsigned keys_at() const { return beams_at() + round_up(slots() * sizeof(StepBeam)); }
  PTX_FN unsigned paths_at() const { return keys_at() + round_up(n * 20); }
  PTX_FN unsigned block_at() const { return paths_at() + round_up(slots() * positions * 4); }

  PTX_FN unsigned char* row(unsigned slot) const { return base + slot * row_bytes(); }
  PTX_FN unsigned char* weights(unsigned warp) const { return row(slots() + warp * FEW_CODES); }
  PTX_FN double* ln_z(unsigned slot) const { return (double*)base + slot * ways_stride(codes); }
  PTX_FN unsigned* used(unsigned warp) const {
    return (unsigned*)(base + ln_z_bytes()) + warp * warp_words();
  }
  PTX_FN Candidate* candidates() const { return (Candidate*)(base + candidates_at()); }
  PTX_FN float* logits() const { return (float*)(base + logits_at()); }
  PTX_FN NextBeam* next() const { return (NextBeam*)(base + next_at()); }
  PTX_FN StepBeam* beams() const { return (StepBeam*)(base + beams_at()); }
  PTX_FN unsigned long long* keys() const { return (unsigned long long*)(base + keys_at()); }
  PTX_FN unsigned* kept_positions() const { return (unsigned*)(keys() + n); }
  PTX_FN unsigned* sources() const { return kept_positions() + n; }
  PTX_FN unsigned* ranked() const { return sources() + n; }
  PTX_FN unsigned* path(unsigned slot) const {
    return (unsigned*)(base + paths_at()) + slot * positions;
  }
  PTX_FN StepBlock& block() const { return *(StepBlock*)(base + block_at()); }
};

}  // namespace search
