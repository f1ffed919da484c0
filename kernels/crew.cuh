// Threads that do a piece of the search together: all of a block, or a warp. Results do not depend
// on which: maxima and sums of integers have no order.
//
// Every function but rank and size must be reached by all threads of the crew.
#pragma once

#include "search.cuh"

namespace search {

// What a crew of several warps needs of shared memory.
struct CrewScratch {
  double maxima[32];
  unsigned long long sums[2][32];
};

// All threads of the block. A barrier must stand between two calls of the same reduction.
struct BlockCrew {
  CrewScratch& scratch;

  PTX_FN unsigned rank() const { return threadIdx.x; }
  PTX_FN unsigned size() const { return blockDim.x; }
  PTX_FN void sync() const { __syncthreads(); }

  // In all threads; what they wrote before is seen after.
  PTX_FN double max(double x) const {
    x = warp_max(x);
    if (threadIdx.x % 32 == 0) scratch.maxima[threadIdx.x / 32] = x;
    __syncthreads();
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) {
      const double other = scratch.maxima[warp];
      x = other > x ? other : x;
    }
    return x;
  }

  // The sums of two numbers, in all threads.
  PTX_FN void sum(uint64_t& a, uint64_t& b) const {
    a = warp_sum(a);
    b = warp_sum(b);
    if (threadIdx.x % 32 == 0) {
      scratch.sums[0][threadIdx.x / 32] = a;
      scratch.sums[1][threadIdx.x / 32] = b;
    }
    __syncthreads();
    a = b = 0;
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) {
      a += scratch.sums[0][warp];
      b += scratch.sums[1][warp];
    }
  }
};

// The lanes of a warp.
struct WarpCrew {
  PTX_FN unsigned rank() const { return threadIdx.x % 32; }
  PTX_FN unsigned size() const { return 32; }
  PTX_FN void sync() const { __syncwarp(); }

  PTX_FN double max(double x) const {
    __syncwarp();
    return warp_max(x);
  }
  PTX_FN void sum(uint64_t& a, uint64_t& b) const {
    a = warp_sum(a);
    b = warp_sum(b);
  }
};

}  // namespace search
