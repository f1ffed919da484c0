// What the kernels of stand-alone auctions share: who takes part, who ranks above whom, and how a
// price becomes money. To be compiled with --fmad=false.
#pragma once

#include "ptx.cuh"

constexpr int WARPS = 4;
constexpr unsigned NONE = 0xffffffffu;
constexpr unsigned GSP = 0, FIRST_PRICE = 2;  // 1 is VCG.
// Lifts a price by 2^-44 of itself, so that an exact price never loses a micro to rounding.
constexpr double LIFT = 1.0 + 1.0 / 17592186044416.0;
// Largest bid.
constexpr double MAX_BID = 8796093022208.0;

// The hash that breaks ties.
PTX_FN unsigned long long splitmix64(unsigned long long x) {
  unsigned long long z = x + 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// One auction.
struct Auction {
  const unsigned long long *bids, *reserves, *ids;
  const double *weights, *effects;
  unsigned long long tie_seed;
  unsigned bidders, slots;

  PTX_FN bool takes_part(unsigned i) const { return bids[i] >= reserves[i] && weights[i] > 0.0; }
  PTX_FN double score(unsigned i) const { return (double)bids[i] * weights[i]; }
  PTX_FN unsigned long long hash(unsigned i) const {
    return splitmix64(tie_seed ^ (ids ? ids[i] : i));
  }
  // What a slot has over the one below it.
  PTX_FN double effect_drop(unsigned slot) const {
    return effects[slot] - (slot + 1 < slots ? effects[slot + 1] : 0.0);
  }
};

// A bidder and its rank score.
struct Ranked {
  double score;
  unsigned bidder;
};

// Whether `a` ranks above `b`; NONE ranks below all.
PTX_FN bool beats(const Auction& auction, Ranked a, Ranked b) {
  if (a.bidder == NONE || b.bidder == NONE) return a.bidder != NONE;
  if (a.score != b.score) return a.score > b.score;
  return auction.hash(a.bidder) > auction.hash(b.bidder);
}

// The best bidder below `above`, NONE where there is none; the best of all where `above` is NONE.
// Warp-wide.
PTX_FN Ranked next_rank(const Auction& auction, Ranked above) {
  Ranked best = {0.0, NONE};
  for (unsigned i = threadIdx.x % 32; i < auction.bidders; i += 32) {
    if (!auction.takes_part(i)) continue;
    Ranked ranked = {auction.score(i), i};
    bool below = above.bidder == NONE || beats(auction, above, ranked);
    if (below && beats(auction, ranked, best)) best = ranked;
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    Ranked other = {__shfl_xor_sync(~0u, best.score, step),
                    __shfl_xor_sync(~0u, best.bidder, step)};
    if (beats(auction, other, best)) best = other;
  }
  return best;
}

// Slots above 0; the effects never rise, so they are the first ones. Warp-wide.
PTX_FN unsigned slots_for_sale(const Auction& auction) {
  unsigned count = 0;
  for (unsigned s = threadIdx.x % 32; s < auction.slots; s += 32) {
    count += auction.effects[s] > 0.0;
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) count += __shfl_xor_sync(~0u, count, step);
  return count;
}

// The price per click of `slot` for a bidder of this bid, weight and reserve. below() gives those
// who rank below the bidder, the next one first, and NONE after the last.
template <class Below>
PTX_FN double price(const Auction& auction, unsigned rule, unsigned slot, unsigned for_sale,
                    unsigned long long bid, double weight, double reserve, Below below) {
  if (rule == FIRST_PRICE) return (double)bid;
  double sum = 0.0;
  unsigned end = rule == GSP ? slot + 1 : for_sale;
  for (unsigned rank = slot; rank < end; rank++) {
    unsigned next = below();
    double least = (next == NONE ? 0.0 : auction.score(next)) / weight;
    least = least > reserve ? least : reserve;
    sum += rule == GSP ? least : auction.effect_drop(rank) * least;
  }
  return rule == GSP ? sum : sum / auction.effects[slot];
}

// The payment for a price that is finite and not negative: whole units, clamped to [reserve, bid].
PTX_FN unsigned long long settle(double price, unsigned long long bid, unsigned long long reserve,
                                 unsigned long long unit) {
  unsigned long long micros = (unsigned long long)floor(price * LIFT);
  unsigned long long payment = micros - micros % unit;
  payment = payment > reserve ? payment : reserve;
  return payment < bid ? payment : bid;
}
