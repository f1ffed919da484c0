// What may follow a beam and ln z of each: the work of expand.cu, which tells the math, for one beam
// and the crew that has it.
//
// Compiled with --fmad=false, as libm.cuh wants it.
#pragma once

#include "crew.cuh"
#include "place.cuh"

namespace search {

// Tables as in search.cuh and expand.cu, of R requests with N rows each.
struct Expansion {
  const unsigned* nodes;
  const unsigned long long* bids;
  const unsigned* ads;
  const unsigned long long* ad_bids;
  const unsigned* rules;
  const double* terms;
  const unsigned* organic;
  const double* ln_w;
  const unsigned* rows;
  const unsigned* chosen;
  const double* sums;
  const unsigned* beams;
  unsigned* progress;
  unsigned layers, codes, positions;
  unsigned n, requests;
};

// What an expansion needs of shared memory, with `used_words(..)` words of the crew's own.
struct ExpandScratch {
  unsigned organic_at, organic_merged;
};

PTX_FN unsigned used_words(unsigned slots, unsigned layers) { return slots * (layers + 1); }

// What an expansion comes to, beside ln z of every way on.
struct __align__(16) Ways {
  unsigned count;  // of ways on, 1 where the beam itself is the only one
  unsigned hole;   // HOLE of search.cuh
  unsigned first;  // the node of the first child
  bool ends;       // nothing may follow
};

// The ads that a beam may not show again, with their nodes in every level from the children of the
// prefix on.
struct Used {
  unsigned count;
  unsigned layer;    // code layer of the prefix's children
  unsigned layers;
  const unsigned* ads;    // [count]
  const unsigned* nodes;  // [layers][count], from `layer` on

  PTX_FN unsigned node(unsigned at_layer, unsigned i) const { return nodes[at_layer * count + i]; }

  PTX_FN bool behind(unsigned at_layer, unsigned node_there) const {
    for (unsigned i = 0; i < count; ++i)
      if (node(at_layer, i) == node_there) return true;
    return false;
  }

  PTX_FN bool holds(unsigned ad) const {
    for (unsigned i = 0; i < count; ++i)
      if (ads[i] == ad) return true;
    return false;
  }
};

// The highest bid behind `child`, a node of layer used.layer, without the used ads. Warp-wide.
//
// Only parents of used ads are opened; of all other nodes on the way the prepared maximum counts.
PTX_FN uint64_t max_without(const Expansion& in, const Used& used, unsigned child, unsigned lane) {
  uint64_t best = 0;
  for (unsigned layer = used.layer; layer < used.layers; ++layer) {
    for (unsigned i = 0; i < used.count; ++i) {
      if (used.node(used.layer, i) != child) continue;
      const unsigned parent = used.node(layer, i);
      bool seen = false;
      for (unsigned j = 0; j < i && !seen; ++j) seen = used.node(layer, j) == parent;
      if (seen) continue;
      const unsigned end = first_of(in.nodes, parent + 1);
      for (unsigned at = first_of(in.nodes, parent) + lane; at < end; at += 32) {
        uint64_t bid = 0;
        if (layer + 1 < used.layers) {
          if (!used.behind(layer + 1, at)) bid = in.bids[(size_t)at * BID_WORDS + MAX];
        } else if (in.ad_bids[at] != NO_BID && !used.holds(at)) {
          bid = in.ad_bids[at];
        }
        best = bid > best ? bid : best;
      }
    }
  }
  return warp_max(best);
}

// Takes the used ads out of the bids behind `child`. Returns whether the maximum must be found anew.
PTX_FN bool take_out(Bids& behind, const unsigned long long* ad_bids, const Used& used,
                     unsigned child) {
  bool lost_max = false;
  for (unsigned i = 0; i < used.count; ++i) {
    if (used.node(used.layer, i) != child) continue;
    const uint64_t bid = ad_bids[used.ads[i]];
    if (bid == NO_BID) continue;
    behind.count -= 1;
    behind.low -= bid & 0xffffffff;
    behind.high -= bid >> 32;
    lost_max |= bid == behind.max;
  }
  return lost_max && behind.count > 0;
}

// e^x for x <= 0 in units of 2^-46 and, of what is left, of 2^-92.
PTX_FN void add_exp(double x, uint64_t& high, uint64_t& low) {
  const double scaled = libm::exp(x) * 0x1p46;
  const uint64_t whole = (uint64_t)scaled;
  high += whole;
  low += (uint64_t)((scaled - (double)whole) * 0x1p46);
}

PTX_FN double to_double(uint64_t high, uint64_t low) {
  const double whole = (double)(high + (low >> 46));
  return (whole + (double)(low & ((1ull << 46) - 1)) * 0x1p-46) * 0x1p-46;
}

// The expansion of one beam that is not finished.
template <class Crew>
struct Expander {
  const Crew& crew;
  const Expansion& in;
  ExpandScratch& scratch;
  const float* logits;  // [W], of the beam's row
  double* ln_z;         // [W + 1]
  unsigned index;       // the beam's, in its request
  const unsigned* rules;
  const double* terms;
  unsigned* progress;
  const unsigned* beam;
  size_t request_row;
  unsigned layer, slot;
  const double* ln_w;
  bool mean, by_code;
  unsigned first, children, organic_code;

  PTX_FN Expander(const Crew& crew, const Expansion& in, ExpandScratch& scratch, unsigned request,
                  unsigned index, const float* logits, double* ln_z)
      : crew(crew), in(in), scratch(scratch), logits(logits), ln_z(ln_z), index(index) {
    rules = in.rules + request * RULES;
    terms = in.terms + request * TERMS;
    progress = in.progress + request * PROGRESS;
    request_row = (size_t)request * in.n;
    beam = in.beams + (request_row + index) * BEAM_WORDS;
    layer = progress[STEP] % in.layers;
    slot = progress[STEP] / in.layers;
    ln_w = in.ln_w + ((size_t)request * in.layers + layer) * in.codes;
    mean = rules[MEAN];
    by_code = rules[BY_CODE];
    const unsigned prefix = beam[NODE];
    first = prefix == NONE ? 0 : first_of(in.nodes, prefix);
    children = prefix == NONE ? 0 : first_of(in.nodes, prefix + 1) - first;
    organic_code = NONE;
    if (beam[ORGANIC_IN_PREFIX]) {
      const size_t item = rules[ORGANIC] + beam[ORGANICS_SHOWN];
      organic_code = in.organic[item * (1 + in.layers) + 1 + layer];
    }
  }

  // Gathers into `words` the ads that the beam has used in its slots, and the excluded one.
  PTX_FN Used gather_used(unsigned* words) const {
    const size_t all_rows = (size_t)in.n * in.requests;
    const unsigned* path = in.rows + (request_row + beam[ROW]) * in.positions;
    const unsigned excluded = rules[EXCLUDED], count = slot + (excluded != NONE);
    unsigned *used_ads = words, *used_nodes = words + count;
    for (unsigned i = crew.rank(); i < slot; i += crew.size()) {
      const size_t row = request_row + path[(i + 1) * in.layers];
      const unsigned* closed = in.chosen + (i * all_rows + row) * chosen_words(in.layers);
      used_ads[i] = closed[CHOSEN_AD];
      for (unsigned at = layer; at < in.layers; ++at)
        used_nodes[at * count + i] = closed[CHOSEN_NODES + at];
    }
    if (excluded != NONE && crew.rank() == crew.size() - 1) {
      used_ads[slot] = excluded;
      unsigned node = in.ads[(size_t)excluded * AD_WORDS + LEAF];
      for (unsigned at = in.layers; at-- > layer;) {
        used_nodes[at * count + slot] = node;
        node = in.nodes[(size_t)node * NODE_WORDS + PARENT];
      }
    }
    return {count, layer, in.layers, used_ads, used_nodes};
  }

  // x of a code behind which there is something; NaN and infinities are noted, and count as nothing.
  PTX_FN double weigh(unsigned code, double ln_weight_of_code) const {
    const float logit = logits[code];
    if (isfinite(logit)) return ln_weight_of_code + (double)logit;
    atomicMin(&progress[FAULT], index * in.codes + code);
    return MASKED;
  }

  // x of all children, each at its place among the ways on. Returns the highest of this thread's.
  PTX_FN double weigh_children(const Used& used) const {
    const unsigned lane = threadIdx.x % 32;
    double max_x = MASKED;
    for (unsigned base = crew.rank() - lane; base < children; base += crew.size()) {
      const unsigned i = base + lane, child = first + i;
      const bool there = i < children;
      const unsigned code = there ? in.nodes[(size_t)child * NODE_WORDS + CODE] : NONE;
      Bids behind{0, 0, 0, 0};
      bool has_used = false, find_max = false;
      if (there) {
        behind = load_bids(in.bids, child);
        has_used = used.behind(layer, child);
        if (has_used) find_max = take_out(behind, in.ad_bids, used, child) && !mean && !by_code;
      }
      for (unsigned left = __ballot_sync(0xffffffff, find_max); left != 0; left &= left - 1) {
        const int owner = __ffs((int)left) - 1;
        const unsigned node = __shfl_sync(0xffffffff, child, owner);
        const uint64_t max = max_without(in, used, node, lane);
        if ((int)lane == owner) behind.max = max;
      }
      const bool with_organic = there && code == organic_code;
      const unsigned before = __ballot_sync(0xffffffff, there && code < organic_code);
      if (organic_code != NONE) {
        if (lane == 0 && before != 0) atomicAdd(&scratch.organic_at, (unsigned)__popc(before));
        if (with_organic) scratch.organic_merged = 1;
      }
      if (!there) continue;
      double x = MASKED;
      if (behind.count > 0 || with_organic) {
        double weight;
        if (by_code) {
          weight = ln_w[code];
        } else if (layer == 0 && !has_used && !with_organic) {
          weight = ln_w[i];
        } else {
          if (behind.count == 0) behind.max = 0;
          weight = ln_weight(behind, with_organic, mean, terms);
        }
        x = weigh(code, weight);
      }
      ln_z[i + (organic_code != NONE && code > organic_code)] = x;
      max_x = x > max_x ? x : max_x;
    }
    return max_x;
  }

  // The organic item's own code, where no ad shares it: x at its place, by one thread. Returns the
  // place; `max_x` is that thread's.
  PTX_FN unsigned weigh_organic(double& max_x) const {
    const unsigned hole = scratch.organic_at + scratch.organic_merged;
    if (crew.rank() == 0) {
      double x = MASKED;
      if (!scratch.organic_merged) {
        x = weigh(organic_code, by_code ? ln_w[organic_code] : terms[LN_BETA]);
        max_x = x > max_x ? x : max_x;
      }
      ln_z[hole] = x;
    }
    return hole;
  }

  // From x to ln z of all ways on. Calls `each(i, ln z)` in whole warps for groups of 32 ways, with
  // -infinity past the last.
  template <class Each>
  PTX_FN void normalize(unsigned ways, double max_x, Each each) const {
    uint64_t high = 0, low = 0;
    for (unsigned i = crew.rank(); i < ways; i += crew.size()) add_exp(ln_z[i] - max_x, high, low);
    crew.sum(high, low);
    const double log_sum = max_x + libm::log(to_double(high, low));
    const unsigned lane = threadIdx.x % 32;
    for (unsigned base = crew.rank() - lane; base < ways; base += crew.size()) {
      const unsigned i = base + lane;
      double z = i < ways ? ln_z[i] : MASKED;
      if (z > MASKED) ln_z[i] = z -= log_sum;
      each(i, z);
    }
  }
};

// Expands beam `index` of a request: ln z of its ways on go to `ln_z` [W + 1], `each` as normalize
// has it. `logits` [W] are those of the beam's row; `words`, used_words(..), are the crew's own.
// Crew-wide, for a request that is not over. A beam that is finished, or behind which nothing may
// follow, has itself as its only way on.
template <class Crew, class Each>
PTX_FN Ways expand_beam(const Crew& crew, const Expansion& in, unsigned request, unsigned index,
                        const float* logits, ExpandScratch& scratch, unsigned* words, double* ln_z,
                        Each each) {
  const Expander<Crew> expander(crew, in, scratch, request, index, logits, ln_z);
  Ways found{1, NONE, expander.first, true};
  if (expander.beam[LENGTH] == 0) {
    const Used used = expander.gather_used(words);
    if (crew.rank() == 0) scratch.organic_at = scratch.organic_merged = 0;
    crew.sync();
    double max_x = expander.weigh_children(used);
    crew.sync();
    const bool organic = expander.organic_code != NONE;
    if (organic) found.hole = expander.weigh_organic(max_x);
    max_x = crew.max(max_x);
    found.ends = max_x == MASKED;
    if (!found.ends) {
      found.count = expander.children + organic;
      expander.normalize(found.count, max_x, each);
    }
  }
  if (found.ends && crew.rank() == 0) ln_z[0] = 0.0;
  return found;
}

// What a block that expands needs of static shared memory.
struct ExpandBlock {
  CrewScratch crew;
  ExpandScratch scratch;
};

// Where a step's expansions go, by beam: see expand.cu.
struct Expanded {
  unsigned* beams;
  double* ln_z;
  unsigned long long* best;
};

// The work of block `place` of the kernel `expand`: beam place.x of request place.y. `words` is its
// dynamic shared memory. Block-wide; a barrier must follow before the memory is used again.
PTX_FN void expand_block(const Place& place, const Expansion& in, const float* logits,
                         const Expanded& out, ExpandBlock& shared, unsigned* words) {
  const unsigned request = place.y, index = place.x;
  const unsigned* progress = in.progress + request * PROGRESS;
  if (index >= progress[BEAMS] || is_over(progress, in.rules + request * RULES, in.layers)) return;
  const size_t request_row = (size_t)request * in.n, at = request_row + index;
  unsigned* beam = out.beams + at * BEAM_WORDS;
  const double score = in.sums[at * SUMS + SCORE];
  unsigned long long* best = out.best + at * groups_stride(in.codes);
  const bool finished = beam[LENGTH] != 0;
  const Ways ways = expand_beam(
      BlockCrew{shared.crew}, in, request, index, logits + (request_row + beam[ROW]) * in.codes,
      shared.scratch, words, out.ln_z + at * ways_stride(in.codes), [&](unsigned i, double z) {
        const uint64_t order = warp_max(z > MASKED ? order_of(score + z) : 0);
        if (i % GROUP == 0) best[i / GROUP] = order;
      });
  if (threadIdx.x != 0) return;
  if (ways.ends) best[0] = order_of(score);
  if (finished) return;  // its record stands
  beam[WAYS] = ways.count;
  beam[HOLE] = ways.hole;
  beam[ENDS] = ways.ends;
}

}  // namespace search
