// y = rotary(rms_norm(x) W^T): the projections that follow a norm, with the rotary embedding of
// queries and keys.
//
//   x       f32 [m, d], d a multiple of 8, at most 1024; aligned to 8 bytes
//   weight  f32 [d], of the norm; null: x is not normed
//   w       bf16 [n, d], aligned to 16 bytes
//   angles  f32 [positions, head_size]: of each position head_size / 2 cosines, then as many sines
//   position  u32; row r stands at position[r * position_stride], so stride 0 gives all rows one
//             position
//   normed  f32 [m, d] or null: takes the normed rows before they are rounded
//   y       [m, n], f32 or bf16, aligned to two elements
//
// The first `rotated` columns of y are heads of 32 << head_shift columns, whose pairs (i, i +
// head_size / 2) turn by the row's angles. If rotated > 0, it and n are whole heads; head_shift is
// 0, 1 or 2 (32, 64 or 128) and 0 where nothing turns.
//
// Grid, shared memory and the order of the sums: see norm_product.cuh; _64 and _128 are its COLUMNS
// and give the same bits. FLOP 2 m n d. Bytes from L2 per block: 256 d for the rows (read twice), 2
// d per weight row. A block makes as many tiles of weights as the launch says: many save norms
// where m is large, one where few rows leave the card idle.
#include "norm_linear.cuh"

extern "C" __global__ void __launch_bounds__(NORM_THREADS)
    norm_linear_f32_64(const float* __restrict__ x, const float* __restrict__ weight,
                       const __nv_bfloat16* __restrict__ w, const float* __restrict__ angles,
                       const unsigned* __restrict__ position, float* __restrict__ normed,
                       float* __restrict__ y, unsigned m, unsigned n, unsigned d, float eps,
                       unsigned rotated, unsigned head_shift, unsigned position_stride,
                       unsigned tiles_per_block) {
  begin_kernel();
  norm_linear<64>(own_place(), {x, weight, normed, m, d, eps}, w, StoreF32{y}, n,
                  {angles, position, position_stride, rotated, head_shift}, tiles_per_block);
}

extern "C" __global__ void __launch_bounds__(NORM_THREADS)
    norm_linear_f32_128(const float* __restrict__ x, const float* __restrict__ weight,
                        const __nv_bfloat16* __restrict__ w, const float* __restrict__ angles,
                        const unsigned* __restrict__ position, float* __restrict__ normed,
                        float* __restrict__ y, unsigned m, unsigned n, unsigned d, float eps,
                        unsigned rotated, unsigned head_shift, unsigned position_stride,
                        unsigned tiles_per_block) {
  begin_kernel();
  norm_linear<128>(own_place(), {x, weight, normed, m, d, eps}, w, StoreF32{y}, n,
                   {angles, position, position_stride, rotated, head_shift}, tiles_per_block);
}

extern "C" __global__ void __launch_bounds__(NORM_THREADS)
    norm_linear_bf16_64(const float* __restrict__ x, const float* __restrict__ weight,
                        const __nv_bfloat16* __restrict__ w, const float* __restrict__ angles,
                        const unsigned* __restrict__ position, float* __restrict__ normed,
                        __nv_bfloat16* __restrict__ y, unsigned m, unsigned n, unsigned d,
                        float eps, unsigned rotated, unsigned head_shift, unsigned position_stride,
                        unsigned tiles_per_block) {
  begin_kernel();
  norm_linear<64>(own_place(), {x, weight, normed, m, d, eps}, w, StoreBf16{y}, n,
                  {angles, position, position_stride, rotated, head_shift}, tiles_per_block);
}

extern "C" __global__ void __launch_bounds__(NORM_THREADS)
    norm_linear_bf16_128(const float* __restrict__ x, const float* __restrict__ weight,
                         const __nv_bfloat16* __restrict__ w, const float* __restrict__ angles,
                         const unsigned* __restrict__ position, float* __restrict__ normed,
                         __nv_bfloat16* __restrict__ y, unsigned m, unsigned n, unsigned d,
                         float eps, unsigned rotated, unsigned head_shift, unsigned position_stride,
                         unsigned tiles_per_block) {
  begin_kernel();
  norm_linear<128>(own_place(), {x, weight, normed, m, d, eps}, w, StoreBf16{y}, n,
                   {angles, position, position_stride, rotated, head_shift}, tiles_per_block);
}
