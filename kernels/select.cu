// From the ways on of a step to the next beams: the N_S best of a request by score + ln z (ties:
// lower beam, then lower code), each continued by its code; at the last layer the item with the
// highest bid behind the full code (ties: higher splitmix64(seed ^ id)), and the next slot opened
// under the ad policy. A beam behind which nothing may follow is kept as it is, finished.
//
// Tables as in search.cuh, `ln_z` and `best` as expand.cu leaves them. Further arguments:
//   logits    f32 [R N][W]   of this step, to tell which was not finite
//   tokens    u32 [R N]      out: the next input token of each row; rows not in use get [BOI]
//   position  u32 [1]        out: the next position
//   first_code_token         the token of code 0 in layer 0; `boi`: the token [BOI]
// A request that is over or at fault only counts its steps.
//
// Selection: every group of 32 ways on has its best element known. The N_S best elements lie in the
// N_S groups with the best of these, so two small selections do, of N W / 32 and of 32 N_S elements,
// however many ways there are; then the kept are ranked by counting the better ones.
//
// Launch: grid (1, R), block of at least N threads, a multiple of 32 up to 1,024; shared memory 32 N
// bytes.
// Work: reads 8 bytes for each group and each element of a chosen group, a few times over; moves
// 4 P bytes of path for each beam. One block for each request: with few requests the GPU waits for
// its barriers (some 40), not for memory.
//
// nvcc: --fmad=false
#include "top.cuh"

using namespace search;

namespace {

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

// Chooses the best elements and ranks them. Returns how many: the beams of the next step.
PTX_FN unsigned keep_best(const Kept& kept, TopScratch& scratch, unsigned* filled,
                          const unsigned* beams, const double* sums, const double* ln_z,
                          const unsigned long long* best, unsigned beam_count, unsigned width,
                          unsigned codes) {
  const unsigned stride = ways_stride(codes), groups = groups_stride(codes);
  unsigned most = 0;
  for (unsigned b = threadIdx.x; b < beam_count; b += blockDim.x) {
    const unsigned ways = beams[(size_t)b * BEAM_WORDS + WAYS];
    most = ways > most ? ways : most;
  }
  // Groups of the beam with the most; where a beam has fewer, nothing is read.
  const unsigned across = (block_max(most, scratch.histogram) + GROUP - 1) / GROUP;

  // The best element of group i. Groups do not interleave, so that the group's index decides between
  // equal keys as the element's position would.
  auto group_at = [&](unsigned i) {
    const unsigned b = i / across, g = i % across;
    if (g * GROUP >= beams[(size_t)b * BEAM_WORDS + WAYS]) return Ranked{0, 0};
    return Ranked{best[(size_t)b * groups + g], i};
  };
  const Cut group_cut = cut_of(beam_count * across, width, scratch, group_at);
  if (threadIdx.x == 0) *filled = 0;
  __syncthreads();
  for (unsigned i = threadIdx.x; i < beam_count * across; i += blockDim.x) {
    const Ranked group = group_at(i);
    if (group_cut.keeps(group)) kept.ranked[atomicAdd(filled, 1u)] = group.position;
  }
  __syncthreads();
  const unsigned chosen_groups = *filled;

  auto way_at = [&](unsigned i) {
    const unsigned group = kept.ranked[i / GROUP];
    const unsigned b = group / across, way = group % across * GROUP + i % GROUP;
    if (way >= beams[(size_t)b * BEAM_WORDS + WAYS]) return Ranked{0, 0};
    const double z = ln_z[(size_t)b * stride + way];
    const uint64_t key = z > MASKED ? order_of(sums[(size_t)b * SUMS + SCORE] + z) : 0;
    return Ranked{key, b * stride + way};
  };
  const Cut cut = cut_of(chosen_groups * GROUP, width, scratch, way_at);
  __syncthreads();
  if (threadIdx.x == 0) *filled = 0;
  __syncthreads();
  for (unsigned i = threadIdx.x; i < chosen_groups * GROUP; i += blockDim.x) {
    const Ranked x = way_at(i);
    if (!cut.keeps(x)) continue;
    const unsigned at = atomicAdd(filled, 1u);
    kept.key[at] = x.key;
    kept.position[at] = x.position;
  }
  __syncthreads();
  const unsigned count = *filled;
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
    const Ranked x{kept.key[i], kept.position[i]};
    unsigned rank = 0;
    for (unsigned j = 0; j < count; ++j) rank += better({kept.key[j], kept.position[j]}, x);
    kept.ranked[rank] = x.position;
  }
  __syncthreads();
  return count;
}

// The ad with the highest bid below `leaf` that the path has not used, or NONE where that is the
// organic item (bid 0, hash `organic_hash`). Warp-wide; slots below `slot` are filled.
PTX_FN unsigned best_ad(const unsigned* nodes, const unsigned long long* ad_bids,
                        const unsigned long long* ad_ids, const unsigned* chosen,
                        const unsigned* path, size_t request_row, size_t all_rows,
                        unsigned excluded, unsigned slot, unsigned layers, unsigned leaf,
                        bool with_organic, uint64_t organic_hash, uint64_t seed, unsigned lane) {
  // Lane i holds the ad of slot i: there are at most 32 slots, and one of them is being filled.
  unsigned used = NONE;
  if (lane < slot) {
    const size_t row = request_row + path[(lane + 1) * layers];
    used = chosen[(lane * all_rows + row) * chosen_words(layers) + CHOSEN_AD];
  }
  uint64_t top_bid = 0, top_hash = with_organic ? organic_hash : 0;
  unsigned top = NONE;
  bool any = with_organic;
  const unsigned end = first_of(nodes, leaf + 1);
  for (unsigned base = first_of(nodes, leaf); base < end; base += 32) {
    const unsigned ad = base + lane;
    bool shown = ad < end && ad != excluded && ad_bids[ad] != NO_BID;
    for (unsigned i = 0; i < slot; ++i) shown &= __shfl_sync(0xffffffff, used, i) != ad;
    if (!shown) continue;
    const uint64_t bid = ad_bids[ad], hash = splitmix64(seed ^ ad_ids[ad]);
    if (!any || bid > top_bid || (bid == top_bid && hash > top_hash)) {
      any = true;
      top_bid = bid;
      top_hash = hash;
      top = ad;
    }
  }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const bool other_any = __shfl_xor_sync(0xffffffff, (unsigned)any, lanes);
    const uint64_t bid = __shfl_xor_sync(0xffffffff, top_bid, lanes);
    const uint64_t hash = __shfl_xor_sync(0xffffffff, top_hash, lanes);
    const unsigned other = __shfl_xor_sync(0xffffffff, top, lanes);
    if (other_any && (!any || bid > top_bid || (bid == top_bid && hash > top_hash))) {
      any = true;
      top_bid = bid;
      top_hash = hash;
      top = other;
    }
  }
  return top;
}

// Notes that a beam has filled `slot` with `ad`, or with its next organic item, in the chosen `words`
// of its row.
PTX_FN void close_item(const unsigned* rules, const unsigned* nodes, const unsigned* ads,
                       const unsigned* organic, unsigned ad, unsigned slot, unsigned layers,
                       unsigned* beam, unsigned* words) {
  words[CHOSEN_AD] = ad;
  if (ad == NONE) {
    const size_t item = rules[ORGANIC] + beam[ORGANICS_SHOWN];
    words[CHOSEN_ITEM] = organic[item * (1 + layers)];
    beam[ORGANICS_SHOWN] += 1;
  } else {
    words[CHOSEN_ITEM] = ads[(size_t)ad * AD_WORDS + ITEM];
    beam[ADS_SHOWN] += 1;
    beam[LAST_AD] = slot;
  }
  unsigned node = ad == NONE ? NONE : beam[NODE];
  for (unsigned layer = layers; layer-- > 0;) {
    words[CHOSEN_NODES + layer] = node;
    if (node != NONE) node = nodes[(size_t)node * NODE_WORDS + PARENT];
  }
}

// Moves each kept beam's path, entries 0 to `step`, to its new row, and enters the row itself at
// step + 1. In place: all threads read, then all write, a few positions at a time.
PTX_FN void move_paths(const Kept& kept, unsigned count, unsigned* rows, unsigned step,
                       unsigned positions) {
  const unsigned at_once = blockDim.x / count;
  const unsigned beam = threadIdx.x % count, offset = threadIdx.x / count;
  for (unsigned base = 0; base <= step; base += at_once) {
    const unsigned p = base + offset;
    const bool moves = offset < at_once && p <= step;
    unsigned row = 0;
    if (moves) row = rows[(size_t)kept.from[beam] * positions + p];
    __syncthreads();
    if (moves) rows[(size_t)kept.to[beam] * positions + p] = row;
    __syncthreads();
  }
}

// Rows that are not in use are run too, and thrown away: they need some token and path.
PTX_FN void enter_rows(unsigned* rows, unsigned n, unsigned position, unsigned positions) {
  if (position >= positions) return;
  for (unsigned row = threadIdx.x; row < n; row += blockDim.x)
    rows[(size_t)row * positions + position] = row;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(1024)
select_beams(const unsigned* __restrict__ nodes, const unsigned* __restrict__ ads,
       const unsigned long long* __restrict__ ad_bids,
       const unsigned long long* __restrict__ ad_ids, const unsigned* __restrict__ rules,
       const unsigned long long* __restrict__ seeds, const unsigned* __restrict__ organic,
       const unsigned long long* __restrict__ organic_ids, const float* __restrict__ logits,
       const double* __restrict__ ln_z, const unsigned long long* __restrict__ best,
       unsigned* progress, unsigned* beams, double* sums, unsigned* rows, unsigned* chosen,
       double* chosen_ln_z, unsigned* tokens, unsigned* position, unsigned n, unsigned layers,
       unsigned codes, unsigned positions, unsigned first_code_token, unsigned boi) {
  begin_kernel();
  DYN_SMEM(shared);
  __shared__ TopScratch scratch;
  __shared__ unsigned filled, active_in_warp[32];

  const unsigned request = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const size_t request_row = (size_t)request * n, all_rows = (size_t)n * gridDim.y;
  rules += request * RULES;
  progress += request * PROGRESS;
  beams += request_row * BEAM_WORDS;
  sums += request_row * SUMS;
  rows += request_row * positions;
  tokens += request_row;
  ln_z += request_row * ways_stride(codes);
  best += request_row * groups_stride(codes);

  const unsigned step = progress[STEP], layer = step % layers, slot = step / layers;
  const unsigned beam_count = progress[BEAMS], fault = progress[FAULT];
  const bool new_fault = fault != NONE && progress[FAULT_STEP] == NONE;
  const bool over = new_fault || is_over(progress, rules, layers);
  __syncthreads();
  if (threadIdx.x == 0) {
    progress[STEP] = step + 1;
    if (request == 0) *position = step + 1;
  }
  if (over) {
    enter_rows(rows, n, step + 1, positions);
    if (threadIdx.x != 0) return;
    progress[ROWS] = 0;
    if (new_fault) {
      const unsigned row = beams[(size_t)(fault / codes) * BEAM_WORDS + ROW];
      progress[FAULT_STEP] = step;
      progress[FAULT_BITS] = __float_as_uint(logits[(request_row + row) * codes + fault % codes]);
      progress[BEAMS] = 0;
    }
    return;
  }

  const Kept kept(shared, n);
  const unsigned count = keep_best(kept, scratch, &filled, beams, sums, ln_z, best, beam_count,
                                   rules[WIDTH], codes);

  // One thread continues one beam.
  const unsigned w = threadIdx.x;
  unsigned beam[BEAM_WORDS], code = 0;
  double score = 0.0, item_ln_z = 0.0;
  bool active = false;
  if (w < count) {
    const unsigned parent = kept.ranked[w] / ways_stride(codes);
    const unsigned way = kept.ranked[w] % ways_stride(codes);
    for (unsigned i = 0; i < BEAM_WORDS; ++i) beam[i] = beams[(size_t)parent * BEAM_WORDS + i];
    const double z = ln_z[(size_t)parent * ways_stride(codes) + way];
    score = sums[(size_t)parent * SUMS + SCORE] + z;
    item_ln_z = sums[(size_t)parent * SUMS + ITEM_LN_Z] + z;
    kept.from[w] = beam[ROW];
    active = !beam[ENDS];
    if (active) {
      unsigned organic_code = NONE;
      if (beam[ORGANIC_IN_PREFIX]) {
        const size_t item = rules[ORGANIC] + beam[ORGANICS_SHOWN];
        organic_code = organic[item * (1 + layers) + 1 + layer];
      }
      if (way == beam[HOLE]) {
        beam[NODE] = NONE;
        code = organic_code;
      } else {
        beam[NODE] = first_of(nodes, beam[NODE]) + way - (beam[HOLE] != NONE && way > beam[HOLE]);
        code = nodes[(size_t)beam[NODE] * NODE_WORDS + CODE];
      }
      beam[ORGANIC_IN_PREFIX] = code == organic_code;
    } else if (beam[LENGTH] == 0) {
      beam[LENGTH] = step + 1;
    }
    kept.leaf[w] = active ? beam[NODE] : NONE;
    kept.item[w] = active && beam[ORGANIC_IN_PREFIX] ? rules[ORGANIC] + beam[ORGANICS_SHOWN] : NONE;
  }
  const unsigned in_warp = __ballot_sync(0xffffffff, active);
  if (lane == 0) active_in_warp[warp] = (unsigned)__popc(in_warp);
  __syncthreads();
  unsigned before = (unsigned)__popc(in_warp & ((1u << lane) - 1)), active_count = 0;
  for (unsigned other = 0; other < blockDim.x / 32; ++other) {
    before += other < warp ? active_in_warp[other] : 0;
    active_count += active_in_warp[other];
  }
  // Unfinished beams take the rows from the first on, finished ones those from the last down.
  if (w < count) kept.to[w] = beam[ROW] = active ? before : n - 1 - (w - before);

  const bool closes = layer + 1 == layers;
  if (closes) {
    for (unsigned i = warp; i < count; i += blockDim.x / 32) {
      const unsigned organic_row = kept.item[i], leaf = kept.leaf[i];
      unsigned ad = NONE;
      if (leaf != NONE) {
        const uint64_t hash =
            organic_row == NONE ? 0 : splitmix64(seeds[request] ^ organic_ids[organic_row]);
        ad = best_ad(nodes, ad_bids, ad_ids, chosen, rows + (size_t)kept.from[i] * positions,
                     request_row, all_rows, rules[EXCLUDED], slot, layers, leaf,
                     organic_row != NONE, hash, seeds[request], lane);
      }
      __syncwarp();
      if (lane == 0) kept.item[i] = ad;
    }
  }
  __syncthreads();
  move_paths(kept, count, rows, step, positions);
  enter_rows(rows, n, step + 1, positions);

  if (w < count) {
    if (active && closes) {
      const size_t at = (size_t)slot * all_rows + request_row + beam[ROW];
      chosen_ln_z[at] = item_ln_z;
      close_item(rules, nodes, ads, organic, kept.item[w], slot, layers, beam,
                 chosen + at * chosen_words(layers));
      item_ln_z = 0.0;
      open_slot(rules, slot + 1, beam);
    }
    for (unsigned i = 0; i < BEAM_WORDS; ++i) beams[(size_t)w * BEAM_WORDS + i] = beam[i];
    sums[(size_t)w * SUMS + SCORE] = score;
    sums[(size_t)w * SUMS + ITEM_LN_Z] = item_ln_z;
    if (active) tokens[beam[ROW]] = first_code_token + layer * codes + code;
  }
  for (unsigned row = active_count + threadIdx.x; row < n; row += blockDim.x) tokens[row] = boi;
  if (threadIdx.x == 0) {
    progress[BEAMS] = count;
    progress[ROWS] = active_count;
  }
}
