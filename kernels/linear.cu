// y = x W^T, then stored as f32 or bf16, or added to y.
//
//   x  bf16 [m, k], aligned to 16 bytes      w  bf16 [n, k], aligned to 16 bytes
//   y  [m, n], aligned to two elements       k  a multiple of 8; m and n any
//
// Grid (ceil(n / COLUMNS), ceil(m / 64)). Kernels ending in _64 make tiles of 64 x 64 with 128
// threads and 64 KiB of dynamic shared memory, those ending in _128 tiles of 64 x 128 with 256
// threads and 72 KiB. Each warp makes 32 x 32 of the tile. 64 columns of k at a time go through a
// ring of four (_64) or three (_128) stages of cp.async.
//
// An element is one sequence of mma.m16n8k16 over k from 0 up with an f32 sum. It does not depend
// on m, n, the tile or the kernel, so _64 and _128 give the same bits.
//
// FLOP 2 m n k. Bytes from L2: 2 k (64 + COLUMNS) per tile, so 32 FLOP a byte with _64 and 43 with
// _128: wide tiles win once there are enough of them to fill the card, narrow ones before. On sm_90
// a wgmma kernel has twice the rate; this one is what runs everywhere. One row tile of few columns
// leaves most of the card idle: the sum over k is never split.
#include "store.cuh"
#include "tile.cuh"

constexpr int ROWS = 64;

template <int COLUMNS, int STAGES, class Store>
PTX_FN void linear(const __nv_bfloat16* x, const __nv_bfloat16* w, unsigned m, unsigned n,
                   unsigned k, Store store) {
  constexpr int THREADS = COLUMNS * 2, STAGE_BYTES = (ROWS + COLUMNS) * TILE_ROW_BYTES;
  DYN_SMEM(smem);
  const uint32_t ring = smem_u32(smem);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int warp_row = warp % 2 * 32, warp_column = warp / 2 * 32;
  const unsigned row0 = blockIdx.y * ROWS, column0 = blockIdx.x * COLUMNS;
  const int chunks = (k + TILE_COLUMNS - 1) / TILE_COLUMNS;

  auto load = [&](int chunk) {
    if (chunk < chunks) {
      const uint32_t stage = ring + chunk % STAGES * STAGE_BYTES;
      const unsigned k0 = chunk * TILE_COLUMNS;
      load_tile<ROWS, THREADS>(stage, x, m, k, k0, [=](int r) { return row0 + r; });
      load_tile<COLUMNS, THREADS>(stage + ROWS * TILE_ROW_BYTES, w, n, k, k0,
                                  [=](int r) { return column0 + r; });
    }
    cp_async_commit();  // also where nothing is left, so that the wait below counts alike
  };

  float sums[2][4][4] = {};
  for (int chunk = 0; chunk < STAGES - 1; chunk++) load(chunk);
  for (int chunk = 0; chunk < chunks; chunk++) {
    cp_async_wait<STAGES - 2>();
    // All threads' copies of this chunk are there, and all are done with the stage that is refilled
    // next.
    __syncthreads();
    load(chunk + STAGES - 1);
    const uint32_t stage = ring + chunk % STAGES * STAGE_BYTES;
    multiply_tiles<2, 2>(sums, stage, warp_row, stage + ROWS * TILE_ROW_BYTES, warp_column);
  }

#pragma unroll
  for (int i = 0; i < 2; i++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const unsigned row = row0 + warp_row + i * 16 + half * 8 + (lane >> 2);
      if (row >= m) continue;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        store_pair(store, row, n, column0 + warp_column + j * 8 + (lane & 3) * 2,
                   sums[i][j][2 * half], sums[i][j][2 * half + 1]);
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(128)
    linear_f32_64(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                  float* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<64, 4>(x, w, m, n, k, StoreF32{y});
}

extern "C" __global__ void __launch_bounds__(256)
    linear_f32_128(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                   float* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<128, 3>(x, w, m, n, k, StoreF32{y});
}

extern "C" __global__ void __launch_bounds__(128)
    linear_bf16_64(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                   __nv_bfloat16* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<64, 4>(x, w, m, n, k, StoreBf16{y});
}

extern "C" __global__ void __launch_bounds__(256)
    linear_bf16_128(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                    __nv_bfloat16* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<128, 3>(x, w, m, n, k, StoreBf16{y});
}

extern "C" __global__ void __launch_bounds__(128)
    linear_add_64(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                  float* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<64, 4>(x, w, m, n, k, AddF32{y});
}

extern "C" __global__ void __launch_bounds__(256)
    linear_add_128(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ w,
                   float* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear<128, 3>(x, w, m, n, k, AddF32{y});
}
