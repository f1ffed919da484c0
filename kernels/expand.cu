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
#include "expand.cuh"

using namespace search;

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
  DYN_SMEM(words);
  __shared__ ExpandBlock shared;
  const Place place = own_place();
  const Expansion in{nodes, bids, ads, ad_bids, rules, terms, organic, ln_w, rows, chosen, sums, beams,
                     progress, layers, codes, positions, place.width, place.height};
  expand_block(place, in, logits, {beams, ln_z, best}, shared, (unsigned*)words);
}
