// silu(z) = z / (1 + e^-z).
#pragma once

#include "ptx.cuh"

// For negative infinity 0, as the limit is. expf ends in a product, and 1 must not be added to it in
// one step: that would round otherwise in files compiled with --fmad=false, as the persistent search
// is, than in others.
PTX_FN float silu(float z) {
  const float bounded = z < -1e4f ? -1e4f : z;
  return bounded / __fadd_rn(1.0f, expf(-bounded));
}
