// Residual quantizer: r_0 = y; for each layer j: k_j = argmin_k |r_j - codebook[j, k]|^2, ties to
// the lowest k; r_{j+1} = r_j - codebook[j, k_j].
//
// The same codes as the CPU's quantizer, ties included: each distance is one f32 sum from dimension
// 0 up, differences and squares rounded before they are added.
//
//   y             f32 [rows, d]
//   by_dimension  f32 [layers, d, W]     the codebooks, transposed
//   codes         u16 [rows, layers]     out
//   fault         u32 [rows]             out: 0, or 1 + the first layer in which every distance
//                                        overflows or is NaN; codes from there on are 0
//
// Launch: 256 threads, eight rows a block, grid ceil(rows / 8), shared memory 8 d * 4 bytes. A
// thread takes every 256th code and meets it with all eight rows, so that the codebook is read once
// a block.
// FLOPs: 3 d W a row and layer. Bytes: 4 d W / 8 a row and layer, from L2 (a codebook of 1,024 x 32
// is 128 KiB). Squares are rounded before they are added:
// nvcc: --fmad=false
#include "ptx.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int ROWS = 8;
static_assert(ROWS == WARPS, "each warp joins the candidates of one row");

// A code and its distance.
struct __align__(8) Nearest {
  float distance;
  unsigned code;
};

// NaN is never nearer.
PTX_FN Nearest nearer(Nearest a, Nearest b) {
  bool second = b.distance < a.distance || (b.distance == a.distance && b.code < a.code);
  return second ? b : a;
}

PTX_FN Nearest nearest_of_warp(Nearest best) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    best = nearer(best, Nearest{__shfl_xor_sync(~0u, best.distance, step),
                                __shfl_xor_sync(~0u, best.code, step)});
  }
  return best;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    quantize(const float* __restrict__ y, const float* __restrict__ by_dimension, unsigned rows,
             unsigned layers, unsigned width, unsigned d, unsigned short* __restrict__ codes,
             unsigned* __restrict__ fault) {
  begin_kernel();
  DYN_SMEM(shared);
  __shared__ Nearest found[ROWS][WARPS];
  float* residual = reinterpret_cast<float*>(shared);  // [d][ROWS]
  unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned first_row = blockIdx.x * ROWS;
  unsigned own_row = first_row + warp;  // The row whose candidates this warp joins.
  for (unsigned i = lane; i < d; i += 32) {
    residual[i * ROWS + warp] = own_row < rows ? y[(size_t)own_row * d + i] : 0.f;
  }
  unsigned faulty = 0;
  for (unsigned j = 0; j < layers; j++) {
    __syncthreads();
    const float* book = by_dimension + (size_t)j * d * width;
    const Nearest none = {INFINITY, 0xffffffffu};
    Nearest best[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) best[r] = none;
    for (unsigned k = threadIdx.x; k < width; k += THREADS) {
      float distance[ROWS] = {};
      for (unsigned i = 0; i < d; i++) {
        float entry = book[(size_t)i * width + k];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
          float difference = residual[i * ROWS + r] - entry;
          distance[r] += difference * difference;
        }
      }
#pragma unroll
      for (int r = 0; r < ROWS; r++) best[r] = nearer(best[r], Nearest{distance[r], k});
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      best[r] = nearest_of_warp(best[r]);
      if (lane == 0) found[r][warp] = best[r];
    }
    __syncthreads();
    Nearest own = nearest_of_warp(lane < WARPS ? found[warp][lane] : none);
    if (faulty == 0 && !isfinite(own.distance)) faulty = 1 + j;
    unsigned code = faulty == 0 ? own.code : 0;
    if (lane == 0 && own_row < rows) codes[(size_t)own_row * layers + j] = (unsigned short)code;
    for (unsigned i = lane; i < d; i += 32) {
      residual[i * ROWS + warp] -= book[(size_t)i * width + code];
    }
  }
  if (lane == 0 && own_row < rows) fault[own_row] = faulty;
}
