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
// Work: reads 8 bytes for each group and each element of a chosen group, a few times over, with one
// f64 sum for each element; moves 4 P bytes of path for each beam. One block for each request: with
// few requests the GPU waits for its barriers, not for memory. There are 9, one more for each digit of a selection (mostly two or
// three digits for each of the two), and one where N (step + 1) path entries are more than eight a
// thread.
//
// nvcc: --fmad=false
#include "select.cuh"

using namespace search;

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
  DYN_SMEM(kept);
  __shared__ SelectBlock shared;
  const Place place = own_place();
  const Selection in{nodes, ads, ad_bids, ad_ids, rules, seeds, organic, organic_ids, progress, beams,
                     sums, rows, chosen, chosen_ln_z, tokens, position, n, layers, codes, positions,
                     first_code_token, boi, place.height};
  select_block(place, in, {logits, ln_z, best}, shared, kept);
}
