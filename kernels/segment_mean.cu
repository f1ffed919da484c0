// Mean of the rows of each request: mean[r] = 1/n sum over its n rows of x, zeros where n is 0. The
// reward model's view of the user (Eq. 18), from the encoder's states.
//
//   x        f32 [rows, d]         states of all requests, one after the other
//   offsets  u32 [requests + 1]    request r has the rows offsets[r] .. offsets[r + 1]
//   mean     f32 [requests, d]
//
// Launch: 512 threads, grid (ceil(d / 32), requests). Warp w sums the rows w, w + 16, .. of 32
// columns; the sixteen sums are added in the order of the warps: one order, whatever else is in the
// batch.
// Bytes: 4 d a row. FLOPs: d a row. Bound by memory.
#include "ptx.cuh"

constexpr int WARPS = 16;

extern "C" __global__ void __launch_bounds__(32 * WARPS)
    segment_mean(const float* __restrict__ x, const unsigned* __restrict__ offsets, unsigned d,
                 float* __restrict__ mean) {
  begin_kernel();
  __shared__ float parts[WARPS][32];
  unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned column = blockIdx.x * 32 + lane;
  unsigned begin = offsets[blockIdx.y], end = offsets[blockIdx.y + 1];
  float sum = 0.f;
  if (column < d) {
#pragma unroll 8
    for (unsigned row = begin + warp; row < end; row += WARPS) sum += x[(size_t)row * d + column];
  }
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= d) return;
  for (int w = 1; w < WARPS; w++) sum += parts[w][lane];
  mean[(size_t)blockIdx.y * d + column] = end > begin ? sum / (float)(end - begin) : 0.f;
}
