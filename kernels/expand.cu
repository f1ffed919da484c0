// One step of every beam (Eq. 21-22): the codes that may follow its prefix, what each weighs, and
// ln z of each.
//
// For beam q and code k let A(q, k) be the items that the beam may show next and whose codes start
// with (prefix of q, k): eligible ads below the child k of the prefix's node, without those that the
// beam has used and the excluded one; and its next organic item. Then
//   b = max of the bids in A, or their sum / |A|, organic items counting 0
//   x = logit[k] + ln(b^alpha + beta),   ln z = x - ln sum of e^x over all k with A not empty
//
// Tables as in search.cuh. Further arguments:
//   logits  f32 [R N][W]   of the rows at this step
//   ln_z    f64 [R N][W + 1]  out, by beam: of each child of the prefix's node in the order of its
//           codes, the organic item's code at its place among them; -infinity where nothing may
//           follow
//   best    u64 [R N][W / 32 + 1]  out: order_of(score + ln z), the highest of each 32 of these, 0
//           where there is none
//   beams   out: WAYS, HOLE and ENDS
//   progress  out: FAULT, where a logit that counts is not finite
//
// The terms of the sum are added as fixed-point numbers with 92 bits after the point: their order,
// and so the shape of the launch, does not show in the result.
//
// Launch: grid (N, R), block a multiple of 32 up to 256 threads, shared memory 4 S (C + 1) bytes.
// Work: per beam about (4 + 32 + 8 + 8) bytes and 60 f64 operations for each child; the children of
// the root, of which there are most, have their weights prepared. A used ad is taken out of a child's
// maximum by looking at the siblings along its path: at most S C W / 32 reads of a warp, and none
// where a higher bid is left.
//
// nvcc: --fmad=false
#include "search.cuh"

using namespace search;

namespace {

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
PTX_FN uint64_t max_without(const unsigned* nodes, const unsigned long long* bids,
                            const unsigned long long* ad_bids, const Used& used, unsigned child,
                            unsigned lane) {
  uint64_t best = 0;
  for (unsigned layer = used.layer; layer < used.layers; ++layer) {
    for (unsigned i = 0; i < used.count; ++i) {
      if (used.node(used.layer, i) != child) continue;
      const unsigned parent = used.node(layer, i);
      bool seen = false;
      for (unsigned j = 0; j < i && !seen; ++j) seen = used.node(layer, j) == parent;
      if (seen) continue;
      const unsigned end = first_of(nodes, parent + 1);
      for (unsigned at = first_of(nodes, parent) + lane; at < end; at += 32) {
        uint64_t bid = 0;
        if (layer + 1 < used.layers) {
          if (!used.behind(layer + 1, at)) bid = bids[(size_t)at * BID_WORDS + MAX];
        } else if (ad_bids[at] != NO_BID && !used.holds(at)) {
          bid = ad_bids[at];
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

// Gathers the ads that a beam with this path has used before slot `slot`, and the excluded one.
PTX_FN Used gather_used(unsigned* shared, const unsigned* nodes, const unsigned* ads,
                        const unsigned* chosen, const unsigned* path, size_t request_row,
                        size_t all_rows, unsigned excluded, unsigned slot, unsigned layer,
                        unsigned layers) {
  const unsigned count = slot + (excluded != NONE);
  unsigned* used_ads = shared;
  unsigned* used_nodes = shared + count;
  for (unsigned i = threadIdx.x; i < slot; i += blockDim.x) {
    const size_t row = request_row + path[(i + 1) * layers];
    const unsigned* words = chosen + (i * all_rows + row) * chosen_words(layers);
    used_ads[i] = words[CHOSEN_AD];
    for (unsigned at = layer; at < layers; ++at)
      used_nodes[at * count + i] = words[CHOSEN_NODES + at];
  }
  if (excluded != NONE && threadIdx.x == blockDim.x - 1) {
    used_ads[slot] = excluded;
    unsigned node = ads[(size_t)excluded * AD_WORDS + LEAF];
    for (unsigned at = layers; at-- > layer;) {
      used_nodes[at * count + slot] = node;
      node = nodes[(size_t)node * NODE_WORDS + PARENT];
    }
  }
  return {count, layer, layers, used_ads, used_nodes};
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

}  // namespace

extern "C" __global__ void __launch_bounds__(256, 3)
expand(const unsigned* __restrict__ nodes, const unsigned long long* __restrict__ bids,
       const unsigned* __restrict__ ads, const unsigned long long* __restrict__ ad_bids,
       const unsigned* __restrict__ rules, const double* __restrict__ terms,
       const unsigned* __restrict__ organic, const double* __restrict__ ln_w,
       const unsigned* __restrict__ rows, const unsigned* __restrict__ chosen,
       const double* __restrict__ sums, const float* __restrict__ logits, unsigned* progress,
       unsigned* beams, double* ln_z, unsigned long long* best, unsigned layers, unsigned codes,
       unsigned positions) {
  begin_kernel();
  DYN_SMEM(shared);
  __shared__ double maxima[32];
  __shared__ unsigned long long totals[32];
  __shared__ unsigned organic_at, organic_merged;

  const unsigned request = blockIdx.y, lane = threadIdx.x % 32;
  const size_t request_row = (size_t)request * gridDim.x, all_rows = (size_t)gridDim.x * gridDim.y;
  rules += request * RULES;
  terms += request * TERMS;
  progress += request * PROGRESS;
  if (blockIdx.x >= progress[BEAMS] || is_over(progress, rules, layers)) return;
  const size_t at_beam = request_row + blockIdx.x;
  unsigned* beam = beams + at_beam * BEAM_WORDS;
  ln_z += at_beam * ways_stride(codes);
  best += at_beam * groups_stride(codes);
  const double score = sums[at_beam * SUMS + SCORE];
  if (beam[LENGTH] != 0) {  // finished: its record stands
    if (threadIdx.x == 0) {
      ln_z[0] = 0.0;
      best[0] = order_of(score);
    }
    return;
  }

  const unsigned step = progress[STEP], layer = step % layers, slot = step / layers;
  const unsigned row = beam[ROW], prefix = beam[NODE];
  logits += (request_row + row) * codes;
  ln_w += ((size_t)request * layers + layer) * codes;
  const bool mean = rules[MEAN], by_code = rules[BY_CODE];

  unsigned children = 0, first = 0;
  if (prefix != NONE) {
    first = first_of(nodes, prefix);
    children = first_of(nodes, prefix + 1) - first;
  }
  const Used used =
      gather_used((unsigned*)shared, nodes, ads, chosen, rows + (request_row + row) * positions,
                  request_row, all_rows, rules[EXCLUDED], slot, layer, layers);
  unsigned organic_code = NONE;
  if (beam[ORGANIC_IN_PREFIX]) {
    const size_t item = rules[ORGANIC] + beam[ORGANICS_SHOWN];
    organic_code = organic[item * (1 + layers) + 1 + layer];
  }
  if (threadIdx.x == 0) organic_at = organic_merged = 0;
  __syncthreads();

  // x of a code behind which there is something; NaN and infinities are noted, and count as nothing.
  auto weigh = [&](unsigned code, double ln_weight_of_code) {
    const float logit = logits[code];
    if (isfinite(logit)) return ln_weight_of_code + (double)logit;
    atomicMin(&progress[FAULT], blockIdx.x * codes + code);
    return MASKED;
  };

  double max_x = MASKED;
  for (unsigned base = threadIdx.x - lane; base < children; base += blockDim.x) {
    const unsigned i = base + lane, child = first + i;
    const bool there = i < children;
    const unsigned code = there ? nodes[(size_t)child * NODE_WORDS + CODE] : NONE;
    Bids behind{0, 0, 0, 0};
    bool has_used = false, find_max = false;
    if (there) {
      behind = load_bids(bids, child);
      has_used = used.behind(layer, child);
      if (has_used) find_max = take_out(behind, ad_bids, used, child) && !mean && !by_code;
    }
    for (unsigned left = __ballot_sync(0xffffffff, find_max); left != 0; left &= left - 1) {
      const int owner = __ffs((int)left) - 1;
      const unsigned node = __shfl_sync(0xffffffff, child, owner);
      const uint64_t max = max_without(nodes, bids, ad_bids, used, node, lane);
      if ((int)lane == owner) behind.max = max;
    }
    const bool with_organic = there && code == organic_code;
    const unsigned before = __ballot_sync(0xffffffff, there && code < organic_code);
    if (organic_code != NONE) {
      if (lane == 0 && before != 0) atomicAdd(&organic_at, (unsigned)__popc(before));
      if (with_organic) organic_merged = 1;
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
  __syncthreads();

  // The organic item's own code, where no ad shares it.
  unsigned hole = NONE;
  if (organic_code != NONE) {
    hole = organic_at + organic_merged;
    if (threadIdx.x == 0) {
      double x = MASKED;
      if (!organic_merged) {
        x = weigh(organic_code, by_code ? ln_w[organic_code] : terms[LN_BETA]);
        max_x = x > max_x ? x : max_x;
      }
      ln_z[hole] = x;
    }
  }
  const unsigned ways = children + (organic_code != NONE);
  max_x = block_max(max_x, maxima);
  const bool ends = max_x == MASKED;
  if (threadIdx.x == 0) {
    beam[WAYS] = ends ? 1 : ways;
    beam[HOLE] = hole;
    beam[ENDS] = ends;
    if (ends) {
      ln_z[0] = 0.0;
      best[0] = order_of(score);
    }
  }
  if (ends) return;

  uint64_t high = 0, low = 0;
  for (unsigned i = threadIdx.x; i < ways; i += blockDim.x) add_exp(ln_z[i] - max_x, high, low);
  high = block_sum<unsigned long long>(high, totals);
  low = block_sum<unsigned long long>(low, totals);
  const double log_sum = max_x + libm::log(to_double(high, low));
  for (unsigned base = threadIdx.x - lane; base < ways; base += blockDim.x) {
    const unsigned i = base + lane;
    uint64_t order = 0;
    if (i < ways && ln_z[i] > MASKED) {
      ln_z[i] -= log_sum;
      order = order_of(score + ln_z[i]);
    }
    order = warp_max(order);
    if (lane == 0) best[i / GROUP] = order;
  }
}
