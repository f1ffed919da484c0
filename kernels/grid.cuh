// A barrier of all blocks of a cooperative launch, which must all be resident.
#pragma once

#include "hopper.cuh"

#ifdef HOPPER

// Every thread of the grid waits for all others, for the barrier's use number `round`, counted from
// 0: what they did before it comes before what any does after it. `counter`, in device memory, is
// zero before round 0 and belongs to the barrier from then on.
//
// One thread speaks for its block, whose barriers hand on what the others did and learn. Each round
// adds the number of blocks, so that no round needs the counter reset, and none that is late takes
// the next for its own.
PTX_FN void grid_barrier(unsigned* counter, unsigned round LOCP) {
  const unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
    EMU(counter_add(counter, 1, loc), counter_add(counter, 1));
    EMU(counter_wait(counter, (round + 1) * blocks, loc),
        counter_wait(counter, (round + 1) * blocks));
  }
  __syncthreads();
}

#endif  // HOPPER
