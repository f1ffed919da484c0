// Root-mean-square norm in f32: y = x / sqrt(mean(x^2) + eps) * weight, row by row, bit for bit as
// on the CPU.
//
//   x, y    f32 [rows, d]     different arrays
//   weight  f32 [d]
//
// Launch: 256 threads, a half-warp a row, grid ceil(rows / 16).
// Bytes: 4 d read and 4 d written a row. FLOPs: about 4 d a row. Bound by memory; a row is read
// twice, the second time from L1. Any d.
#include "lanes.cuh"

constexpr int THREADS = 256;
constexpr int ROWS_PER_BLOCK = THREADS / LANES;

extern "C" __global__ void __launch_bounds__(THREADS)
    rms_norm_f32(const float* __restrict__ x, const float* __restrict__ weight, float eps,
                 unsigned rows, unsigned d, float* __restrict__ y) {
  begin_kernel();
  unsigned row = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / LANES;
  // Both half-warps take part in the sum; the one without a row has an empty one.
  unsigned count = row < rows ? d : 0;
  const float* from = x + (size_t)row * d;
  float* to = y + (size_t)row * d;
  float scale = rms_scale([=](unsigned i) { return from[i]; }, count, eps);
  for (unsigned i = threadIdx.x % LANES; i < count; i += LANES) to[i] = from[i] * scale * weight[i];
}
