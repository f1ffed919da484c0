// hidden = silu(x gate^T) * (x up^T): the first half of the encoder's feed-forward layer, of normed
// rows. In place of swiglu.cu where a launch before has normed the rows and rounded them. It is
// off: it has run in the emulator alone, never on a card.
//
//   x  bf16 [m, k] and w  bf16 [2 ffn, k], by tensor maps: see product_hopper.cuh. w is 16 rows of
//      gate, 16 rows of up, 16 rows of gate, .. and each 16 of them arranged
//   hidden  bf16 [m, ffn], ffn a multiple of 16, aligned to 8 bytes
//
// Gate and up of an element are thus in one lane, and hidden is all that leaves the block. Grid
// (over 2 ffn columns), threads, shared memory, the order of the sums: see product_hopper.cuh; _64
// and _128 are its ROWS and give the same bits. FLOP 4 m ffn k. Bytes out 2 m ffn.
#include "product_hopper.cuh"
#include "silu.cuh"

PTX_FN float4 gated(float4 gate, float4 up) {
  return make_float4(silu(gate.x) * up.x, silu(gate.y) * up.y, silu(gate.z) * up.z,
                     silu(gate.w) * up.w);
}

template <int ROWS>
PTX_FN void linear_swiglu(const TensorMap* x, const TensorMap* w, __nv_bfloat16* hidden,
                          unsigned m, unsigned ffn, unsigned k) {
  DYN_SMEM(memory);
  product<ROWS>(memory, x, w, k, [=](const Sums& sums) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const unsigned row = blockIdx.y * ROWS + tile_row(half);
      if (row >= m) continue;
#pragma unroll
      for (int pair = 0; pair < COLUMNS / 32; pair++) {
        const unsigned column = (blockIdx.x * COLUMNS / 32 + pair) * 16 + threadIdx.x % 4 * 4;
        if (column >= ffn) continue;
        const float4 gate = run_sums(sums, 2 * pair, half), up = run_sums(sums, 2 * pair + 1, half);
        *reinterpret_cast<uint2*>(hidden + (size_t)row * ffn + column) =
            pack_bf16(gated(gate, up));
      }
    }
  });
}

extern "C" __global__ void __launch_bounds__(product_threads(64), 2)
    linear_swiglu_hopper_64(const __grid_constant__ TensorMap x,
                            const __grid_constant__ TensorMap w, __nv_bfloat16* __restrict__ hidden,
                            unsigned m, unsigned ffn, unsigned k) {
  begin_kernel();
  linear_swiglu<64>(&x, &w, hidden, m, ffn, k);
}

extern "C" __global__ void __launch_bounds__(product_threads(128), 2)
    linear_swiglu_hopper_128(const __grid_constant__ TensorMap x,
                             const __grid_constant__ TensorMap w,
                             __nv_bfloat16* __restrict__ hidden, unsigned m, unsigned ffn,
                             unsigned k) {
  begin_kernel();
  linear_swiglu<128>(&x, &w, hidden, m, ffn, k);
}
