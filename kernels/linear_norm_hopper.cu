// x += a W^T, then the RMSNorm of the new rows for the product that follows: the encoder's output
// projections. In place of linear.cu and of the norm in the kernels behind it, so that no row is
// normed twice. It is off: it has run in the emulator alone, never on a card.
//
//   a  bf16 [m, k] and w  bf16 [n, k], by tensor maps, rows of w arranged: see product_hopper.cuh
//   x        f32 [m, n], the residual stream, n a multiple of 16, at most 1024
//   weight   f32 [n], of the norm: x / sqrt(mean(x^2) + eps) * weight
//   normed   f32 [m, n] or null: takes the normed rows before they are rounded
//   rounded  bf16 [m, n]: the normed rows
//   x, weight and normed are aligned to 16 bytes, rounded to 8
//
// Grid (C, ceil(m / ROWS)) in clusters of C blocks along x, the power of two from ceil(n / 128) on,
// so that a cluster has whole rows; blocks past the last column have zeros to add. Threads, ring
// and the order of the product's sums: see product_hopper.cuh; JOIN_BYTES more of shared memory.
//
// The squares of a row are summed by each lane over its columns from the first up, then over the
// row's four lanes, (0 + 1) + (2 + 3), then over the blocks from the first up: each warp leaves its
// sums in the shared memory of every block, and waits for those of the same rows. _64 and _128 are
// ROWS and give the same bits.
//
// FLOP 2 m n k. Bytes besides the operands': 8 m n of x and 2 m n out (4 m n more for normed).
#include "product_hopper.cuh"

constexpr int MOST_BLOCKS = 8, MOST_WARPS = 8;
constexpr uint32_t JOIN_BYTES = MOST_WARPS * 8 + MOST_BLOCKS * 128 * sizeof(float);
static_assert(JOIN_BYTES == 4160, "what launches give");

struct Residual {
  float* x;
  const float* weight;
  float* normed;
  __nv_bfloat16* rounded;
  unsigned m, n;
  float eps;
};

#ifdef HOPPER

// Sums of all blocks of the cluster, in the memory of each: an mbarrier for each warp's rows, then
// [block][row of the tile].
struct Join {
  unsigned char* memory;

  PTX_FN uint32_t barrier() const { return smem_u32(memory) + (threadIdx.x >> 5) * 8; }
  PTX_FN float* sum(unsigned rank, int row) const {
    return reinterpret_cast<float*>(memory + MOST_WARPS * 8) + rank * 128 + row;
  }

  // By one thread; a barrier of the cluster must follow.
  PTX_FN void init() const {
    for (int warp = 0; warp < MOST_WARPS; warp++) {
      mbar_init(smem_u32(memory) + warp * 8, cluster_blocks());
    }
    mbar_init_fence();
  }

  // Warp-wide: the cluster's sums of a lane's two rows, of those of the block.
  PTX_FN void run(float (&sums)[2]) const {
    const unsigned blocks = cluster_blocks(), lane = threadIdx.x % 32;
    for (unsigned to = lane % 4; to < blocks; to += 4) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        *cluster_pointer(sum(cluster_rank(), tile_row(half)), to) = sums[half];
      }
    }
    __syncwarp();
    if (lane < blocks) mbar_arrive_cluster(cluster_address(barrier(), lane));
    mbar_wait_cluster(barrier(), 0);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      sums[half] = *sum(0, tile_row(half));
      for (unsigned rank = 1; rank < blocks; rank++) sums[half] += *sum(rank, tile_row(half));
    }
  }
};

#else

struct Join {
  unsigned char* memory;

  PTX_FN void init() const {}
  PTX_FN void run(float (&)[2]) const {}
};

#endif  // HOPPER

// Adds what the row held before to a lane's sums. Loads are in flight together four at a time.
PTX_FN void add_row(Sums& sums, int half, const float* x, unsigned n) {
#pragma unroll
  for (int run = 0; run < COLUMNS / 16; run++) {
    if (run % 4 == 0) settle(sums);
    const unsigned column = run_column(run);
    if (column >= n) continue;
    const float4 before = *reinterpret_cast<const float4*>(x + column);
    float* sum = sums + 8 * run + 2 * half;
    sum[0] += before.x, sum[1] += before.y, sum[4] += before.z, sum[5] += before.w;
  }
}

// Warp-wide: the sum of the squares that the four lanes of a row have.
PTX_FN float squares(const Sums& sums, int half) {
  float sum = 0;
#pragma unroll
  for (int run = 0; run < COLUMNS / 16; run++) {
    const float4 x = run_sums(sums, run, half);
    sum = fmaf(x.w, x.w, fmaf(x.z, x.z, fmaf(x.y, x.y, fmaf(x.x, x.x, sum))));
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  return sum + __shfl_xor_sync(~0u, sum, 2);
}

// Stores what a lane has of the row that begins at `start`, as it is and normed.
PTX_FN void store_row(Sums& sums, int half, float scale, size_t start, const Residual& to) {
#pragma unroll
  for (int run = 0; run < COLUMNS / 16; run++) {
    if (run % 4 == 0) settle(sums);
    const unsigned column = run_column(run);
    if (column >= to.n) continue;
    const size_t at = start + column;
    const float4 x = run_sums(sums, run, half);
    const float4 gain = *reinterpret_cast<const float4*>(to.weight + column);
    const float4 y = make_float4(x.x * scale * gain.x, x.y * scale * gain.y,
                                 x.z * scale * gain.z, x.w * scale * gain.w);
    *reinterpret_cast<float4*>(to.x + at) = x;
    if (to.normed) *reinterpret_cast<float4*>(to.normed + at) = y;
    *reinterpret_cast<uint2*>(to.rounded + at) = pack_bf16(y);
  }
}

template <int ROWS>
PTX_FN void linear_norm(const TensorMap* a, const TensorMap* w, const Residual& to, unsigned k) {
  DYN_SMEM(memory);
  const Join join{memory + PRODUCT_SMEM_BYTES};
  if (threadIdx.x == 0) join.init();
  product<ROWS>(memory, a, w, k, [=](Sums& sums) {
    float square[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const unsigned row = blockIdx.y * ROWS + tile_row(half);
      if (row < to.m) add_row(sums, half, to.x + (size_t)row * to.n, to.n);
      square[half] = squares(sums, half);
    }
    join.run(square);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const unsigned row = blockIdx.y * ROWS + tile_row(half);
      const float scale = 1.0f / sqrtf(square[half] / (float)to.n + to.eps);
      if (row < to.m) store_row(sums, half, scale, (size_t)row * to.n, to);
    }
  });
}

extern "C" __global__ void __launch_bounds__(product_threads(64), 2)
    linear_norm_hopper_64(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap w,
                          float* __restrict__ x, const float* __restrict__ weight,
                          float* __restrict__ normed, __nv_bfloat16* __restrict__ rounded,
                          unsigned m, unsigned n, unsigned k, float eps) {
  begin_kernel();
  linear_norm<64>(&a, &w, {x, weight, normed, rounded, m, n, eps}, k);
}

extern "C" __global__ void __launch_bounds__(product_threads(128), 2)
    linear_norm_hopper_128(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap w,
                           float* __restrict__ x, const float* __restrict__ weight,
                           float* __restrict__ normed, __nv_bfloat16* __restrict__ rounded,
                           unsigned m, unsigned n, unsigned k, float eps) {
  begin_kernel();
  linear_norm<128>(&a, &w, {x, weight, normed, rounded, m, n, eps}, k);
}
