// Which block of a launch some work is. A kernel whose work another kernel also does, a launch
// within a launch, asks this instead of blockIdx and gridDim.
#pragma once

#include "ptx.cuh"

struct Place {
  unsigned x, y, z;              // blockIdx
  unsigned width, height, depth;  // gridDim
};

// Of the block that runs.
PTX_FN Place own_place() {
  return {blockIdx.x, blockIdx.y, blockIdx.z, gridDim.x, gridDim.y, gridDim.z};
}
