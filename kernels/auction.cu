// Stand-alone auctions, many at once: who wins which slot and what they pay per click, the same
// integers as on the CPU (src/auction/standalone.rs has the formulas).
//
// Bidders below their reserve or of weight 0 are out. The others are ranked by bid * weight, ties
// by the higher splitmix64(tie_seed ^ id). Slots with effect 0 are not sold.
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
// Launch: 128 threads, one warp an auction, grid ceil(auctions / 4). Any number of bidders and
// slots. A warp finds the ranks one after the other, each as the best of what is left below the
// rank before, and then prices the slots, one lane a slot.
// Bytes: 24 a bidder, 20 a slot. A rank reads all bidders again, from L1; with n bidders and S
// slots that is S n / 32 turns. Wins for up to some hundred bidders; thousands want a sort.
// FLOPs, in f64: one a bidder and rank; a slot some 5 for GSP, for VCG 6 for each rank from it on.
// f64 in the written order, products rounded before they are added:
// nvcc: --fmad=false
#include "auction.cuh"

extern "C" __global__ void __launch_bounds__(32 * WARPS)
    auction(const unsigned char* __restrict__ rules,
            const unsigned long long* __restrict__ tie_seeds,
            const unsigned* __restrict__ bidder_offsets,
            const unsigned long long* __restrict__ bids,
            const unsigned long long* __restrict__ reserves, const double* __restrict__ weights,
            const unsigned long long* __restrict__ ids, const unsigned* __restrict__ slot_offsets,
            const double* __restrict__ effects, unsigned long long unit, unsigned auctions,
            unsigned* winners, unsigned long long* __restrict__ payments) {
  begin_kernel();
  unsigned index = blockIdx.x * WARPS + threadIdx.x / 32;
  if (index >= auctions) return;
  unsigned lane = threadIdx.x % 32;
  unsigned bidder = bidder_offsets[index], slot = slot_offsets[index];
  Auction auction = {bids + bidder, reserves + bidder, ids ? ids + bidder : nullptr,
                     weights + bidder, effects + slot, tie_seeds[index],
                     bidder_offsets[index + 1] - bidder, slot_offsets[index + 1] - slot};
  unsigned* winner = winners + slot;

  unsigned for_sale = slots_for_sale(auction);
  Ranked ranked = {0.0, NONE};
  for (unsigned rank = 0; rank <= for_sale; rank++) {
    if (rank == 0 || ranked.bidder != NONE) ranked = next_rank(auction, ranked);
    if (lane == 0 && rank < for_sale) winner[rank] = ranked.bidder;
  }
  for (unsigned s = for_sale + lane; s < auction.slots; s += 32) winner[s] = NONE;
  // The lanes read each other's winners.
  __syncwarp();

  for (unsigned s = lane; s < auction.slots; s += 32) {
    unsigned won = winner[s], rank = s;
    // The winners, and then the first who wins nothing.
    auto below = [&] {
      rank++;
      return rank < for_sale ? winner[rank] : ranked.bidder;
    };
    unsigned long long payment = 0;
    if (won != NONE) {
      unsigned long long bid = auction.bids[won], reserve = auction.reserves[won];
      double exact = price(auction, rules[index], s, for_sale, bid, auction.weights[won],
                           (double)reserve, below);
      payment = settle(exact, bid, reserve, unit);
    }
    payments[slot + s] = payment;
  }
}
