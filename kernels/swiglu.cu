// hidden = silu(h gate^T) * (h up^T), h = rms_norm(x): the first half of the feed-forward layer.
// silu(z) = z / (1 + e^-z).
//
//   x       f32 [m, d], d a multiple of 8, at most 1024; aligned to 8 bytes
//   weight  f32 [d], of the norm
//   w       bf16 [2 ffn, d], aligned to 16 bytes: 16 rows of gate, 16 rows of up, 16 rows of gate,
//           ..
//   hidden  bf16 [m, ffn], ffn a multiple of 16, aligned to 4 bytes
//
// Gate and up of an element are thus in one thread, and hidden is all that leaves the block. Grid
// (over 2 ffn slots), shared memory and the order of the sums: see norm_product.cuh; _64 and _128
// are its COLUMNS and give the same bits. FLOP 4 m ffn d. Bytes out 2 m ffn instead of 8 m ffn for
// two products in f32, and no separate norm.
#include "swiglu.cuh"

extern "C" __global__ void __launch_bounds__(NORM_THREADS)
    swiglu_64(const float* __restrict__ x, const float* __restrict__ weight,
              const __nv_bfloat16* __restrict__ w, __nv_bfloat16* __restrict__ hidden, unsigned m,
              unsigned ffn, unsigned d, float eps, unsigned tiles_per_block) {
  begin_kernel();
  swiglu<64>(own_place(), {x, weight, nullptr, m, d, eps}, w, hidden, ffn, tiles_per_block);
}

extern "C" __global__ void __launch_bounds__(NORM_THREADS)
    swiglu_128(const float* __restrict__ x, const float* __restrict__ weight,
               const __nv_bfloat16* __restrict__ w, __nv_bfloat16* __restrict__ hidden, unsigned m,
               unsigned ffn, unsigned d, float eps, unsigned tiles_per_block) {
  begin_kernel();
  swiglu<128>(own_place(), {x, weight, nullptr, m, d, eps}, w, hidden, ffn, tiles_per_block);
}
