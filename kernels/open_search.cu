// Opens the search of each request: one empty beam that awaits its first slot.
//
// Tables as in search.cuh; `tokens` u32 [R N] become [BOI], `position` u32 [1] 0.
//
// Launch: grid (1, R), block a multiple of 32 up to 1,024 threads. Work: 4 P bytes for each row,
// no FLOPs.
//
// nvcc: --fmad=false
#include "search.cuh"

using namespace search;

extern "C" __global__ void __launch_bounds__(1024)
open_search(const unsigned* __restrict__ rules, unsigned* progress, unsigned* beams, double* sums,
            unsigned* rows, unsigned* tokens, unsigned* position, unsigned n, unsigned positions,
            unsigned boi) {
  begin_kernel();
  const unsigned request = blockIdx.y;
  const size_t request_row = (size_t)request * n;
  rules += request * RULES;
  progress += request * PROGRESS;
  rows += request_row * positions;
  // Rows that are not in use are run too: let every entry be a row.
  for (unsigned i = threadIdx.x; i < n * positions; i += blockDim.x) rows[i] = i / positions;
  for (unsigned i = threadIdx.x; i < n; i += blockDim.x) tokens[request_row + i] = boi;
  if (threadIdx.x != 0) return;
  progress[BEAMS] = progress[ROWS] = 1;
  progress[STEP] = 0;
  progress[FAULT] = progress[FAULT_STEP] = NONE;
  progress[FAULT_BITS] = 0;
  unsigned* beam = beams + request_row * BEAM_WORDS;
  beam[ADS_SHOWN] = beam[ORGANICS_SHOWN] = beam[LENGTH] = beam[ROW] = 0;
  beam[WAYS] = beam[ENDS] = 0;
  beam[LAST_AD] = beam[HOLE] = NONE;
  open_slot(rules, 0, beam);
  sums[request_row * SUMS + SCORE] = 0.0;
  sums[request_row * SUMS + ITEM_LN_Z] = 0.0;
  if (request == 0) *position = 0;
}
