// A step of every request's search in one launch: the head of its rows, what may follow each beam,
// and the choice between that. What norm_linear (f32), expand and select_beams do in three launches,
// with the same bits; see there for the math. It has run in the emulator alone, never on a card.
//
//   x        f32 [R N, d], aligned to 8 bytes: the decoder's rows
//   norm     f32 [d], its last norm's weight; null: the rows are taken as they are
//   w        bf16 [W, d], the head's rows of this code layer, aligned to 16 bytes
//   hidden   f32 [R N, d]  out: the normed rows
//   tables   as in search.cuh; the others as select.cu has them
//
// Grid (C, R) in clusters of C blocks along x, 1 to 8, of 256 threads. Dynamic shared memory:
// StepMemory of search_step.cuh. N is at most 256, d as norm_product.cuh has it.
//
// A cluster has a request. Four phases with a barrier of the cluster before each:
//
//   head    the codes in tiles of 64 by turns. Row r of the rows belongs to block r % C: each logit
//           is written into the shared memory of the block that has its row
//   expand  a warp for each of the block's beams; ln z stays in shared memory. Of its ways on the
//           block keeps the N best, and writes them into the shared memory of every block
//   select  every block ranks what all have kept, and continues each C-th of the new beams, a warp
//           for each: code, item, what the slot holds
//   store   beams and paths change places once all have been read
//
// The bits depend neither on C nor on the batch: sums of logits are those of norm_product, sums of
// weights have no order, ranks are by score, beam and code.
//
// FLOP 2 N W d a request, of which only the first layer of a large catalog needs all. Bytes a block:
// 256 d of x for every 64 rows (twice, the second time from L1) and 2 d for each of its W / C codes
// from L2; 4 N W / C of logits and 32 N (C - 1) of candidates through the cluster's network. Per
// step: 4 barriers of the cluster; of a block d / 64 for each tile of the head, and then 5, one for
// each digit of two selections (mostly two or three each).
// Memory that is read one load after another: beam, prefix, child, bids; candidate, beam, code; at
// the last layer path, used ads, children, bids.
//
// nvcc: --fmad=false
#include "search_step.cuh"

using namespace search;

static_assert(sizeof(Candidate) == 32 && sizeof(NextBeam) == 64 && sizeof(StepBeam) == 32 &&
              sizeof(StepBlock) == 3920, "what launches give");

#ifdef HOPPER

PTX_FN void search_step(const NormedRows& all_rows, const __nv_bfloat16* w,
                        const Expansion& expansion, const Selection& all) {
  const unsigned request = blockIdx.y;
  const Selection in = all.of(request);
  DYN_SMEM(base);
  ClusterTeam team;
  const unsigned step = in.progress[STEP];
  const bool over = is_over(in.progress, in.rules, in.layers);
  if (team.rank() == 0 && threadIdx.x == 0 && request == 0) *in.position = step + 1;
  const StepMemory memory{base, in.n, in.codes, in.layers, in.positions, all_rows.d, team.blocks()};
  NormedRows rows = all_rows;
  rows.x += all.first_row(request) * rows.d;
  rows.normed += all.first_row(request) * rows.d;
  rows.m = in.n;
  const SearchStep own{team, memory, expansion, in, request, step, in.progress[BEAMS]};
  if (over)
    own.idle(rows);
  else
    own.run({rows, w});
}

#else

// For other GPUs: the file loads there like any, and stops if it is launched.
PTX_FN void search_step(const NormedRows&, const __nv_bfloat16*, const Expansion&,
                        const Selection&) {
  __trap();
}

#endif  // HOPPER

extern "C" __global__ void __launch_bounds__(NORM_THREADS)
search_step_hopper(const float* __restrict__ x, const float* __restrict__ norm,
                   const __nv_bfloat16* __restrict__ w, float* hidden,
                   const unsigned* __restrict__ nodes,
                   const unsigned long long* __restrict__ bids, const unsigned* __restrict__ ads,
                   const unsigned long long* __restrict__ ad_bids,
                   const unsigned long long* __restrict__ ad_ids,
                   const unsigned* __restrict__ rules, const double* __restrict__ terms,
                   const unsigned long long* __restrict__ seeds,
                   const unsigned* __restrict__ organic,
                   const unsigned long long* __restrict__ organic_ids,
                   const double* __restrict__ ln_w, unsigned* progress, unsigned* beams,
                   double* sums, unsigned* rows, unsigned* chosen, double* chosen_ln_z,
                   unsigned* tokens, unsigned* position, unsigned n, unsigned layers,
                   unsigned codes, unsigned positions, unsigned first_code_token, unsigned boi,
                   unsigned d, float eps) {
  begin_kernel();
  const unsigned requests = gridDim.y;
  const Expansion expansion{nodes, bids, ads, ad_bids, rules, terms, organic, ln_w, rows, chosen, sums,
                            beams, progress, layers, codes, positions, n, requests};
  const Selection selection{nodes, ads, ad_bids, ad_ids, rules, seeds, organic, organic_ids,
                            progress, beams, sums, rows, chosen, chosen_ln_z, tokens, position, n,
                            layers, codes, positions, first_code_token, boi, requests};
  search_step({x, norm, hidden, n * requests, d, eps}, w, expansion, selection);
}
