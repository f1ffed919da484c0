// Tiles of bf16 in shared memory, and products of them on the tensor cores.
//
// A tile is any number of rows of 64 columns: 128 bytes a row, in eight chunks of 16 bytes. Chunk c
// of row r stands in place c ^ (r % 8), so that the eight rows that one ldmatrix reads lie in
// different banks. Tiles start at multiples of 128 bytes.
#pragma once

#include "ptx.cuh"

constexpr int TILE_COLUMNS = 64;
constexpr int TILE_ROW_BYTES = 128;

// Where chunk `chunk` of row `row` of a tile stands. `tile` is a shared-memory address, or 0 for
// the offset alone.
PTX_FN uint32_t tile_at(uint32_t tile, int row, int chunk) {
  return tile + row * TILE_ROW_BYTES + ((chunk ^ (row & 7)) << 4);
}

// Starts the copy of columns [k0, k0 + 64) of ROWS rows of `source` [rows, k] by the block's
// THREADS threads. Row r of the tile is row `row_of(r)` of the source. What lies past the rows or
// the columns becomes zero. k is a multiple of 8 and `source` aligned to 16 bytes.
template <int ROWS, int THREADS, class RowOf>
PTX_FN void load_tile(uint32_t tile, const __nv_bfloat16* source, unsigned rows, unsigned k,
                      unsigned k0, RowOf row_of) {
  static_assert(ROWS * 8 % THREADS == 0, "every thread copies as many chunks");
#pragma unroll
  for (int i = 0; i < ROWS * 8 / THREADS; i++) {
    const int at = threadIdx.x + i * THREADS, row = at >> 3, chunk = at & 7;
    const unsigned from = row_of(row), column = k0 + chunk * 8;
    const bool inside = from < rows && column < k;
    cp_async16(tile_at(tile, row, chunk), source + (inside ? (size_t)from * k + column : 0),
               inside);
  }
}

// sums += a b^T over the 64 columns of two tiles, for the warp's 16 MI rows of `a` from `a_row` and
// 16 NI rows of `b` from `b_row`. sums[i][j] is the d fragment (see mma_bf16) of row block i and of
// the j-th eight rows of `b`. The products of an element are added from column 0 up, 16 at a time,
// wherever it stands.
template <int MI, int NI>
PTX_FN void multiply_tiles(float (&sums)[MI][2 * NI][4], uint32_t a, int a_row, uint32_t b,
                           int b_row) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int k = 0; k < TILE_COLUMNS / 16; k++) {
    uint32_t rows[MI][4];
#pragma unroll
    for (int i = 0; i < MI; i++) {
      ldsm_x4(rows[i], tile_at(a, a_row + i * 16 + (lane & 15), k * 2 + (lane >> 4)));
    }
#pragma unroll
    for (int j = 0; j < NI; j++) {
      uint32_t columns[4];
      const int row = b_row + j * 16 + (lane & 7) + ((lane >> 4) << 3);
      ldsm_x4(columns, tile_at(b, row, k * 2 + ((lane >> 3) & 1)));
#pragma unroll
      for (int i = 0; i < MI; i++) {
        mma_bf16(sums[i][2 * j], rows[i], columns[0], columns[1]);
        mma_bf16(sums[i][2 * j + 1], rows[i], columns[2], columns[3]);
      }
    }
  }
}
