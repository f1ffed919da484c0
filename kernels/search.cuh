// What the kernels of the search share: the layouts of its tables, and small helpers.
//
// Forest: the ads that may be shown, as tries over their codes, one below each root. Level 0 holds
// the roots, level j + 1 the nodes of code layer j, level by level; each level ends with a sentinel
// node. The children of node v are FIRST(v) .. FIRST(v + 1) - 1: nodes, or in the last level ads.
//   nodes    u32 [nodes][3]  FIRST, PARENT, CODE
//   bids     u64 [nodes][4]  of the eligible ads below the node, in micros: MAX, the sums of the
//                            LOW and of the HIGH 32 bits, COUNT (no sum of 2^32 bids overflows)
//   ads      u32 [ads][2]    LEAF: the ad's node in the last level; ITEM: its row in the catalog
//   ad_bids  u64 [ads]       micros, NO_BID where the ad is not eligible
//   ad_ids   u64 [ads]       the item's id, for ties
//
// A request r of R with N rows, of S slots, C code layers and W codes:
//   rules    u32 [R][RULES], terms f64 [R][TERMS], seeds u64 [R]
//   organic  u32 [sum][1 + C], organic_ids u64 [sum]: item and codes, in order, requests one after
//            the other
//   progress u32 [R][PROGRESS]
//   beams    u32 [R N][BEAM_WORDS], sums f64 [R N][SUMS]: the state of every beam, best first
//   rows     u32 [R N][P], P = S C + 1: for a row of the decoder, the row that ran its prefix at
//            each position; the newest entry is the row itself. A finished beam keeps its path in a
//            row behind those in use.
//   chosen   u32 [S][R N][2 + C], chosen_ln_z f64 [S][R N]: ITEM and AD of the slot that a row of
//            position (slot + 1) C has just closed, and the ad's node in each layer. With a path this
//            gives every item of a beam.
//   ln_w     f64 [R][C][W]: ln of the weight of each child of the root (layer 0, by child), or with
//            BY_CODE of each code of each layer
#pragma once

#include "libm.cuh"

namespace search {

constexpr uint32_t NONE = 0xffffffff;
constexpr uint64_t NO_BID = ~0ull;
// ln of a weight of 0, and so of everything that may not follow.
constexpr double MASKED = -INFINITY;

enum NodeWord { FIRST, PARENT, CODE, NODE_WORDS };
enum BidWord { MAX, LOW, HIGH, COUNT, BID_WORDS };
enum AdWord { LEAF, ITEM, AD_WORDS };
enum ChosenWord { CHOSEN_ITEM, CHOSEN_AD, CHOSEN_NODES };

enum Rule {
  ROOT,
  LIST_LEN,
  WIDTH,
  MAX_ADS,
  MIN_GAP,
  FIRST_AD_SLOT,
  MEAN,      // 1: a code's bid is the mean of the bids behind it, 0: their maximum
  BY_CODE,   // 1: behind a code are all items of the request with that code in that layer
  EXCLUDED,  // an ad that may not be shown, or NONE
  ORGANIC,   // the request's first row in `organic`
  ORGANICS,  // how many
  ADS,       // the request's first ad
  ADS_END,
  RULES
};

enum Term { ALPHA, LN_BETA, UNIT, TERMS };

enum Progress {
  BEAMS,       // beams in use
  ROWS,        // those of them that are not finished: rows of the decoder
  STEP,        // steps taken
  FAULT,       // the first beam and code with a logit that is not finite, or NONE
  FAULT_STEP,  // when
  FAULT_BITS,  // the logit
  PROGRESS
};

enum BeamWord {
  NODE,      // the prefix of the item being built; NONE where no ad may follow
  ORGANIC_IN_PREFIX,  // 1: the beam's next organic item has the prefix
  ADS_SHOWN,
  LAST_AD,   // slot of the last ad, or NONE
  ORGANICS_SHOWN,
  LENGTH,    // positions in the path of a finished beam; 0 while it is not
  ROW,       // its row
  WAYS,      // slots of its codes in ln_z
  HOLE,      // the slot without a node: of the organic item alone, or of nothing; NONE without one
  ENDS,      // 1: nothing may follow, the beam itself is its only continuation
  BEAM_WORDS
};

enum Sum { SCORE, ITEM_LN_Z, SUMS };

// Ways on are compared in groups of so many at first.
constexpr unsigned GROUP = 32;

// Slots of ln_z for each beam: one for each code and one that stays empty where the organic item
// shares its code with ads.
PTX_FN unsigned ways_stride(unsigned codes) { return codes + 1; }
PTX_FN unsigned groups_stride(unsigned codes) { return codes / GROUP + 1; }

PTX_FN unsigned chosen_words(unsigned layers) { return CHOSEN_NODES + layers; }

PTX_FN unsigned first_of(const unsigned* nodes, unsigned node) {
  return nodes[(size_t)node * NODE_WORDS + FIRST];
}

// The bids behind a node.
struct Bids {
  uint64_t max, low, high, count;

  // The sum as f64, rounded once.
  PTX_FN double sum() const {
    const uint64_t upper = high + (low >> 32), words = upper >> 32;
    const uint64_t lower = upper << 32 | (low & 0xffffffff);
    if (words == 0) return (double)lower;
    // Only the top 64 of its bits fit; the lowest of these also stands for all those below.
    const int shift = 64 - __clzll((long long)words);
    const uint64_t top = words << (64 - shift) | lower >> shift;
    const uint64_t lost = lower << (64 - shift);
    return (double)(top | (lost != 0)) * libm::from_bits((uint64_t)(1023 + shift) << 52);
  }

  PTX_FN void add(uint64_t bid) {
    max = bid > max ? bid : max;
    low += bid & 0xffffffff;
    high += bid >> 32;
    count += 1;
  }
};

PTX_FN Bids load_bids(const unsigned long long* bids, size_t node) {
  const unsigned long long* words = bids + node * BID_WORDS;
  return {words[MAX], words[LOW], words[HIGH], words[COUNT]};
}

PTX_FN void store_bids(unsigned long long* bids, size_t node, const Bids& value) {
  unsigned long long* words = bids + node * BID_WORDS;
  words[MAX] = value.max;
  words[LOW] = value.low;
  words[HIGH] = value.high;
  words[COUNT] = value.count;
}

// ln w = ln(b^alpha + beta) of the bids behind a code, `organics` of its items being organic;
// -infinity where w = 0.
PTX_FN double ln_weight(const Bids& bids, uint64_t organics, bool mean, const double* terms) {
  const double unit = terms[UNIT], ln_beta = terms[LN_BETA];
  const double micros =
      mean ? bids.sum() / (double)(bids.count + organics) : (double)bids.max;
  const double b = micros / unit;
  if (b == 0.0) return ln_beta;
  const double a = terms[ALPHA] * libm::log(b);
  const double high = a >= ln_beta ? a : ln_beta, low = a >= ln_beta ? ln_beta : a;
  return high + libm::log1p(libm::exp(low - high));
}

// The hash that breaks ties between equal bids.
PTX_FN uint64_t splitmix64(uint64_t x) {
  uint64_t z = x + 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// A number above 0 that is higher where the score is.
PTX_FN uint64_t order_of(double score) {
  const uint64_t bits = libm::bits_of(score);
  return bits >> 63 ? ~bits : bits | 1ull << 63;
}

// Begins slot `slot` of a beam: nothing of an item is built yet.
PTX_FN void open_slot(const unsigned* rules, unsigned slot, unsigned* beam) {
  const bool room = beam[ADS_SHOWN] < rules[MAX_ADS] && slot >= rules[FIRST_AD_SLOT];
  const bool apart = beam[LAST_AD] == NONE || slot - beam[LAST_AD] > rules[MIN_GAP];
  beam[NODE] = room && apart ? rules[ROOT] : NONE;
  beam[ORGANIC_IN_PREFIX] = beam[ORGANICS_SHOWN] < rules[ORGANICS];
}

// Whether no row of the request is left to be expanded.
PTX_FN bool is_over(const unsigned* progress, const unsigned* rules, unsigned layers) {
  return progress[ROWS] == 0 || progress[STEP] >= rules[LIST_LEN] * layers;
}

template <class T>
PTX_FN T warp_max(T x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const T other = __shfl_xor_sync(0xffffffff, x, lanes);
    x = other > x ? other : x;
  }
  return x;
}

template <class T>
PTX_FN T warp_sum(T x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffff, x, lanes);
  return x;
}

}  // namespace search
