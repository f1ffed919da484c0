// What becomes of a beam that is kept: its prefix goes on by a code, at the last layer the item is
// chosen and the next slot opened. select.cu tells the rules.
#pragma once

#include "search.cuh"

namespace search {

// Tables as in search.cuh and select.cu, of R requests with N rows each.
struct Selection {
  const unsigned* nodes;
  const unsigned* ads;
  const unsigned long long* ad_bids;
  const unsigned long long* ad_ids;
  const unsigned* rules;
  const unsigned long long* seeds;
  const unsigned* organic;
  const unsigned long long* organic_ids;
  unsigned* progress;
  unsigned* beams;
  double* sums;
  unsigned* rows;
  unsigned* chosen;
  double* chosen_ln_z;
  unsigned* tokens;
  unsigned* position;
  unsigned n, layers, codes, positions;
  unsigned first_code_token, boi;
  unsigned requests;

  // The same with what belongs to one request at its place.
  PTX_FN Selection of(unsigned request) const {
    Selection own = *this;
    const size_t first = first_row(request);
    own.rules += request * RULES;
    own.seeds += request;
    own.progress += request * PROGRESS;
    own.beams += first * BEAM_WORDS;
    own.sums += first * SUMS;
    own.rows += first * positions;
    own.tokens += first;
    own.chosen += first * chosen_words(layers);
    own.chosen_ln_z += first;
    return own;
  }

  PTX_FN size_t first_row(unsigned request) const { return (size_t)request * n; }

  // Entries of `chosen` from a slot to the next.
  PTX_FN size_t all_rows() const { return (size_t)n * requests; }
};

// The functions below take that of the beam's request.

// The item that an ad of a beam's path may not be: those of slots below `slot`, one in each lane.
// There are at most 32 slots, and one of them is being filled. Warp-wide.
PTX_FN unsigned used_ad(const Selection& in, const unsigned* path, unsigned slot, unsigned lane) {
  if (lane >= slot) return NONE;
  const size_t row = path[(lane + 1) * in.layers];
  return in.chosen[(lane * in.all_rows() + row) * chosen_words(in.layers) + CHOSEN_AD];
}

// The ad with the highest bid below `leaf` that the path has not used, or NONE where that is the
// organic item in row `organic_row` of the organic items, NONE where that is none (bid 0). Ties: by
// hash. Warp-wide; slots below `slot` are filled.
PTX_FN unsigned best_ad(const Selection& in, const unsigned* path, unsigned slot, unsigned leaf,
                        unsigned organic_row, unsigned lane) {
  const uint64_t seed = *in.seeds;
  const unsigned used = used_ad(in, path, slot, lane), excluded = in.rules[EXCLUDED];
  bool any = organic_row != NONE;
  uint64_t top_bid = 0, top_hash = any ? splitmix64(seed ^ in.organic_ids[organic_row]) : 0;
  unsigned top = NONE;
  const unsigned end = first_of(in.nodes, leaf + 1);
  for (unsigned base = first_of(in.nodes, leaf); base < end; base += 32) {
    const unsigned ad = base + lane;
    bool shown = ad < end && ad != excluded && in.ad_bids[ad] != NO_BID;
    for (unsigned i = 0; i < slot; ++i) shown &= __shfl_sync(0xffffffff, used, i) != ad;
    if (!shown) continue;
    const uint64_t bid = in.ad_bids[ad], hash = splitmix64(seed ^ in.ad_ids[ad]);
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

// The code that the beam's next organic item would go on by at `step`; NONE where it does not have the
// prefix.
PTX_FN unsigned organic_code(const Selection& in, unsigned step, const unsigned* beam) {
  if (!beam[ORGANIC_IN_PREFIX]) return NONE;
  const size_t item = in.rules[ORGANIC] + beam[ORGANICS_SHOWN];
  return in.organic[item * (1 + in.layers) + 1 + step % in.layers];
}

// Continues `beam`, a copy of the record of the parent, at `step` by its child `node`, or by its
// organic item alone where that is NONE. Returns the code; NONE where the beam has ended.
PTX_FN unsigned follow(const Selection& in, unsigned step, unsigned node, unsigned* beam) {
  if (beam[ENDS]) {
    if (beam[LENGTH] == 0) beam[LENGTH] = step + 1;
    return NONE;
  }
  const unsigned organic = organic_code(in, step, beam);
  const unsigned code = node == NONE ? organic : in.nodes[(size_t)node * NODE_WORDS + CODE];
  beam[NODE] = node;
  beam[ORGANIC_IN_PREFIX] = code == organic;
  return code;
}

// The beam's next organic item, as a row of all, where it has the full code; else NONE.
PTX_FN unsigned organic_row(const Selection& in, const unsigned* beam) {
  return beam[ORGANIC_IN_PREFIX] ? in.rules[ORGANIC] + beam[ORGANICS_SHOWN] : NONE;
}

// Fills `slot` of a beam that stands in row beam[ROW] with `ad`, or with its next organic item, and
// opens the next.
PTX_FN void close_item(const Selection& in, unsigned ad, unsigned slot, double ln_z,
                       unsigned* beam) {
  const size_t at = slot * in.all_rows() + beam[ROW];
  unsigned* words = in.chosen + at * chosen_words(in.layers);
  in.chosen_ln_z[at] = ln_z;
  words[CHOSEN_AD] = ad;
  if (ad == NONE) {
    const size_t item = in.rules[ORGANIC] + beam[ORGANICS_SHOWN];
    words[CHOSEN_ITEM] = in.organic[item * (1 + in.layers)];
    beam[ORGANICS_SHOWN] += 1;
  } else {
    words[CHOSEN_ITEM] = in.ads[(size_t)ad * AD_WORDS + ITEM];
    beam[ADS_SHOWN] += 1;
    beam[LAST_AD] = slot;
  }
  unsigned node = ad == NONE ? NONE : beam[NODE];
  for (unsigned layer = in.layers; layer-- > 0;) {
    words[CHOSEN_NODES + layer] = node;
    if (node != NONE) node = in.nodes[(size_t)node * NODE_WORDS + PARENT];
  }
  open_slot(in.rules, slot + 1, beam);
}

// Stores beam w, which has been continued by `code` (NONE: it has ended), and the token of its row.
PTX_FN void store_beam(const Selection& in, unsigned w, const unsigned* beam, double score,
                       double item_ln_z, unsigned layer, unsigned code) {
#pragma unroll
  for (unsigned i = 0; i < BEAM_WORDS; ++i) in.beams[(size_t)w * BEAM_WORDS + i] = beam[i];
  in.sums[(size_t)w * SUMS + SCORE] = score;
  in.sums[(size_t)w * SUMS + ITEM_LN_Z] = item_ln_z;
  if (code != NONE) in.tokens[beam[ROW]] = in.first_code_token + layer * in.codes + code;
}

// Rows that are not in use are run too, and thrown away: they need some token and path.
PTX_FN void enter_rows(const Selection& in, unsigned position) {
  if (position >= in.positions) return;
  for (unsigned row = threadIdx.x; row < in.n; row += blockDim.x)
    in.rows[(size_t)row * in.positions + position] = row;
}

}  // namespace search
