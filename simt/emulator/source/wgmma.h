// The products that a warp has under way.
#pragma once

#include <cstdint>
#include <vector>

#include "simt/runtime.h"

namespace simt {

// The accumulators of one product, or of several that add to the same registers. While one is under
// way the registers hold NaN and their values are here.
struct Accumulator {
  float* registers[32];        // of each lane
  int count;                   // of them in a lane
  std::vector<float> values;   // [32][count]
};

// A wgmma.mma_async that has not been waited for.
struct Product {
  int n;
  float* registers;  // lane 0's, which name the accumulator
  bool a_in_registers;
  uint32_t a[32][4];
  uint64_t a_descriptor, b_descriptor;
  bool accumulate, a_mn, b_mn;
  bool done;  // computed when it was issued
  uint32_t group;
  uint32_t since;  // when it was issued, for the checker
  loc_t loc;
};

struct WarpProducts {
  std::vector<Product> pending;
  std::vector<Accumulator> accumulators;
  uint32_t group;   // wgmma groups committed so far
  uint64_t digest;  // of all products issued: the four warps of a warpgroup must agree
};

}  // namespace simt
