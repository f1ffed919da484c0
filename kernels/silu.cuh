// silu(z) = z / (1 + e^-z).
#pragma once

#include "ptx.cuh"

// For negative infinity 0, as the limit is.
PTX_FN float silu(float z) {
  const float bounded = z < -1e4f ? -1e4f : z;
  return bounded / (1.0f + expf(-bounded));
}
