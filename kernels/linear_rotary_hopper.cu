// y = rotary(x W^T): the encoder's queries, keys and values of normed rows. In place of
// norm_linear.cu where a launch before has normed the rows and rounded them. It is off: it has run
// in the emulator alone, never on a card.
//
//   x  bf16 [m, k] and w  bf16 [n, k], by tensor maps, rows of w arranged: see product_hopper.cuh
//   angles    f32 [positions, head_size], aligned to 16 bytes: of each position head_size / 2
//             cosines, then as many sines
//   position  u32; row r stands at position[r * position_stride]
//   y         bf16 [m, n], aligned to 8 bytes
//
// The first `rotated` columns of y are heads of 32 << head_shift columns, head_shift 0, 1 or 2,
// whose pairs (i, i + head_size / 2) turn by the row's angles; `rotated` and n are whole heads.
// Both columns of a pair are in one lane, for heads are whole in a tile and halves of them whole
// runs.
//
// Grid, threads, shared memory, the order of the sums: see product_hopper.cuh; _64 and _128 are its
// ROWS and give the same bits. FLOP 2 m n k. Bytes besides the operands': 2 m n out, and 4
// head_size per row and head of a tile in, from L1 after the first.
#include "product_hopper.cuh"

struct Rotary {
  const float* angles;
  const unsigned* position;
  unsigned position_stride, rotated, head_shift;
};

// Turns one pair of columns.
PTX_FN void turn(float& low, float& high, float cosine, float sine) {
  const float x = low, y = high;
  low = fmaf(x, cosine, -__fmul_rn(y, sine));
  high = fmaf(y, cosine, __fmul_rn(x, sine));
}

// Turns and stores a lane's sums of a row: heads of 32 << SHIFT columns, so that each half of one
// is 1 << SHIFT runs.
template <int SHIFT>
PTX_FN void store_heads(Sums& sums, int half, const float* angle, unsigned rotated,
                        __nv_bfloat16* y, unsigned n) {
  constexpr int RUNS = 1 << SHIFT;
#pragma unroll
  for (int run = 0; run < COLUMNS / 16; run++) {
    const unsigned column = run_column(run);
    if (run & RUNS || column >= n) continue;
    if (column < rotated) {
      settle(sums);
      const float* at = angle + run % RUNS * 16 + threadIdx.x % 4 * 4;
      const float4 cosine = *reinterpret_cast<const float4*>(at);
      const float4 sine = *reinterpret_cast<const float4*>(at + RUNS * 16);
      float *low = sums + 8 * run + 2 * half, *high = low + 8 * RUNS;
      turn(low[0], high[0], cosine.x, sine.x);
      turn(low[1], high[1], cosine.y, sine.y);
      turn(low[4], high[4], cosine.z, sine.z);
      turn(low[5], high[5], cosine.w, sine.w);
    }
    uint2* to = reinterpret_cast<uint2*>(y + column);
    to[0] = pack_bf16(run_sums(sums, run, half));
    to[RUNS * 4] = pack_bf16(run_sums(sums, run + RUNS, half));
  }
}

template <int ROWS>
PTX_FN void linear_rotary(const TensorMap* x, const TensorMap* w, const Rotary& rotary,
                          __nv_bfloat16* y, unsigned m, unsigned n, unsigned k) {
  DYN_SMEM(memory);
  product<ROWS>(memory, x, w, k, [=](Sums& sums) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const unsigned row = blockIdx.y * ROWS + tile_row(half), shift = rotary.head_shift;
      if (row >= m) continue;
      const size_t position = rotary.position[row * rotary.position_stride];
      const float* angle = rotary.angles + (position << (5 + shift));
      __nv_bfloat16* to = y + (size_t)row * n;
      if (shift == 0) store_heads<0>(sums, half, angle, rotary.rotated, to, n);
      if (shift == 1) store_heads<1>(sums, half, angle, rotary.rotated, to, n);
      if (shift == 2) store_heads<2>(sums, half, angle, rotary.rotated, to, n);
    }
  });
}

extern "C" __global__ void __launch_bounds__(product_threads(64), 2)
    linear_rotary_hopper_64(const __grid_constant__ TensorMap x,
                            const __grid_constant__ TensorMap w, const float* __restrict__ angles,
                            const unsigned* __restrict__ position, __nv_bfloat16* __restrict__ y,
                            unsigned m, unsigned n, unsigned k, unsigned position_stride,
                            unsigned rotated, unsigned head_shift) {
  begin_kernel();
  linear_rotary<64>(&x, &w, {angles, position, position_stride, rotated, head_shift}, y, m, n, k);
}

extern "C" __global__ void __launch_bounds__(product_threads(128), 2)
    linear_rotary_hopper_128(const __grid_constant__ TensorMap x,
                             const __grid_constant__ TensorMap w, const float* __restrict__ angles,
                             const unsigned* __restrict__ position, __nv_bfloat16* __restrict__ y,
                             unsigned m, unsigned n, unsigned k, unsigned position_stride,
                             unsigned rotated, unsigned head_shift) {
  begin_kernel();
  linear_rotary<128>(&x, &w, {angles, position, position_stride, rotated, head_shift}, y, m, n, k);
}
