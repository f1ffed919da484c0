// y = x W^T, then stored as f32 or bf16, or added to y.
//
//   x  bf16 [m, k], aligned to 16 bytes      w  bf16 [n, k], aligned to 16 bytes
//   y  [m, n], aligned to two elements       k  a multiple of 8; m and n any
//
// Grid (ceil(n / COLUMNS), ceil(m / 64)). Kernels ending in _64 make tiles of 64 x 64 with 128
// threads and 64 KiB of dynamic shared memory, those ending in _128 tiles of 64 x 128 with 256
// threads and 72 KiB. Each warp makes 32 x 32 of the tile, through a ring of four (_64) or three (_128)
// stages.
//
// The tiles and the order of the sums: see linear.cuh; _64 and _128 give the same bits.
//
// FLOP 2 m n k. Bytes from L2: 2 k (64 + COLUMNS) per tile, so 32 FLOP a byte with _64 and 43 with
// _128: wide tiles win once there are enough of them to fill the card, narrow ones before. On sm_90
// a wgmma kernel has twice the rate; this one is what runs everywhere. One row tile of few columns
// leaves most of the card idle: the sum over k is never split.
#include "linear.cuh"

extern "C" __global__ void __launch_bounds__(128)
    linear_f32_64(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                  float* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<64, 128, 4, 2>(own_place(), x, w, m, n, k, StoreF32{y});
}

extern "C" __global__ void __launch_bounds__(256)
    linear_f32_128(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                   float* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<128, 256, 3, 2>(own_place(), x, w, m, n, k, StoreF32{y});
}

extern "C" __global__ void __launch_bounds__(128)
    linear_bf16_64(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                   __nv_bfloat16* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<64, 128, 4, 2>(own_place(), x, w, m, n, k, StoreBf16{y});
}

extern "C" __global__ void __launch_bounds__(256)
    linear_bf16_128(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                    __nv_bfloat16* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<128, 256, 3, 2>(own_place(), x, w, m, n, k, StoreBf16{y});
}

extern "C" __global__ void __launch_bounds__(128)
    linear_add_64(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                  float* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<64, 128, 4, 2>(own_place(), x, w, m, n, k, AddF32{y});
}

extern "C" __global__ void __launch_bounds__(256)
    linear_add_128(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                   float* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<128, 256, 3, 2>(own_place(), x, w, m, n, k, AddF32{y});
}
