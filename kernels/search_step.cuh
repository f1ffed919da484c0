// A step of one request's search by the blocks of a cluster: head, expansion and selection without a
// word of logits or ln z in device memory. search_step_hopper.cu tells how.
#pragma once

#include "select.cuh"
#include "step_head.cuh"
#include "team.cuh"

namespace search {

#ifdef HOPPER

// The step of one request by one block of its cluster.
struct SearchStep {
  ClusterTeam& team;
  const StepMemory& memory;
  const Expansion& expansion;  // of the batch
  const Selection& in;         // of the request
  unsigned request, step, beam_count;

  PTX_FN unsigned warp() const { return threadIdx.x / 32; }
  PTX_FN unsigned warps() const { return blockDim.x / 32; }

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
        atomicAdd(&codes[memory.owner(row)], count + (organic != NONE));
      }
      if (memory.owner(row) != team.rank()) continue;
      memory.beams()[memory.slot_of(row)] = {{count, NONE, first, false},
                                             in.sums[(size_t)b * SUMS + SCORE], b, organic};
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
  PTX_FN void idle(const StepHead& head) const {
    head.store_hidden(false);
    team.sync();  // all know that it is over
    if (team.rank() != 0) return;
    enter_rows(in, step + 1);
    if (threadIdx.x != 0) return;
    in.progress[STEP] = step + 1;
    in.progress[ROWS] = 0;
  }

  // A request that is not over.
  PTX_FN void run(const StepHead& head) const {
    StepBlock& block = memory.block();
    Top top(block.top);
    if (threadIdx.x < 2) block.filled[threadIdx.x] = 0;
    find_beams();
    cluster_arrive();  // begun, and done with emptying candidates
    __syncthreads();
    const bool few = head.follows_few();
    head.store_hidden(few);
    if (few) {
      __syncthreads();
      head.score_all_few();
      __syncthreads();
      expand();
      cluster_wait();
    } else {
      cluster_wait();
      head.multiply();
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
