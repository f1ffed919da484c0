// Multiplies `n` floats by a factor: the simplest kernel, for tests of launches.
#include <cuda_runtime.h>

extern "C" __global__ void scale(float* x, float factor, unsigned n) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] *= factor;
}
