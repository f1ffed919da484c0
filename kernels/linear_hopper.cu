// y = x W^T by Hopper's own instructions: linear.cu with bulk copies and wgmma. It is off: it has
// run in the emulator alone, never on a card, and linear.cu serves every shape.
//
//   x  bf16 [m, k], by a tensor map with boxes of 128 rows of 64, swizzled by 128 bytes
//   w  bf16 [n, k], likewise
//   y  [m, n], aligned to two elements: stored as f32 or bf16, or added to
//   k  a multiple of 8; m and n any. Where k is 0 the maps are not looked at.
//
// Grid (ceil(n / 128), ceil(m / 128)), 288 threads, SMEM_BYTES of dynamic shared memory: a block
// makes a tile of 128 x 128. One thread of the last warp fills a ring of four stages, 64 of k each,
// by a bulk copy of either operand; two warpgroups multiply, 64 rows each, by wgmma.m64n128k16 with
// both operands in shared memory. A stage is full when its bytes are there and empty when all eight
// warps have waited for the products that read it; one group of products is always under way behind
// the one that is issued.
//
// An element is one sequence of wgmma over k from 0 up with an f32 sum: it does not depend on m, n
// or the tile. The instruction sums 16 of k at once in an order of its own, so the bits are not
// those of linear.cu.
//
// FLOP 2 m n k. Bytes from L2: 2 k (128 + 128) per tile, 64 FLOP a byte.
#include "hopper.cuh"
#include "store.cuh"

constexpr int ROWS = 128, COLUMNS = 128, DEPTH = 64, STAGES = 4;
constexpr int CONSUMER_WARPS = 8, THREADS = (CONSUMER_WARPS + 1) * 32;
constexpr uint32_t ROW_BYTES = DEPTH * 2, X_BYTES = ROWS * ROW_BYTES, W_BYTES = COLUMNS * ROW_BYTES;
constexpr uint32_t STAGE_BYTES = X_BYTES + W_BYTES;
constexpr uint32_t SMEM_BYTES = STAGES * (STAGE_BYTES + 2 * 8);
static_assert(SMEM_BYTES == 131136, "what launches give");

#ifdef HOPPER

// The stages, and behind them their mbarriers.
struct Ring {
  uint32_t base;

  PTX_FN uint32_t x(int chunk) const { return base + chunk % STAGES * STAGE_BYTES; }
  PTX_FN uint32_t w(int chunk) const { return x(chunk) + X_BYTES; }
  PTX_FN uint32_t full(int chunk) const {
    return base + STAGES * STAGE_BYTES + chunk % STAGES * 8;
  }
  PTX_FN uint32_t empty(int chunk) const { return full(chunk) + STAGES * 8; }
  // Of the phase in which a chunk's stage is full of it.
  PTX_FN static uint32_t parity(int chunk) { return chunk / STAGES & 1; }

  // By one thread; __syncthreads must follow.
  PTX_FN void init() const {
    for (int stage = 0; stage < STAGES; stage++) {
      mbar_init(full(stage), 1);
      mbar_init(empty(stage), CONSUMER_WARPS);
    }
    mbar_init_fence();
  }
};

// By one thread: copies every chunk of k into the ring as soon as its stage is empty.
PTX_FN void fill(Ring ring, const TensorMap* x, const TensorMap* w, int chunks) {
  const int row0 = blockIdx.y * ROWS, column0 = blockIdx.x * COLUMNS;
  for (int chunk = 0; chunk < chunks; chunk++) {
    mbar_wait(ring.empty(chunk), Ring::parity(chunk) ^ 1);  // the first round is empty at once
    mbar_arrive_expect(ring.full(chunk), STAGE_BYTES);
    bulk_load_2d(ring.x(chunk), x, chunk * DEPTH, row0, ring.full(chunk));
    bulk_load_2d(ring.w(chunk), w, chunk * DEPTH, column0, ring.full(chunk));
  }
}

// Operand rows of 128 bytes from `address` on, from `step` times 16 of k.
PTX_FN uint64_t operand(uint32_t address, int step) {
  return matrix_descriptor(address + step * 32, 0, 8 * ROW_BYTES, MatrixSwizzle::BYTES_128);
}

// By a warpgroup: sums += its 64 rows of x times the tile's rows of w.
PTX_FN void multiply(float (&sums)[COLUMNS / 2], Ring ring, int chunks) {
  const uint32_t rows = threadIdx.x / 128 * 64 * ROW_BYTES;
  const bool signals = threadIdx.x % 32 == 0;
  wgmma_settle(sums);
  for (int chunk = 0; chunk < chunks; chunk++) {
    mbar_wait(ring.full(chunk), Ring::parity(chunk));
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < DEPTH / 16; step++) {
      wgmma(sums, operand(ring.x(chunk) + rows, step), operand(ring.w(chunk), step), true);
    }
    wgmma_commit();
    wgmma_wait<1>();
    if (signals && chunk > 0) mbar_arrive(ring.empty(chunk - 1));
  }
  wgmma_wait<0>();
}

// Where a lane's sums stand in the tile: see wgmma.
template <class Store>
PTX_FN void store_tile(const float (&sums)[COLUMNS / 2], unsigned m, unsigned n, Store store) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const unsigned row = blockIdx.y * ROWS + warp * 16 + half * 8 + (lane >> 2);
    if (row >= m) continue;
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++) {
      const unsigned column = blockIdx.x * COLUMNS + j * 8 + (lane & 3) * 2;
      store_pair(store, row, n, column, sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
    }
  }
}

template <class Store>
PTX_FN void linear(const TensorMap* x, const TensorMap* w, unsigned m, unsigned n, unsigned k,
                   Store store) {
  DYN_SMEM(smem);
  const Ring ring{smem_u32(smem)};
  const int chunks = (k + DEPTH - 1) / DEPTH;
  if (threadIdx.x == 0) ring.init();
  __syncthreads();
  if (threadIdx.x >= CONSUMER_WARPS * 32) {
    if (threadIdx.x == CONSUMER_WARPS * 32) fill(ring, x, w, chunks);
    return;
  }
  float sums[COLUMNS / 2] = {};
  multiply(sums, ring, chunks);
  store_tile(sums, m, n, store);
}

#else

// For other GPUs: the file loads there like any, and stops if it is launched.
template <class Store>
PTX_FN void linear(const TensorMap*, const TensorMap*, unsigned, unsigned, unsigned, Store) {
  __trap();
}

#endif  // HOPPER

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    linear_hopper_f32(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w,
                      float* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear(&x, &w, m, n, k, StoreF32{y});
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    linear_hopper_bf16(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w,
                       __nv_bfloat16* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear(&x, &w, m, n, k, StoreBf16{y});
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    linear_hopper_add(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w,
                      float* __restrict__ y, unsigned m, unsigned n, unsigned k) {
  begin_kernel();
  linear(&x, &w, m, n, k, AddF32{y});
}
