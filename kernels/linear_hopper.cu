// y = x W^T by Hopper's own instructions: linear.cu with bulk copies and wgmma. It is off: it has
// run in the emulator alone, never on a card, and linear.cu serves every shape.
//
//   x  bf16 [m, k] and w  bf16 [n, k], by tensor maps: see product_hopper.cuh
//   y  [m, n], aligned to two elements: stored as f32 or bf16, or added to
//   k  a multiple of 8; m and n any. Where k is 0 the maps are not looked at.
//
// Grid, threads, shared memory, the order of the sums, FLOPs and bytes: see product_hopper.cuh; _64
// and _128 are its ROWS and give the same bits.
#include "product_hopper.cuh"
#include "store.cuh"

template <int ROWS, class Store>
PTX_FN void linear(const TensorMap* x, const TensorMap* w, unsigned m, unsigned n, unsigned k,
                   Store store) {
  DYN_SMEM(memory);
  product<ROWS>(memory, x, w, k, [=](const Sums& sums) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const unsigned row = blockIdx.y * ROWS + tile_row(half);
      if (row >= m) continue;
#pragma unroll
      for (int j = 0; j < COLUMNS / 8; j++) {
        const unsigned column = blockIdx.x * COLUMNS + j * 8 + threadIdx.x % 4 * 2;
        store_pair(store, row, n, column, sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
      }
    }
  });
}

extern "C" __global__ void __launch_bounds__(product_threads(64), 2)
    linear_hopper_f32_64(const __grid_constant__ TensorMap x,
                         const __grid_constant__ TensorMap w, float* __restrict__ y,
                         unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<64>(&x, &w, m, n, k, StoreF32{y});
}

extern "C" __global__ void __launch_bounds__(product_threads(64), 2)
    linear_hopper_bf16_64(const __grid_constant__ TensorMap x,
                          const __grid_constant__ TensorMap w, __nv_bfloat16* __restrict__ y,
                          unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<64>(&x, &w, m, n, k, StoreBf16{y});
}

extern "C" __global__ void __launch_bounds__(product_threads(64), 2)
    linear_hopper_add_64(const __grid_constant__ TensorMap x,
                         const __grid_constant__ TensorMap w, float* __restrict__ y,
                         unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<64>(&x, &w, m, n, k, AddF32{y});
}

extern "C" __global__ void __launch_bounds__(product_threads(128), 2)
    linear_hopper_f32_128(const __grid_constant__ TensorMap x,
                          const __grid_constant__ TensorMap w, float* __restrict__ y,
                          unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<128>(&x, &w, m, n, k, StoreF32{y});
}

extern "C" __global__ void __launch_bounds__(product_threads(128), 2)
    linear_hopper_bf16_128(const __grid_constant__ TensorMap x,
                           const __grid_constant__ TensorMap w, __nv_bfloat16* __restrict__ y,
                           unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<128>(&x, &w, m, n, k, StoreBf16{y});
}

extern "C" __global__ void __launch_bounds__(product_threads(128), 2)
    linear_hopper_add_128(const __grid_constant__ TensorMap x,
                          const __grid_constant__ TensorMap w, float* __restrict__ y,
                          unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<128>(&x, &w, m, n, k, AddF32{y});
}
