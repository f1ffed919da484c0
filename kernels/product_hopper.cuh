// The product of Hopper's kernels: sums of x W^T in registers, for an epilogue of each kernel's.
//
//   x  bf16 [m, k], by a tensor map with boxes of ROWS / C rows of 64, swizzled by 128 bytes
//   w  bf16 [n, k], likewise with boxes of 128 rows
//   k  any. Where it is 0 the maps are not looked at.
//
// Grid (column tiles, ceil(m / ROWS)) in clusters of C = 1, 2, 4 or 8 blocks along x, 32 (ROWS / 16
// + 1) threads, PRODUCT_SMEM_BYTES of dynamic shared memory: a block makes a tile of ROWS x 128,
// ROWS 64 or 128. One thread of the last warp fills a ring of stages, 64 of k each, by bulk copies;
// one or two warpgroups multiply, 64 rows each, by wgmma.m64n128k16 with both operands in shared
// memory. The ring has 96 KiB, four stages for 64 rows and three for 128, so that two blocks share
// a multiprocessor: products of the one run beside the epilogue of the other.
//
// The blocks of a cluster have the same rows of x. Each copies 1 / C of them to all C, so a stage
// is full when the bytes of all C are there, and empty when the warps of all C have waited for the
// products that read it. No block ends before the last of its stages is empty, so nobody reaches
// for the shared memory of one that has ended, and none of its copies is still under way.
//
// An element is one sequence of wgmma over k from 0 up with an f32 sum: it does not depend on m, n,
// ROWS or C. The instruction sums 16 of k at once in an order of its own, so the bits are not those
// of mma.m16n8k16.
//
// FLOP 2 m n k. Bytes from L2: 2 k (ROWS / C + 128) per tile, so 43 FLOP a byte for ROWS 64 and 64
// for 128 in a block by itself, 58 and 102 in clusters of four.
#pragma once

#include "hopper.cuh"

constexpr int COLUMNS = 128, DEPTH = 64;
constexpr uint32_t ROW_BYTES = DEPTH * 2, W_BYTES = COLUMNS * ROW_BYTES;
constexpr uint32_t RING_BYTES = 96 << 10, PRODUCT_SMEM_BYTES = RING_BYTES + 2 * 4 * 8;
static_assert(PRODUCT_SMEM_BYTES == 98368, "what launches give");

constexpr int product_threads(int rows) { return 2 * rows + 32; }

// A lane's sums of its two rows: see wgmma.
using Sums = float[COLUMNS / 2];

// Which row of the tile a lane has in `half` 0 or 1 of its sums.
PTX_FN int tile_row(int half) {
  return (threadIdx.x >> 5) * 16 + half * 8 + (threadIdx.x >> 2) % 8;
}

// Where the rows of w are arranged, each 16 of them so that slot 8 j + 2 t + e has row 4 t + 2 j +
// e, a lane has four columns that follow one another in each run of 16: the one with this number.
PTX_FN unsigned run_column(int run) {
  return blockIdx.x * COLUMNS + run * 16 + threadIdx.x % 4 * 4;
}

// The lane's sums of those four columns.
PTX_FN float4 run_sums(const Sums& sums, int run, int half) {
  const float* low = sums + 8 * run + 2 * half;
  return make_float4(low[0], low[1], low[4], low[5]);
}

PTX_FN uint2 pack_bf16(float4 four) {
  return make_uint2(pack_bf16(four.x, four.y), pack_bf16(four.z, four.w));
}

// Where an epilogue loads: what comes after is not moved before, for want of registers.
PTX_FN void settle(Sums& sums) {
#ifdef HOPPER
  wgmma_settle(sums);
#endif
}

#ifdef HOPPER

// The stages, and behind them their mbarriers.
template <int ROWS>
struct Ring {
  static constexpr uint32_t X_BYTES = ROWS * ROW_BYTES, STAGE_BYTES = X_BYTES + W_BYTES;
  static constexpr int STAGES = RING_BYTES / STAGE_BYTES, WARPS = ROWS / 16;
  static_assert(STAGES * STAGE_BYTES == RING_BYTES && STAGES <= 4, "the ring is full of stages");

  uint32_t base;

  PTX_FN uint32_t x(int chunk) const { return base + chunk % STAGES * STAGE_BYTES; }
  PTX_FN uint32_t w(int chunk) const { return x(chunk) + X_BYTES; }
  PTX_FN uint32_t full(int chunk) const { return base + RING_BYTES + chunk % STAGES * 8; }
  PTX_FN uint32_t empty(int chunk) const { return full(chunk) + STAGES * 8; }
  // Of the phase in which a chunk's stage is full of it.
  PTX_FN static uint32_t parity(int chunk) { return chunk / STAGES & 1; }

  // By one thread; a barrier of all that use it must follow.
  PTX_FN void init() const {
    for (int stage = 0; stage < STAGES; stage++) {
      mbar_init(full(stage), 1);
      mbar_init(empty(stage), WARPS * cluster_blocks());
    }
    mbar_init_fence();
  }
};

// By one thread: copies every chunk of k into the ring as soon as its stage is empty, and waits
// until all of the cluster are done with the last ones.
template <int ROWS>
PTX_FN void fill(Ring<ROWS> ring, const TensorMap* x, const TensorMap* w, int chunks) {
  const uint32_t blocks = cluster_blocks(), part = cluster_rank() * (ROWS / blocks);
  const int row0 = blockIdx.y * ROWS + part, column0 = blockIdx.x * COLUMNS;
  for (int chunk = 0; chunk < chunks; chunk++) {
    const uint32_t full = ring.full(chunk), to = ring.x(chunk) + part * ROW_BYTES;
    mbar_wait(ring.empty(chunk), ring.parity(chunk) ^ 1);  // the first round is empty at once
    mbar_arrive_expect(full, ring.STAGE_BYTES);
    bulk_load_2d(ring.w(chunk), w, chunk * DEPTH, column0, full);
    if (blocks == 1) {
      bulk_load_2d(to, x, chunk * DEPTH, row0, full);
    } else {
      bulk_load_2d_multicast(to, x, chunk * DEPTH, row0, full, (1u << blocks) - 1);
    }
  }
  for (int chunk = max(chunks - ring.STAGES, 0); chunk < chunks; chunk++) {
    mbar_wait(ring.empty(chunk), ring.parity(chunk));
  }
}

// Operand rows of 128 bytes from `address` on, from `step` times 16 of k.
PTX_FN uint64_t operand(uint32_t address, int step) {
  return matrix_descriptor(address + step * 32, 0, 8 * ROW_BYTES, MatrixSwizzle::BYTES_128);
}

// Says to every block of the cluster that this warp is done with a chunk.
template <int ROWS>
PTX_FN void release(Ring<ROWS> ring, int chunk) {
  const uint32_t lane = threadIdx.x % 32;
  if (lane < cluster_blocks()) mbar_return_cluster(cluster_address(ring.empty(chunk), lane));
}

// By a warpgroup: sums += its 64 rows of x times the tile's rows of w.
template <int ROWS>
PTX_FN void multiply(Sums& sums, Ring<ROWS> ring, int chunks) {
  const uint32_t rows = threadIdx.x / 128 * 64 * ROW_BYTES;
  wgmma_settle(sums);
  for (int chunk = 0; chunk < chunks; chunk++) {
    mbar_wait(ring.full(chunk), ring.parity(chunk));
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < DEPTH / 16; step++) {
      wgmma(sums, operand(ring.x(chunk) + rows, step), operand(ring.w(chunk), step), true);
    }
    wgmma_commit();
    wgmma_wait<1>();
    if (chunk > 0) release(ring, chunk - 1);
  }
  wgmma_wait<0>();
  if (chunks > 0) release(ring, chunks - 1);
  wgmma_settle(sums);
}

// By all threads: `finish(sums)` is called by those that have some. mbarriers that an epilogue has
// set up before, by thread 0, may be used in it.
template <int ROWS, class Finish>
PTX_FN void product(unsigned char* memory, const TensorMap* x, const TensorMap* w, unsigned k,
                    Finish finish) {
  const Ring<ROWS> ring{smem_u32(memory)};
  const int chunks = (k + DEPTH - 1) / DEPTH;
  if (threadIdx.x == 0) ring.init();
  if (cluster_blocks() > 1) {
    cluster_arrive();
    cluster_wait();
  } else {
    __syncthreads();
  }
  if (threadIdx.x >= ring.WARPS * 32) {
    if (threadIdx.x % 32 == 0) fill(ring, x, w, chunks);
    return;
  }
  Sums sums = {};
  multiply(sums, ring, chunks);
  finish(sums);
}

#else

// For other GPUs: the file loads there like any, and stops if it is launched.
template <int ROWS, class Finish>
PTX_FN void product(unsigned char*, const TensorMap*, const TensorMap*, unsigned, Finish) {
  __trap();
}

#endif  // HOPPER
