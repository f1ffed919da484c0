// A step of one request's search by the blocks of a cluster: head, expansion and selection without a
// word of logits or ln z in device memory. search_step_hopper.cu tells how.
#pragma once

#include "expand.cuh"
#include "norm_product.cuh"
#include "select.cuh"
#include "store.cuh"
#include "team.cuh"

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

// The head: norm and product with the rows of a code layer.
struct Head {
  NormedRows rows;
  const __nv_bfloat16* w;  // [W, d]
};

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

// The step of one request by one block of its cluster.
struct SearchStep {
  ClusterTeam& team;
  const StepMemory& memory;
  const Expansion& expansion;  // of the batch
  const Selection& in;         // of the request
  unsigned request, step, beam_count;

  PTX_FN unsigned owner(unsigned row) const { return row % memory.blocks; }
  PTX_FN unsigned slot_of(unsigned row) const { return row / memory.blocks; }
  PTX_FN unsigned warp() const { return threadIdx.x / 32; }
  PTX_FN unsigned warps() const { return blockDim.x / 32; }

  // The hidden states of the block's rows, and where `few` the operands of run_few.
  PTX_FN void store_hidden(const NormedRows& rows, bool few) const {
    for (unsigned slot = warp(); slot < memory.slots(); slot += warps()) {
      const unsigned row = slot * memory.blocks + team.rank();
      if (row < rows.m) store_normed(rows, row, few ? (uint32_t*)memory.row(slot) : nullptr);
    }
  }

  // Finds the beams of the block's rows, counts the codes that may follow those of every block, and
  // empties the candidates.
  PTX_FN void find_beams() const {
    unsigned* codes = memory.block().codes;
    if (threadIdx.x < MOST_BLOCKS) codes[threadIdx.x] = 0;
    for (unsigned slot = threadIdx.x; slot < memory.slots(); slot += blockDim.x)
      memory.beams()[slot].index = NONE;
    for (unsigned i = threadIdx.x; i < memory.blocks * in.n; i += blockDim.x)
      memory.candidates()[i].key = 0;
    __syncthreads();
    for (unsigned b = threadIdx.x; b < beam_count; b += blockDim.x) {
      const unsigned* words = in.beams + (size_t)b * BEAM_WORDS;
      const unsigned row = words[ROW], prefix = words[NODE];
      unsigned first = 0, count = 0, organic = NONE;
      if (words[LENGTH] == 0) {
        if (prefix != NONE) {
          first = first_of(in.nodes, prefix);
          count = first_of(in.nodes, prefix + 1) - first;
        }
        organic = organic_code(in, step, words);
        atomicAdd(&codes[owner(row)], count + (organic != NONE));
      }
      if (owner(row) != team.rank()) continue;
      memory.beams()[slot_of(row)] = {{count, NONE, first, false},
                                      in.sums[(size_t)b * SUMS + SCORE], b, organic};
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
  PTX_FN void run_few(const Head& head) const {
    unsigned turn = 0;
    for (unsigned slot = 0; slot < memory.slots(); ++slot) {
      const StepBeam& beam = memory.beams()[slot];
      if (beam.index == NONE) continue;
      const unsigned count = beam.ways.count + (beam.organic != NONE);
      for (unsigned base = 0; base < count; base += FEW_CODES, ++turn)
        if (turn % warps() == warp()) score_few(head, beam, slot, base);
    }
  }

  // Those of codes `base` to `base` + 7 of a beam; the organic item's is the last. Warp-wide.
  PTX_FN void score_few(const Head& head, const StepBeam& beam, unsigned slot,
                        unsigned base) const {
    const unsigned lane = threadIdx.x % 32, row_bytes = memory.row_bytes(), d = memory.d;
    const unsigned code = few_code(beam, base);
    unsigned char* weights = memory.weights(warp());
    for (unsigned row = 0; row < FEW_CODES; ++row) {
      const unsigned of_row = __shfl_sync(0xffffffff, code, row);
      const __nv_bfloat16* from = head.w + (of_row == NONE ? 0 : (size_t)of_row * d);
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
  PTX_FN void run_head(const Head& head) const {
    NormedRows rows = head.rows;
    rows.normed = nullptr;
    constexpr unsigned COLUMNS = 64;
    const unsigned tiles = (in.codes + COLUMNS - 1) / COLUMNS, codes = in.codes;
    const unsigned each = (tiles + memory.blocks - 1) / memory.blocks, first = team.rank() * each;
    if (first >= tiles) return;
    for (unsigned row = 0; row < in.n; row += NORM_ROWS) {
      const Place place{team.rank(), row / NORM_ROWS, 0, 1, 1, 1};
      norm_product<COLUMNS>(
          place, rows, head.w, codes, each, [](unsigned code) { return code; },
          [&](unsigned row, unsigned code, float a, float b, float c, float d) {
            const StoreF32 to{cluster_pointer(memory.logits(), owner(row))};
            store_pair(to, slot_of(row), codes, code, a, b);
            store_pair(to, slot_of(row), codes, code + 16, c, d);
          });
      __syncthreads();  // the next rows overwrite these
    }
  }

  // ln z of all ways on of the block's beams, a warp for each.
  PTX_FN void expand() const {
    for (unsigned slot = warp(); slot < memory.slots(); slot += warps()) {
      StepBeam& beam = memory.beams()[slot];
      if (beam.index == NONE) continue;
      const Ways ways = expand_beam(WarpCrew{}, expansion, request, beam.index,
                                    memory.logits() + (size_t)slot * in.codes,
                                    memory.block().expand[warp()], memory.used(warp()),
                                    memory.ln_z(slot), [](unsigned, double) {});
      if (threadIdx.x % 32 == 0) beam.ways = ways;
    }
  }

  // Hands the block's best ways on to all blocks.
  PTX_FN void offer(Top& top, unsigned& filled) const {
    auto each_way = [&](auto visit) {
      for (unsigned slot = warp(); slot < memory.slots(); slot += warps()) {
        const StepBeam& beam = memory.beams()[slot];
        const unsigned count = beam.index == NONE ? 0 : beam.ways.count;
        for (unsigned way = threadIdx.x % 32; way < count; way += 32) {
          const double z = memory.ln_z(slot)[way];
          if (z > MASKED)
            visit(Ranked{order_of(beam.score + z), beam.index * ways_stride(in.codes) + way}, slot,
                  way, z);
        }
      }
    };
    const Cut cut = top.cut(in.rules[WIDTH], [&](auto visit) {
      each_way([&](const Ranked& x, unsigned, unsigned, double) { visit(x); });
    });
    each_way([&](const Ranked& x, unsigned slot, unsigned way, double z) {
      if (!cut.keeps(x)) return;
      const Ways& ways = memory.beams()[slot].ways;
      const bool of_node = !ways.ends && way != ways.hole;
      const unsigned node =
          of_node ? ways.first + way - (ways.hole != NONE && way > ways.hole) : NONE;
      const Candidate candidate{x.key, z, x.position, node, slot * memory.blocks + team.rank(),
                                !ways.ends};
      const unsigned at = team.rank() * in.n + atomicAdd(&filled, 1u);
      for (unsigned block = 0; block < memory.blocks; ++block)
        cluster_pointer(memory.candidates(), block)[at] = candidate;
    });
  }

  // Ranks the best candidates of all blocks, in every block. Returns how many.
  PTX_FN unsigned keep_best(Top& top, unsigned& filled) const {
    const Candidate* candidates = memory.candidates();
    auto each = [&](auto visit) {
      for (unsigned i = threadIdx.x; i < memory.blocks * in.n; i += blockDim.x)
        if (candidates[i].key != 0) visit(Ranked{candidates[i].key, candidates[i].position}, i);
    };
    const Cut cut = top.cut(in.rules[WIDTH], [&](auto visit) {
      each([&](const Ranked& x, unsigned) { visit(x); });
    });
    each([&](const Ranked& x, unsigned i) {
      if (!cut.keeps(x)) return;
      const unsigned at = atomicAdd(&filled, 1u);
      memory.keys()[at] = x.key;
      memory.kept_positions()[at] = x.position;
      memory.sources()[at] = i;
    });
    __syncthreads();
    const unsigned count = filled;
    rank_all(memory.keys(), memory.kept_positions(), count,
             [&](unsigned rank, unsigned i) { memory.ranked()[rank] = memory.sources()[i]; });
    __syncthreads();
    return count;
  }

  PTX_FN const Candidate& kept(unsigned w) const {
    return memory.candidates()[memory.ranked()[w]];
  }

  // How many of the kept beams below w go on. Warp-wide.
  PTX_FN unsigned going_on(unsigned w) const {
    unsigned count = 0;
    for (unsigned base = 0; base < w; base += 32) {
      const unsigned i = base + threadIdx.x % 32;
      count += (unsigned)__popc(__ballot_sync(0xffffffff, i < w && kept(i).goes_on));
    }
    return count;
  }

  // Continues the beams w = rank, rank + C, .. of `count`, a warp for each, as far as nothing is
  // overwritten that others may still read.
  PTX_FN void follow_kept(unsigned count) const {
    const unsigned lane = threadIdx.x % 32, slot = step / in.layers;
    const bool closes = (step + 1) % in.layers == 0;
    for (unsigned own = warp(); own * memory.blocks + team.rank() < count; own += warps()) {
      const unsigned w = own * memory.blocks + team.rank();
      const Candidate& from = kept(w);
      const unsigned parent = from.position / ways_stride(in.codes);
      const unsigned* path = in.rows + (size_t)from.row * in.positions;
      for (unsigned p = lane; p <= step; p += 32) memory.path(own)[p] = path[p];
      NextBeam beam;
#pragma unroll
      for (unsigned i = 0; i < BEAM_WORDS; ++i)
        beam.words[i] = in.beams[(size_t)parent * BEAM_WORDS + i];
      beam.score = in.sums[(size_t)parent * SUMS + SCORE] + from.ln_z;
      beam.item_ln_z = in.sums[(size_t)parent * SUMS + ITEM_LN_Z] + from.ln_z;
      beam.words[ENDS] = !from.goes_on;
      beam.code = follow(in, step, from.node, beam.words);
      const unsigned before = going_on(w);
      beam.words[ROW] = from.goes_on ? before : in.n - 1 - (w - before);
      unsigned ad = NONE;
      if (closes && from.goes_on && from.node != NONE)
        ad = best_ad(in, path, slot, from.node, organic_row(in, beam.words), lane);
      if (lane != 0) continue;
      if (closes && from.goes_on) {
        close_item(in, ad, slot, beam.item_ln_z, beam.words);
        beam.item_ln_z = 0.0;
      }
      memory.next()[own] = beam;
    }
  }

  // Stores them.
  PTX_FN void store_kept(unsigned count) const {
    const unsigned lane = threadIdx.x % 32;
    for (unsigned own = warp(); own * memory.blocks + team.rank() < count; own += warps()) {
      const NextBeam& beam = memory.next()[own];
      unsigned* path = in.rows + (size_t)beam.words[ROW] * in.positions;
      for (unsigned p = lane; p <= step; p += 32) path[p] = memory.path(own)[p];
      if (lane == 0)
        store_beam(in, own * memory.blocks + team.rank(), beam.words, beam.score, beam.item_ln_z,
                   step % in.layers, beam.code);
    }
  }

  // What one block does for all: the step, the rows that are not in use, how many beams there are.
  PTX_FN void count_step(unsigned count, unsigned active) const {
    enter_rows(in, step + 1);
    for (unsigned row = active + threadIdx.x; row < in.n; row += blockDim.x) in.tokens[row] = in.boi;
    if (threadIdx.x != 0) return;
    in.progress[BEAMS] = count;
    in.progress[ROWS] = active;
  }

  // The request is at fault: whoever has the logit tells.
  PTX_FN void report_fault(unsigned fault) const {
    const unsigned beam = fault / in.codes, code = fault % in.codes;
    for (unsigned slot = threadIdx.x; slot < memory.slots(); slot += blockDim.x) {
      if (memory.beams()[slot].index != beam) continue;
      in.progress[FAULT_STEP] = step;
      in.progress[FAULT_BITS] = __float_as_uint(memory.logits()[(size_t)slot * in.codes + code]);
      in.progress[BEAMS] = in.progress[ROWS] = 0;
    }
    if (team.rank() == 0) enter_rows(in, step + 1);
  }

  // A request that is over only counts its steps. Its last hidden states still count.
  PTX_FN void idle(const NormedRows& rows) const {
    store_hidden(rows, false);
    team.sync();  // all know that it is over
    if (team.rank() != 0) return;
    enter_rows(in, step + 1);
    if (threadIdx.x != 0) return;
    in.progress[STEP] = step + 1;
    in.progress[ROWS] = 0;
  }

  // A request that is not over.
  PTX_FN void run(const Head& head) const {
    StepBlock& block = memory.block();
    Top top(block.top);
    if (threadIdx.x < 2) block.filled[threadIdx.x] = 0;
    find_beams();
    cluster_arrive();  // begun, and done with emptying candidates
    __syncthreads();
    const bool few = follows_few();
    store_hidden(head.rows, few);
    if (few) {
      __syncthreads();
      run_few(head);
      __syncthreads();
      expand();
      cluster_wait();
    } else {
      cluster_wait();
      run_head(head);
      team.sync();
      expand();
    }
    __syncthreads();
    offer(top, block.filled[0]);
    team.sync();
    if (team.rank() == 0 && threadIdx.x == 0) in.progress[STEP] = step + 1;
    const unsigned fault = in.progress[FAULT];
    if (fault != NONE) return report_fault(fault);
    const unsigned count = keep_best(top, block.filled[1]);
    follow_kept(count);
    team.sync();  // all have read what is overwritten now
    store_kept(count);
    if (team.rank() == 0) count_step(count, going_on(count));
  }
};

#endif  // HOPPER

}  // namespace search
