// RMSNorm and a product with the normed rows in one kernel: the core of norm_linear.cuh and
// swiglu.cuh.
//
// A block norms 64 rows of x, rounds them to bf16 and keeps them in shared memory. The weights'
// rows stream past them through a ring of cp.async, in tiles of COLUMNS (64 or 128) rows, as many
// tiles as the launch gives a block.
//
// The weights' rows are taken in slots. 32 slots are two runs of 16; the warp that has them holds
// the sums of slots i and i + 16 in the same thread, so that an epilogue can join the two:
// `row_of(slot)` says which row of the weights stands there, and for each such pair of neighbouring
// slots `finish(row, slot, s[slot], s[slot + 1], s[slot + 16], s[slot + 17])` is called, slot even.
// It is called for every row below m and every slot, also those past the end.
//
// `place` is of a grid (ceil(tiles / tiles_per_block), ceil(m / 64)). 256 threads, dynamic shared
// memory for 64 rows of d rounded up to 64, plus 32 KiB: 160 KiB for d = 1024, the largest, and 96
// KiB for d = 512, the largest where a block may have no more than 99 KiB.
//
// An element is one sequence of mma.m16n8k16 over the columns from 0 up, the same for every COLUMNS
// and grid.
#pragma once

#include "place.cuh"
#include "row_norm.cuh"
#include "tile.cuh"

constexpr int NORM_ROWS = 64;
constexpr int NORM_THREADS = 256;
constexpr int NORM_TILE_BYTES = NORM_ROWS * TILE_ROW_BYTES;
constexpr int NORM_RING_BYTES = 32 * 1024;

struct NormedRows {
  const float* x;       // [m, d], d even
  const float* weight;  // [d]; null: the rows are taken as they are
  float* normed;        // [m, d] or null: where place 0 of a row of blocks stores the normed rows
  unsigned m, d;
  float eps;
};

// Norms rows [row0, row0 + 64) into consecutive tiles at `tiles`, 64 columns each. What lies past
// the rows or columns becomes zero.
PTX_FN void norm_rows(unsigned char* tiles, const NormedRows& rows, unsigned row0) {
  constexpr int TOGETHER = 4, PER_WARP = NORM_ROWS / (NORM_THREADS / 32);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  for (int row = warp * PER_WARP; row < (warp + 1) * PER_WARP; row += TOGETHER) {
    const unsigned first = row0 + row, d = rows.d;
    const int count = first < rows.m ? min(rows.m - first, (unsigned)TOGETHER) : 0;
    const float* x = rows.x + (size_t)first * d;
    float scale[TOGETHER] = {1, 1, 1, 1};
    if (rows.weight) inverse_rms(x, count, d, rows.eps, scale);
    for (unsigned tile = 0; tile * TILE_COLUMNS < d; tile++) {
      const unsigned column = tile * TILE_COLUMNS + lane * 2;
      float2 gain = make_float2(1, 1);
      if (rows.weight && column < d) {
        gain = *reinterpret_cast<const float2*>(rows.weight + column);
      }
#pragma unroll
      for (int r = 0; r < TOGETHER; r++) {
        float2 pair = make_float2(0, 0);
        if (r < count && column < d) {
          pair = *reinterpret_cast<const float2*>(x + (size_t)r * d + column);
          pair = make_float2(pair.x * scale[r] * gain.x, pair.y * scale[r] * gain.y);
          if (rows.normed) {
            *reinterpret_cast<float2*>(rows.normed + (size_t)(first + r) * d + column) = pair;
          }
        }
        const uint32_t at = tile_at(tile * NORM_TILE_BYTES, row + r, lane >> 2) + (lane & 3) * 4;
        *reinterpret_cast<uint32_t*>(tiles + at) = pack_bf16(pair.x, pair.y);
      }
    }
  }
}

// Dynamic shared memory of a block.
PTX_FN unsigned norm_product_bytes(unsigned d) {
  return (d + TILE_COLUMNS - 1) / TILE_COLUMNS * NORM_TILE_BYTES + NORM_RING_BYTES;
}

// `w` is bf16 [slots, d], d a multiple of 8.
template <int COLUMNS, class RowOf, class Finish>
PTX_FN void norm_product(Place place, NormedRows rows, const __nv_bfloat16* w, unsigned slots,
                         unsigned tiles_per_block, RowOf row_of, Finish finish) {
  constexpr int STAGE_BYTES = COLUMNS * TILE_ROW_BYTES, STAGES = NORM_RING_BYTES / STAGE_BYTES;
  constexpr int WARPS_ACROSS = COLUMNS / 32, WARPS_DOWN = NORM_THREADS / 32 / WARPS_ACROSS;
  constexpr int WARP_ROWS = NORM_ROWS / WARPS_DOWN, BLOCKS = WARP_ROWS / 16;
  DYN_SMEM(smem);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int warp_row = warp % WARPS_DOWN * WARP_ROWS, warp_slot = warp / WARPS_DOWN * 32;
  const unsigned row0 = place.y * NORM_ROWS;
  const int chunks = (rows.d + TILE_COLUMNS - 1) / TILE_COLUMNS;
  const uint32_t normed = smem_u32(smem), ring = normed + chunks * NORM_TILE_BYTES;
  const unsigned first_tile = place.x * tiles_per_block;
  const unsigned tiles = min((slots + COLUMNS - 1) / COLUMNS - first_tile, tiles_per_block);
  const int steps = tiles * chunks;

  auto load = [&](int step) {
    if (step < steps) {
      const unsigned slot0 = (first_tile + step / chunks) * COLUMNS;
      load_tile<COLUMNS, NORM_THREADS>(ring + step % STAGES * STAGE_BYTES, w, slots, rows.d,
                                       step % chunks * TILE_COLUMNS,
                                       [=](int r) { return row_of(slot0 + r); });
    }
    cp_async_commit();  // also where nothing is left, so that the wait below counts alike
  };

  for (int step = 0; step < STAGES - 1; step++) load(step);
  if (place.x != 0) rows.normed = nullptr;
  norm_rows(smem, rows, row0);
  float sums[BLOCKS][4][4] = {};
  for (int step = 0; step < steps; step++) {
    cp_async_wait<STAGES - 2>();
    // All threads' copies of this step, and at first their normed rows, are there, and all are done
    // with the stage that is refilled next.
    __syncthreads();
    load(step + STAGES - 1);
    const int chunk = step % chunks;
    multiply_tiles<BLOCKS, 2>(sums, normed + chunk * NORM_TILE_BYTES, warp_row,
                              ring + step % STAGES * STAGE_BYTES, warp_slot);
    if (chunk < chunks - 1) continue;

    const unsigned slot0 = (first_tile + step / chunks) * COLUMNS + warp_slot + (lane & 3) * 2;
#pragma unroll
    for (int i = 0; i < BLOCKS; i++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const unsigned row = row0 + warp_row + i * 16 + half * 8 + (lane >> 2);
#pragma unroll
        for (int j = 0; j < 2; j++) {
          const float *low = sums[i][j] + 2 * half, *high = sums[i][j + 2] + 2 * half;
          if (row < rows.m) finish(row, slot0 + j * 8, low[0], low[1], high[0], high[1]);
        }
      }
#pragma unroll
      for (int j = 0; j < 4; j++) sums[i][j][0] = sums[i][j][1] = sums[i][j][2] = sums[i][j][3] = 0;
    }
  }
}
