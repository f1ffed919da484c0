// RMSNorm: y = x / sqrt(mean(x^2) + eps) * weight, row by row.
//
//   x  f32 [m, d], weight f32 [d], d even, aligned to 8 bytes
//   y  f32 [m, d] or null, rounded  bf16 [m, d] or null: the same numbers
//   Grid (ceil(m / 8)), 256 threads: a warp a row. 4 m d bytes in (twice, the second time from L1),
//   up to 6 m d out. 4 m d FLOPs.
#include "row_norm.cuh"

constexpr int NORM_WARPS = 8;

extern "C" __global__ void __launch_bounds__(NORM_WARPS * 32)
    rms_norm(const float* __restrict__ x, const float* __restrict__ weight, float* __restrict__ y,
             __nv_bfloat16* __restrict__ rounded, unsigned m, unsigned d, float eps) {
  begin_kernel();
  const unsigned row = blockIdx.x * NORM_WARPS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (row >= m) return;
  const size_t start = (size_t)row * d;
  float scale[1];
  inverse_rms<1>(x + start, 1, d, eps, scale);
  for (unsigned column = lane * 2; column < d; column += 64) {
    const float2 pair = *reinterpret_cast<const float2*>(x + start + column);
    const float2 gain = *reinterpret_cast<const float2*>(weight + column);
    const float first = pair.x * scale[0] * gain.x, second = pair.y * scale[0] * gain.y;
    if (y) *reinterpret_cast<float2*>(y + start + column) = make_float2(first, second);
    if (rounded) {
      *reinterpret_cast<uint32_t*>(rounded + start + column) = pack_bf16(first, second);
    }
  }
}
