// What each bidder of many stand-alone auctions would gain by other bids: the utility
// theta_s (v - p) of bidding gamma v, v being its bid in the batch, for every gamma of a grid.
//
// The others keep their bids. gamma v is rounded down to a micro and is at most 2^43; a bidder that
// wins nothing, or bids below its reserve, has utility 0. Rules, ranks and prices are those of
// auction.cu, and so are the arguments of the same names.
//
//   gammas     f64 [count]              finite, not negative
//   ranking    u32 [slots + auctions]   scratch: the best of each auction, one more than slots
//   utilities  f64 [bidders, count]     out, in micros
//
// Launch: 128 threads, one warp an auction, grid ceil(auctions / 4). A warp ranks the bidders once,
// one further than there are slots: without any one bidder that is still one for each slot. Then
// each lane takes a pair of bidder and gamma and walks down the others' ranks.
// FLOPs: about S (GSP) or 3 S (VCG) a pair. Bytes: 8 a pair and what auction.cu reads; bound by the
// walks, which read the ranking from L1.
// f64 in the written order, products rounded before they are added:
// nvcc: --fmad=false
#include "auction.cuh"

// Utility of bidder `own` where it bids `bid`; the others stand as in `ranking` [ranked].
PTX_FN double utility(const Auction& auction, const unsigned* ranking, unsigned ranked,
                      unsigned rule, unsigned for_sale, unsigned own, unsigned long long bid,
                      unsigned long long unit) {
  double weight = auction.weights[own];
  unsigned long long reserve = auction.reserves[own];
  if (bid < reserve || !(weight > 0.0)) return 0.0;
  // Walks down the others.
  unsigned at = 0;
  auto next = [&] {
    if (at < ranked && ranking[at] == own) at++;
    return at < ranked ? ranking[at++] : NONE;
  };
  Ranked mine = {(double)bid * weight, own};
  unsigned slot = 0, other = next();
  while (slot < for_sale && other != NONE &&
         beats(auction, Ranked{auction.score(other), other}, mine)) {
    slot++;
    other = next();
  }
  if (slot >= for_sale) return 0.0;
  auto below = [&] {
    unsigned given = other;
    other = next();
    return given;
  };
  double exact = price(auction, rule, slot, for_sale, bid, weight, (double)reserve, below);
  unsigned long long payment = settle(exact, bid, reserve, unit);
  return auction.effects[slot] * ((double)auction.bids[own] - (double)payment);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
    auction_regret(const unsigned char* __restrict__ rules,
                   const unsigned long long* __restrict__ tie_seeds,
                   const unsigned* __restrict__ bidder_offsets,
                   const unsigned long long* __restrict__ bids,
                   const unsigned long long* __restrict__ reserves,
                   const double* __restrict__ weights, const unsigned long long* __restrict__ ids,
                   const unsigned* __restrict__ slot_offsets, const double* __restrict__ effects,
                   const double* __restrict__ gammas, unsigned count, unsigned long long unit,
                   unsigned auctions, unsigned* ranking, double* __restrict__ utilities) {
  begin_kernel();
  unsigned index = blockIdx.x * WARPS + threadIdx.x / 32;
  if (index >= auctions) return;
  unsigned lane = threadIdx.x % 32, first_bidder = bidder_offsets[index];
  unsigned first_slot = slot_offsets[index];
  Auction auction = {bids + first_bidder, reserves + first_bidder,
                     ids ? ids + first_bidder : nullptr, weights + first_bidder,
                     effects + first_slot, tie_seeds[index],
                     bidder_offsets[index + 1] - first_bidder,
                     slot_offsets[index + 1] - first_slot};
  unsigned* best = ranking + first_slot + index;
  unsigned for_sale = slots_for_sale(auction);

  unsigned ranked = 0;
  Ranked last = {0.0, NONE};
  while (ranked < for_sale + 1) {
    last = next_rank(auction, last);
    if (last.bidder == NONE) break;
    if (lane == 0) best[ranked] = last.bidder;
    ranked++;
  }
  // All lanes read the ranking that lane 0 has written.
  __syncwarp();

  for (unsigned pair = lane; pair < auction.bidders * count; pair += 32) {
    unsigned own = pair / count;
    double wanted = floor(gammas[pair % count] * (double)auction.bids[own]);
    unsigned long long bid = wanted < MAX_BID ? (unsigned long long)wanted
                                              : (unsigned long long)MAX_BID;
    utilities[(size_t)first_bidder * count + pair] =
        utility(auction, best, ranked, rules[index], for_sale, own, bid, unit);
  }
}
