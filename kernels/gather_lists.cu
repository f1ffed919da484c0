// The candidate lists of each request, from the paths of its beams and what each row has closed.
//
// Tables as in search.cuh. Out: `counts` u32 [R], the lists of each request, and by beam, best first:
//   items   u32 [R N][S]   rows in the catalog, NONE behind the last
//   list_ads u32 [R N][S]  the ads among them, NONE for organic items
//   ln_zs   f64 [R N][S]   ln z of each item, 0 behind the last
//   scores  f64 [R N]
//   paths   u32 [R N][P]   the row that ran the list's prefix at each position, NONE behind the last
// Behind the last list of a request there are empty ones, with score 0.
//
// Launch: grid (N, R), block a multiple of 32 up to 256 threads. Work: 8 P + 40 S bytes a list,
// no FLOPs.
//
// nvcc: --fmad=false
#include "search.cuh"

using namespace search;

extern "C" __global__ void __launch_bounds__(256)
gather_lists(const unsigned* __restrict__ rules, const unsigned* __restrict__ progress,
             const unsigned* __restrict__ beams, const double* __restrict__ sums,
             const unsigned* __restrict__ rows, const unsigned* __restrict__ chosen,
             const double* __restrict__ chosen_ln_z, unsigned* counts, unsigned* items,
             unsigned* list_ads, double* ln_zs, double* scores, unsigned* paths, unsigned slots,
             unsigned layers, unsigned positions) {
  begin_kernel();
  const unsigned request = blockIdx.y;
  const size_t request_row = (size_t)request * gridDim.x, all_rows = (size_t)gridDim.x * gridDim.y;
  rules += request * RULES;
  progress += request * PROGRESS;
  const bool there = blockIdx.x < progress[BEAMS];
  const size_t list = request_row + blockIdx.x;
  const unsigned* beam = beams + list * BEAM_WORDS;
  const unsigned* path = rows;
  unsigned length = 0, filled = 0;
  if (there) {
    path += (request_row + beam[ROW]) * positions;
    const unsigned last = min(progress[STEP], rules[LIST_LEN] * layers);
    length = beam[LENGTH] == 0 ? last + 1 : beam[LENGTH];
    filled = (length - 1) / layers;
  }
  for (unsigned p = threadIdx.x; p < positions; p += blockDim.x)
    paths[list * positions + p] = p < length ? path[p] : NONE;
  for (unsigned slot = threadIdx.x; slot < slots; slot += blockDim.x) {
    unsigned item = NONE, ad = NONE;
    double ln_z = 0.0;
    if (slot < filled) {
             const size_t at = slot * all_rows + request_row + path[(slot + 1) * layers];
      item = chosen[at * chosen_words(layers) + CHOSEN_ITEM];
      ad = chosen[at * chosen_words(layers) + CHOSEN_AD];
      ln_z = chosen_ln_z[at];
    }
    items[list * slots + slot] = item;
    list_ads[list * slots + slot] = ad;
    ln_zs[list * slots + slot] = ln_z;
  }
  if (threadIdx.x != 0) return;
  scores[list] = there ? sums[list * SUMS + SCORE] : 0.0;
  if (blockIdx.x == 0) counts[request] = progress[BEAMS];
}
