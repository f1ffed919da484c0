// Stand-alone auctions, many at once: who wins which slot and what they pay per click, the same
// integers as on the CPU (src/auction/standalone.rs has the formulas).
//
// Bidders below their reserve or of weight 0 are out. The others are ranked by bid * weight, ties by
// the higher splitmix64(tie_seed ^ id). Slots with effect 0 are not sold.
//
//   rules             u8 [auctions]         0 GSP, 1 VCG by critical values, 2 first price
//   tie_seeds         u64 [auctions]
//   bidder_offsets    u32 [auctions + 1]    bidders of each auction in the next four
//   bids, reserves    u64 [bidders]         micros, at most 2^43
//   weights           f64 [bidders]         q^squash, at most 1e200
//   ids               u64 [bidders]         or null: the ids are the indices
//   slot_offsets      u32 [auctions + 1]    slots of each auction in the next three
//   effects           f64 [slots]           never rising, at most 1e200
//   winners           u32 [slots]           out: index within the auction, 0xffffffff: not sold
//   payments          u64 [slots]           out: micros per click
//
// Launch: 128 threads, one warp an auction, grid ceil(auctions / 4). Any number of bidders and slots.
// A warp finds the ranks one after the other, each as the best of what is left below the rank before,
// and then prices the slots, one lane a slot.
// Bytes: 24 a bidder, 20 a slot. A rank reads all bidders again, from L1; with n bidders and S slots
// that is S n / 32 turns. Wins for up to some hundred bidders; thousands want a sort.
// f64 in the written order, products rounded before they are added:
// nvcc: --fmad=false
#include "ptx.cuh"

constexpr int WARPS = 4;
constexpr unsigned NONE = 0xffffffffu;
constexpr unsigned GSP = 0, VCG = 1;
// Lifts a price by 2^-44 of itself, so that an exact price never loses a micro to rounding.
constexpr double LIFT = 1.0 + 1.0 / 17592186044416.0;

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
    Ranked other = {__shfl_xor_sync(~0u, best.score, step), __shfl_xor_sync(~0u, best.bidder, step)};
    if (beats(auction, other, best)) best = other;
  }
  return best;
}

// The ranking as the warp has written it: the winners, and the first who wins nothing.
struct Ranking {
  const unsigned* winners;
  unsigned for_sale;
  Ranked runner_up;
};

// What the winner of weight `weight` must bid at least to rank above whoever comes after `rank`.
PTX_FN double least(const Auction& auction, const Ranking& ranking, unsigned rank, double weight,
                    double reserve) {
  double next = 0.0;
  if (rank + 1 < ranking.for_sale) {
    unsigned bidder = ranking.winners[rank + 1];
    if (bidder != NONE) next = auction.score(bidder);
  } else if (ranking.runner_up.bidder != NONE) {
    next = ranking.runner_up.score;
  }
  next /= weight;
  return next > reserve ? next : reserve;
}

PTX_FN double price(const Auction& auction, const Ranking& ranking, unsigned rule, unsigned slot,
                    unsigned winner) {
  double weight = auction.weights[winner], reserve = (double)auction.reserves[winner];
  if (rule == GSP) return least(auction, ranking, slot, weight, reserve);
  if (rule != VCG) return (double)auction.bids[winner];
  double sum = 0.0;
  for (unsigned rank = slot; rank < ranking.for_sale; rank++) {
    double below = rank + 1 < auction.slots ? auction.effects[rank + 1] : 0.0;
    sum += (auction.effects[rank] - below) * least(auction, ranking, rank, weight, reserve);
  }
  return sum / auction.effects[slot];
}

// The payment for a price that is finite and not negative: whole units, clamped to [reserve, bid].
PTX_FN unsigned long long settle(double price, unsigned long long bid, unsigned long long reserve,
                                 unsigned long long unit) {
  unsigned long long micros = (unsigned long long)floor(price * LIFT);
  unsigned long long payment = micros - micros % unit;
  payment = payment > reserve ? payment : reserve;
  return payment < bid ? payment : bid;
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
    auction(const unsigned char* __restrict__ rules,
            const unsigned long long* __restrict__ tie_seeds,
            const unsigned* __restrict__ bidder_offsets,
            const unsigned long long* __restrict__ bids,
            const unsigned long long* __restrict__ reserves, const double* __restrict__ weights,
            const unsigned long long* __restrict__ ids, const unsigned* __restrict__ slot_offsets,
            const double* __restrict__ effects, unsigned long long unit, unsigned auctions,
            unsigned* winners, unsigned long long* __restrict__ payments) {
  unsigned index = blockIdx.x * WARPS + threadIdx.x / 32;
  if (index >= auctions) return;
  unsigned lane = threadIdx.x % 32;
  unsigned bidder = bidder_offsets[index], slot = slot_offsets[index];
  Auction auction = {bids + bidder, reserves + bidder, ids ? ids + bidder : nullptr,
                     weights + bidder, effects + slot, tie_seeds[index],
                     bidder_offsets[index + 1] - bidder, slot_offsets[index + 1] - slot};
  unsigned* winner = winners + slot;

  // The effects never rise: those above 0 are the first.
  unsigned for_sale = 0;
  for (unsigned s = lane; s < auction.slots; s += 32) for_sale += auction.effects[s] > 0.0;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) for_sale += __shfl_xor_sync(~0u, for_sale, step);

  Ranked ranked = {0.0, NONE};
  for (unsigned rank = 0; rank <= for_sale; rank++) {
    if (rank == 0 || ranked.bidder != NONE) ranked = next_rank(auction, ranked);
    if (lane == 0 && rank < for_sale) winner[rank] = ranked.bidder;
  }
  for (unsigned s = for_sale + lane; s < auction.slots; s += 32) winner[s] = NONE;
  // The lanes read each other's winners.
  __syncwarp();

  Ranking ranking = {winner, for_sale, ranked};
  for (unsigned s = lane; s < auction.slots; s += 32) {
    unsigned won = winner[s];
    payments[slot + s] = won == NONE ? 0
                                     : settle(price(auction, ranking, rules[index], s, won),
                                              auction.bids[won], auction.reserves[won], unit);
  }
}
