// The best ways on of a request become its next beams: the work of select.cu, which tells the rules,
// by one block.
#pragma once

#include "follow.cuh"
#include "place.cuh"
#include "top.cuh"

namespace search {

// What a block that selects needs of static shared memory.
struct SelectBlock {
  TopScratch top;
  unsigned filled[2], active_in_warp[32];
};

// What a step's expansions have left, by beam: see expand.cu.
struct WaysOn {
  const float* logits;
  const double* ln_z;
  const unsigned long long* best;
};

// The beams that are kept, while they are being made; each array [N] in shared memory.
struct Kept {
  unsigned long long* key;
  unsigned* position;  // beam and slot among its ways on
  unsigned* ranked;    // the same, best first
  unsigned* from;      // row that holds the parent's path
  unsigned* to;        // row that gets it
  unsigned* leaf;      // node of the full code, or NONE
  unsigned* item;      // the chosen item's ad or NONE

  PTX_FN Kept(unsigned char* shared, unsigned n) {
    key = (unsigned long long*)shared;
    position = (unsigned*)(key + n);
    ranked = position + n;
    from = ranked + n;
    to = from + n;
    leaf = to + n;
    item = leaf + n;
  }
};

// Ranks `count` elements: calls place(rank, i) for each, 0 being the rank of the best. Each is held
// against all others by four lanes. Block-wide.
template <class Rank>
PTX_FN void rank_all(const unsigned long long* key, const unsigned* position, unsigned count,
                     Rank place) {
  constexpr unsigned LANES = 4;
  const unsigned lane = threadIdx.x % 32;
  for (unsigned base = threadIdx.x - lane; base < count * LANES; base += blockDim.x) {
    const unsigned i = (base + lane) / LANES;
    const bool there = i < count;
    const Ranked x = there ? Ranked{key[i], position[i]} : Ranked{0, 0};
    unsigned rank = 0;
    for (unsigned j = lane % LANES; j < count; j += LANES)
      rank += better({key[j], position[j]}, x);
#pragma unroll
    for (unsigned lanes = 1; lanes < LANES; lanes *= 2)
      rank += __shfl_xor_sync(0xffffffff, rank, lanes);
    if (there && lane % LANES == 0) place(rank, i);
  }
}

// Chooses the best ways on and ranks them, as beam * (W + 1) + way. Returns how many: the beams of
// the next step. Block-wide; a barrier has passed since `top` was made and `filled` cleared.
PTX_FN unsigned keep_best(const Kept& kept, Top& top, unsigned (&filled)[2], const Selection& in,
                          const WaysOn& on, unsigned beam_count) {
  const unsigned stride = ways_stride(in.codes), groups = groups_stride(in.codes);
  const unsigned lane = threadIdx.x % 32, width = in.rules[WIDTH];
  auto ways_of = [&](unsigned b) { return in.beams[(size_t)b * BEAM_WORDS + WAYS]; };
  unsigned most = 0;
  for (unsigned b = lane; b < beam_count; b += 32) {
    const unsigned ways = ways_of(b);
    most = ways > most ? ways : most;
  }
  // Groups of the beam with the most; where a beam has fewer, nothing is read.
  const unsigned across = (warp_max(most) + GROUP - 1) / GROUP;

  // The best element of group i. Groups do not interleave, so that the group's index decides between
  // equal keys as the element's position would.
  auto each_group = [&](auto visit) {
    for (unsigned i = threadIdx.x; i < beam_count * across; i += blockDim.x) {
      const unsigned b = i / across, g = i % across;
      if (g * GROUP < ways_of(b)) visit(Ranked{on.best[(size_t)b * groups + g], i});
    }
  };
  const Cut group_cut = top.cut(width, each_group);
  each_group([&](const Ranked& group) {
    if (group_cut.keeps(group)) kept.ranked[atomicAdd(&filled[0], 1u)] = group.position;
  });
  __syncthreads();
  const unsigned chosen_groups = filled[0];

  auto each_way = [&](auto visit) {
    for (unsigned i = threadIdx.x; i < chosen_groups * GROUP; i += blockDim.x) {
      const unsigned group = kept.ranked[i / GROUP];
      const unsigned b = group / across, way = group % across * GROUP + i % GROUP;
      if (way >= ways_of(b)) continue;
      const double z = on.ln_z[(size_t)b * stride + way];
      if (z > MASKED)
        visit(Ranked{order_of(in.sums[(size_t)b * SUMS + SCORE] + z), b * stride + way});
    }
  };
  const Cut cut = top.cut(width, each_way);
  each_way([&](const Ranked& x) {
    if (!cut.keeps(x)) return;
    const unsigned at = atomicAdd(&filled[1], 1u);
    kept.key[at] = x.key;
    kept.position[at] = x.position;
  });
  __syncthreads();
  const unsigned count = filled[1];
  rank_all(kept.key, kept.position, count,
           [&](unsigned rank, unsigned i) { kept.ranked[rank] = kept.position[i]; });
  __syncthreads();
  return count;
}

// Moves each kept beam's path, entries 0 to `step`, to its new row. In place: all threads read, then
// all write. At most as many beams as threads; a barrier must stand before.
PTX_FN void move_paths(const Kept& kept, unsigned count, unsigned* rows, unsigned step,
                       unsigned positions) {
  constexpr unsigned EACH = 8;
  const unsigned most = blockDim.x * EACH / count;
  for (unsigned base = 0; base <= step; base += most) {
    const unsigned at_once = min(most, step + 1 - base);
    unsigned row[EACH];
#pragma unroll
    for (unsigned i = 0; i < EACH; ++i) {
      const unsigned at = threadIdx.x + i * blockDim.x, w = at / at_once;
      if (w < count) row[i] = rows[(size_t)kept.from[w] * positions + base + at % at_once];
    }
    __syncthreads();
#pragma unroll
    for (unsigned i = 0; i < EACH; ++i) {
      const unsigned at = threadIdx.x + i * blockDim.x, w = at / at_once;
      if (w < count) rows[(size_t)kept.to[w] * positions + base + at % at_once] = row[i];
    }
  }
}

// What becomes of a request that is over, or at fault since this step.
PTX_FN void end_request(const Selection& in, const float* logits, bool at_fault, unsigned step) {
  enter_rows(in, step + 1);
  if (threadIdx.x != 0) return;
  unsigned* progress = in.progress;
  progress[ROWS] = 0;
  if (!at_fault) return;
  const unsigned beam = progress[FAULT] / in.codes, code = progress[FAULT] % in.codes;
  const unsigned row = in.beams[(size_t)beam * BEAM_WORDS + ROW];
  progress[FAULT_STEP] = step;
  progress[FAULT_BITS] = __float_as_uint(logits[(size_t)row * in.codes + code]);
  progress[BEAMS] = 0;
}

// Continues the kept beams, one by each thread, and stores them. Block-wide.
PTX_FN void continue_beams(const Kept& kept, unsigned count, const Selection& in, const WaysOn& on,
                           unsigned (&active_in_warp)[32], unsigned step) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const unsigned layer = step % in.layers, slot = step / in.layers, w = threadIdx.x;
  unsigned beam[BEAM_WORDS], code = NONE;
  double score = 0.0, item_ln_z = 0.0;
  if (w < count) {
    const unsigned stride = ways_stride(in.codes);
    const unsigned parent = kept.ranked[w] / stride, way = kept.ranked[w] % stride;
#pragma unroll
    for (unsigned i = 0; i < BEAM_WORDS; ++i) beam[i] = in.beams[(size_t)parent * BEAM_WORDS + i];
    const double z = on.ln_z[(size_t)parent * stride + way];
    score = in.sums[(size_t)parent * SUMS + SCORE] + z;
    item_ln_z = in.sums[(size_t)parent * SUMS + ITEM_LN_Z] + z;
    kept.from[w] = beam[ROW];
    unsigned node = NONE;
    if (!beam[ENDS] && way != beam[HOLE])
      node = first_of(in.nodes, beam[NODE]) + way - (beam[HOLE] != NONE && way > beam[HOLE]);
    code = follow(in, step, node, beam);
    kept.leaf[w] = code == NONE ? NONE : beam[NODE];
    kept.item[w] = code == NONE ? NONE : organic_row(in, beam);
  }
  const unsigned in_warp = __ballot_sync(0xffffffff, code != NONE);
  if (lane == 0) active_in_warp[warp] = (unsigned)__popc(in_warp);
  __syncthreads();
  unsigned before = (unsigned)__popc(in_warp & ((1u << lane) - 1)), active_count = 0;
  for (unsigned other = 0; other < warps; ++other) {
    before += other < warp ? active_in_warp[other] : 0;
    active_count += active_in_warp[other];
  }
  // Unfinished beams take the rows from the first on, finished ones those from the last down.
  if (w < count) kept.to[w] = beam[ROW] = code != NONE ? before : in.n - 1 - (w - before);

  const bool closes = layer + 1 == in.layers;
  if (closes) {
    for (unsigned i = warp; i < count; i += warps) {
      const unsigned leaf = kept.leaf[i], organic = kept.item[i];
      const unsigned* path = in.rows + (size_t)kept.from[i] * in.positions;
      const unsigned ad = leaf == NONE ? NONE : best_ad(in, path, slot, leaf, organic, lane);
      __syncwarp();
      if (lane == 0) kept.item[i] = ad;
    }
  }
  __syncthreads();
  move_paths(kept, count, in.rows, step, in.positions);
  enter_rows(in, step + 1);

  if (w < count) {
    if (closes && code != NONE) {
      close_item(in, kept.item[w], slot, item_ln_z, beam);
      item_ln_z = 0.0;
    }
    store_beam(in, w, beam, score, item_ln_z, layer, code);
  }
  for (unsigned row = active_count + w; row < in.n; row += blockDim.x) in.tokens[row] = in.boi;
  if (w == 0) {
    in.progress[BEAMS] = count;
    in.progress[ROWS] = active_count;
  }
}

// The work of block `place` of the kernel `select_beams`: request place.y. `kept` is its dynamic
// shared memory. Block-wide; a barrier must follow before the memory is used again.
PTX_FN void select_block(const Place& place, const Selection& all, const WaysOn& all_on,
                         SelectBlock& shared, unsigned char* kept) {
  const unsigned request = place.y;
  const Selection in = all.of(request);
  const size_t first = in.first_row(request);
  const WaysOn on{all_on.logits + first * in.codes, all_on.ln_z + first * ways_stride(in.codes),
                  all_on.best + first * groups_stride(in.codes)};
  unsigned* progress = in.progress;
  const unsigned step = progress[STEP], beam_count = progress[BEAMS];
  const bool at_fault = progress[FAULT] != NONE && progress[FAULT_STEP] == NONE;
  const bool over = at_fault || is_over(progress, in.rules, in.layers);
  Top top(shared.top);
  if (threadIdx.x < 2) shared.filled[threadIdx.x] = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    progress[STEP] = step + 1;
    if (request == 0) *in.position = step + 1;
  }
  if (over) return end_request(in, on.logits, at_fault, step);
  const Kept beams(kept, in.n);
  const unsigned count = keep_best(beams, top, shared.filled, in, on, beam_count);
  continue_beams(beams, count, in, on, shared.active_in_warp, step);
}

}  // namespace search
