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
// Grid (C, R) in clusters of C blocks along x, 1 to MOST_BLOCKS, of 256 threads. Dynamic shared
// memory: StepMemory of step_memory.cuh. N is at most 256, d as norm_product.cuh has it.
//
// A cluster has a request. Row r of its rows, and the beam that has it, belong to block r % C.
//
//   head    Where more codes may follow than a block should score one by one, the product: codes in
//           tiles of 64 by turns, each logit written into the shared memory of its row's block;
//           behind it a barrier of the cluster. Else each block scores what may follow its own beams,
//           eight codes a warp at a time, and no block waits for another
//   expand  a warp for each of the block's beams; ln z stays in shared memory. Of its ways on the
//           block keeps the N best, and writes them into the shared memory of every block
//   select  behind a barrier of the cluster every block ranks what all have kept, and continues each
//           C-th of the new beams, a warp for each: code, item, what the slot holds
//   store   behind another: beams and paths change places, now that all have been read
//
// The bits depend neither on C nor on the batch: an element of the head is always one sequence of
// mma.m16n8k16, sums of weights have no order, ranks are by score, beam and code.
//
// FLOP of the product 2 N W d a request; else 16 times 2 d for each code, of which a sixteenth counts.
// Bytes a block, from L2: of the product 4 N d of x (twice, the second time from L1) and 2 d W / C of
// weights, else 4 d N / C and 2 d for each code; 32 bytes for each child. Between the blocks 4 N W of
// logits and 32 N C (C - 1) of candidates a request, as far as there are so many.
// Barriers of a step on its longest way: of the cluster 3, the first arrived at early, and one more
// behind a product; of a block 9 and one for each digit of two selections (two or three each, none
// where N or less are there), and for a product d / 64 a tile. The three launches have 2 gaps, d / 64
// a tile, 4 and 9 barriers and the digits of their selections; they write and read 4 N W bytes of
// logits and 8 N W of ln z.
// Loads that wait for one another: progress, beam, node, child, bids; candidate, beam, code; at the
// last layer path, used ad, or node, bids, whichever is longer.
//
// nvcc: --fmad=false
#include "search_step.cuh"

using namespace search;

static_assert(sizeof(Candidate) == 32 && sizeof(NextBeam) == 64 && sizeof(StepBeam) == 32 &&
              sizeof(StepBlock) == 3952, "what launches give");

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
  const StepHead head{rows, w, memory, in, team.rank()};
  if (over)
    own.idle(head);
  else
    own.run(head);
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
