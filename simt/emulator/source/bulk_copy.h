// Bulk copies between global and shared memory that one thread issues and the copy engine makes.
#pragma once

#include <cstdint>

#include "check/checker.h"
#include "simt/runtime.h"
#include "tensor_map.h"

namespace simt {

struct Fiber;

// What a bulk load has written.
struct Landing {
  char* to;
  uint32_t bytes;
  loc_t loc;  // where it was issued
};

struct BulkCopy {
  Fiber* fiber;  // that issued it
  loc_t loc;
  uint32_t address;  // shared address, of which the swizzle depends
  char* shared;      // the same place
  uint32_t bytes;    // there
  bool is_tensor;
  char* global;        // of a copy without a tensor map
  TensorMap map;       // of one with it
  int coordinates[5];  // of the box, innermost first
  uint32_t since;      // when a store was issued, for the checker
  uint32_t group;      // a store's
  const void* barrier;  // a load's mbarrier
  ReleaseClock clock;   // what was ordered before a load was issued
};

}  // namespace simt
