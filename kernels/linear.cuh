// y = x W^T in tiles of 64 rows: the core of linear.cu, which says what the arrays are, and of the
// persistent decoder.
//
// A block of THREADS threads makes one tile of 64 x COLUMNS, each warp 16 MI x 16 NI of it. 64
// columns of k at a time go through a ring of STAGES stages of cp.async. `place` is of a grid
// (ceil(n / COLUMNS), ceil(m / 64)).
//
// An element is one sequence of mma.m16n8k16 over k from 0 up with an f32 sum. It does not depend
// on m, n, the tile or the warps.
#pragma once

#include "place.cuh"
#include "store.cuh"
#include "tile.cuh"


constexpr int ROWS = 64;

// Dynamic shared memory of a block.
template <int COLUMNS, int STAGES>
constexpr int LINEAR_BYTES = (ROWS + COLUMNS) * TILE_ROW_BYTES * STAGES;

template <int COLUMNS, int THREADS, int STAGES, int NI, class Store>
PTX_FN void linear(Place place, const __nv_bfloat16* x, const __nv_bfloat16* w, unsigned m,
                   unsigned n, unsigned k, Store store) {
  constexpr int STAGE_BYTES = (ROWS + COLUMNS) * TILE_ROW_BYTES;
  constexpr int WARP_COLUMNS = 16 * NI, ACROSS = COLUMNS / WARP_COLUMNS;
  constexpr int DOWN = THREADS / 32 / ACROSS, WARP_ROWS = ROWS / DOWN, MI = WARP_ROWS / 16;
  DYN_SMEM(smem);
  const uint32_t ring = smem_u32(smem);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int warp_row = warp % DOWN * WARP_ROWS, warp_column = warp / DOWN * WARP_COLUMNS;
  const unsigned row0 = place.y * ROWS, column0 = place.x * COLUMNS;
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

  float sums[MI][2 * NI][4] = {};
  for (int chunk = 0; chunk < STAGES - 1; chunk++) load(chunk);
  for (int chunk = 0; chunk < chunks; chunk++) {
    cp_async_wait<STAGES - 2>();
    // All threads' copies of this chunk are there, and all are done with the stage that is refilled
    // next.
    __syncthreads();
    load(chunk + STAGES - 1);
    const uint32_t stage = ring + chunk % STAGES * STAGE_BYTES;
    multiply_tiles<MI, NI>(sums, stage, warp_row, stage + ROWS * TILE_ROW_BYTES, warp_column);
  }

#pragma unroll
  for (int i = 0; i < MI; i++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const unsigned row = row0 + warp_row + i * 16 + half * 8 + (lane >> 2);
      if (row >= m) continue;
#pragma unroll
      for (int j = 0; j < 2 * NI; j++) {
        store_pair(store, row, n, column0 + warp_column + j * 8 + (lane & 3) * 2,
                   sums[i][j][2 * half], sums[i][j][2 * half + 1]);
      }
    }
  }
}
