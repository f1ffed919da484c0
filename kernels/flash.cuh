// Attention of 64 query rows over a run of keys, one head: the core of attention.cu and
// beam_attention.cuh.
//
// Four warps, a block or the first or second half of one, have 16 query rows each, in fragments.
// Keys and values come in tiles of 64 rows through two stages of cp.async, so that a tile is copied
// while the one before is met. Softmax is online: a running maximum, sums that are rescaled when it
// grows. The maximum is rounded up to a whole power of two, so that rescaling moves exponents alone,
// and how weights are rounded does not depend on the tiles. Scores and sums are f32; the weights are rounded to bf16 for their product
// with the values.
//
// A row's result depends on its query and on the keys in their order, tile by tile from the first:
// on nothing else.
#pragma once

#include "softmax.cuh"

constexpr int FLASH_ROWS = 64;
constexpr int FLASH_THREADS = 128;

// The thread and the warp among the four warps.
PTX_FN int flash_thread() { return threadIdx.x % FLASH_THREADS; }
PTX_FN int flash_warp() { return flash_thread() >> 5; }

// How the four warps wait for each other where they are a block.
struct WholeBlock {
  PTX_FN void sync(LOC0) const { EMU(__syncthreads(loc), __syncthreads()); }
};

// Where they are a half of one: barrier 1 is the first half's, barrier 2 the second's.
struct HalfBlock {
  PTX_FN void sync(LOC0) const {
    const int barrier = 1 + threadIdx.x / FLASH_THREADS;
    EMU(bar_sync(barrier, FLASH_THREADS, loc), bar_sync(barrier, FLASH_THREADS));
  }
};

// A tile of 64 rows of HEAD columns. 64 columns or less: rows of HEAD * 2 bytes one after the
// other; 128: two tiles of 64 columns. The 16-byte chunks of a row are permuted so that eight rows
// of one chunk lie in different banks.
template <int HEAD>
struct HeadTile {
  static constexpr int CHUNKS = HEAD / 8;
  static constexpr int BYTES = FLASH_ROWS * HEAD * 2;

  PTX_FN static uint32_t at(uint32_t tile, int row, int chunk) {
    static_assert(HEAD == 32 || HEAD == 64 || HEAD == 128);
    if (HEAD == 32) return tile + row * 64 + ((chunk ^ (row >> 1 & 3)) << 4);
    return tile + (chunk >> 3) * (FLASH_ROWS * 128) + row * 128 + (((chunk & 7) ^ (row & 7)) << 4);
  }

  // Starts the copy of rows [row0, row0 + 64) of `source`, `stride` elements apart; rows from
  // `rows` on become zero.
  PTX_FN static void load(uint32_t tile, const __nv_bfloat16* source, size_t stride, unsigned row0,
                          unsigned rows) {
#pragma unroll
    for (int i = 0; i < FLASH_ROWS * CHUNKS / FLASH_THREADS; i++) {
      const int place = flash_thread() + i * FLASH_THREADS, row = place / CHUNKS,
                chunk = place % CHUNKS;
      const bool inside = row0 + row < rows;
      cp_async16(at(tile, row, chunk), source + (inside ? (row0 + row) * stride + chunk * 8 : 0),
                 inside);
    }
  }
};

// Dynamic shared memory of a block.
template <int HEAD>
constexpr int FLASH_BYTES = 5 * HeadTile<HEAD>::BYTES;

// A warp's rows. A lane has rows lane / 4 and lane / 4 + 8 of its warp's 16, in fragments as
// mma_bf16 has them.
template <int HEAD>
struct Flash {
  using Tile = HeadTile<HEAD>;
  static constexpr float SCALE = SCORE_SCALE<HEAD>;

  float out[HEAD / 8][4] = {};            // sums of weight * value
  float max[2] = {-INFINITY, -INFINITY};  // largest score * SCALE so far, rounded up
  float sum[2] = {0, 0};                  // this lane's share of the sum of weights

  // Attends rows [row0, row0 + 64) of the `q_rows` of `q` to `keys` > 0 rows of `k` and `v`, which
  // are `kv_stride` elements apart. `smem` holds FLASH_BYTES<HEAD>, and `warps` says whose it is.
  template <class Warps>
  PTX_FN void run(Warps warps, uint32_t smem, const __nv_bfloat16* q, size_t q_stride,
                  unsigned row0, unsigned q_rows, const __nv_bfloat16* k, const __nv_bfloat16* v,
                  size_t kv_stride, unsigned keys) {
    const int warp = flash_warp(), lane = threadIdx.x & 31;
    const int tiles = (keys + FLASH_ROWS - 1) / FLASH_ROWS;
    const uint32_t stages = smem + Tile::BYTES;
    auto load = [&](int tile) {
      const uint32_t stage = stages + (tile & 1) * 2 * Tile::BYTES;
      Tile::load(stage, k, kv_stride, tile * FLASH_ROWS, keys);
      Tile::load(stage + Tile::BYTES, v, kv_stride, tile * FLASH_ROWS, keys);
      cp_async_commit();
    };

    Tile::load(smem, q, q_stride, row0, q_rows);
    load(0);
    uint32_t queries[HEAD / 16][4];
    for (int tile = 0; tile < tiles; tile++) {
      cp_async_wait<0>();
      // All threads' copies of this tile are there, and all are done with the stage that is
      // refilled next.
      warps.sync();
      if (tile + 1 < tiles) load(tile + 1);
      if (tile == 0) {
#pragma unroll
        for (int i = 0; i < HEAD / 16; i++) {
          ldsm_x4(queries[i], Tile::at(smem, warp * 16 + (lane & 15), i * 2 + (lane >> 4)));
        }
      }
      const uint32_t stage = stages + (tile & 1) * 2 * Tile::BYTES;
      float scores[8][4];
      score(queries, stage, scores);
      const int left = keys - tile * FLASH_ROWS;
      if (left < FLASH_ROWS) mask(scores, left);
      weigh(scores);
      add_values(scores, stage + Tile::BYTES);
    }
  }

  // Joins the lanes' shares of the sums of weights.
  PTX_FN void join_sums() {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
      sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    }
  }

  // out / sum, after join_sums, to rows [row0, rows) of `to`, `stride` elements apart.
  PTX_FN void store(__nv_bfloat16* to, size_t stride, unsigned row0, unsigned rows) const {
    const int warp = flash_warp(), lane = threadIdx.x & 31;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const unsigned row = row0 + warp * 16 + r * 8 + (lane >> 2);
      if (row >= rows) continue;
      const float share = 1.0f / sum[r];
#pragma unroll
      for (int j = 0; j < HEAD / 8; j++) {
        *reinterpret_cast<uint32_t*>(to + row * stride + j * 8 + (lane & 3) * 2) =
            pack_bf16(out[j][2 * r] * share, out[j][2 * r + 1] * share);
      }
    }
  }

 private:
  PTX_FN static void score(const uint32_t (&queries)[HEAD / 16][4], uint32_t keys,
                           float (&scores)[8][4]) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < 8; n++) scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0;
#pragma unroll
    for (int i = 0; i < HEAD / 16; i++) {
#pragma unroll
      for (int n = 0; n < 4; n++) {
        uint32_t key[4];
        const int row = n * 16 + (lane & 7) + ((lane >> 4) << 3);
        ldsm_x4(key, Tile::at(keys, row, i * 2 + ((lane >> 3) & 1)));
        mma_bf16(scores[2 * n], queries[i], key[0], key[1]);
        mma_bf16(scores[2 * n + 1], queries[i], key[2], key[3]);
      }
    }
  }

  // Leaves the first `keys` columns.
  PTX_FN static void mask(float (&scores)[8][4], int keys) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        if (n * 8 + (lane & 3) * 2 + (e & 1) >= keys) scores[n][e] = -INFINITY;
      }
    }
  }

  // Scores to weights relative to the new maximum; brings the sums so far to it.
  PTX_FN void weigh(float (&scores)[8][4]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float largest = -INFINITY;
#pragma unroll
      for (int n = 0; n < 8; n++) {
        largest = fmaxf(largest, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
      largest = fmaxf(max[r], ceilf(largest * SCALE));
      const float base = softmax_base(largest), shrink = ex2(max[r] - base);
      max[r] = largest;
      float total = 0;
#pragma unroll
      for (int n = 0; n < 8; n++) {
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; e++) {
          scores[n][e] = ex2(fmaf(scores[n][e], SCALE, -base));
          total += scores[n][e];
        }
      }
      sum[r] = fmaf(sum[r], shrink, total);
#pragma unroll
      for (int j = 0; j < HEAD / 8; j++) {
        out[j][2 * r] *= shrink;
        out[j][2 * r + 1] *= shrink;
      }
    }
  }

  PTX_FN void add_values(const float (&weights)[8][4], uint32_t values) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float *low = weights[2 * i], *high = weights[2 * i + 1];
      const uint32_t a[4] = {pack_bf16(low[0], low[1]), pack_bf16(low[2], low[3]),
                             pack_bf16(high[0], high[1]), pack_bf16(high[2], high[3])};
#pragma unroll
      for (int j = 0; j < HEAD / 16; j++) {
        uint32_t value[4];
        ldsm_x4_t(value, Tile::at(values, i * 16 + (lane & 15), j * 2 + (lane >> 4)));
        mma_bf16(out[2 * j], a, value[0], value[1]);
        mma_bf16(out[2 * j + 1], a, value[2], value[3]);
      }
    }
  }
};
