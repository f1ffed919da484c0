// The towers of the reward model (Eq. 19): sigmoid of an MLP 2 d_r -> 128 -> 32 -> 10 -> 1, ReLU
// between layers, on [ f_i ; sum of f over the list's filled slots ]; three of them. In f32, the
// sums in the order of the CPU.
//
// Row l * slots + i is slot i of list l. The towers' first layer is one product
// (linear_f32_bias_relu) between the two kernels here, its weights the towers' one after the other,
// [3 * 128, 2 d_r].
//
//   reward_tower_input    the rows of that product
//     features  f32 [lists * slots, d_r]
//     lengths   i32 [lists]                    filled slots; -1 and 0: none
//     x         f32 [lists * slots, 2 d_r]     rows past the length are zeros
//     Launch: 256 threads, grid lists. Bytes: 8 d_r read and 8 d_r written a row; bound by memory.
//
//   reward_towers         the rest
//     hidden    f32 [rows, 3 * 128]            of the first layer
//     tails     f32 [3, 4480]                  of each tower the other layers' weights and biases:
//                                              [32, 128], [32], [10, 32], [10], [1, 10], [1] and
//                                              padding
//     out       f32 [3, rows]                  pctr_poi, pctr_creative, pcvr
//     Launch: 256 threads, grid (ceil(rows / 32), 3); a warp takes four rows, one after the other.
//     FLOPs: 8,852 a row and tower. Bytes: 512 a row and tower, the weights once a block.
#include "mlp.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int ROWS_PER_WARP = 4;
constexpr int TOWERS = 3;
constexpr int TAIL_STRIDE = 4480;
static_assert(sizeof(MlpTail) <= 4 * TAIL_STRIDE, "a tail fits its place");

extern "C" __global__ void __launch_bounds__(THREADS)
    reward_tower_input(const float* __restrict__ features, const int* __restrict__ lengths,
                       unsigned slots, unsigned d, float* __restrict__ x) {
  begin_kernel();
  size_t first = (size_t)blockIdx.x * slots;
  int count = lengths[blockIdx.x];
  for (unsigned c = threadIdx.x; c < d; c += THREADS) {
    float sum = 0.f;
    for (int i = 0; i < count; i++) sum += features[(first + i) * d + c];
    for (int i = 0; i < (int)slots; i++) {
      float* row = x + (first + i) * 2 * d;
      row[c] = i < count ? features[(first + i) * d + c] : 0.f;
      row[d + c] = i < count ? sum : 0.f;
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    reward_towers(const float* __restrict__ hidden, const float* __restrict__ tails, unsigned rows,
                  float* __restrict__ out) {
  begin_kernel();
  __shared__ MlpShared mlp;
  __shared__ float staged[WARPS][MLP_IN];
  unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, tower = blockIdx.y;
  mlp.load(tails + (size_t)tower * TAIL_STRIDE);
  __syncthreads();
  for (int i = 0; i < ROWS_PER_WARP; i++) {
    unsigned row = (blockIdx.x * ROWS_PER_WARP + i) * WARPS + warp;
    if (row >= rows) return;
    const float* from = hidden + ((size_t)row * TOWERS + tower) * MLP_IN;
    for (unsigned k = lane; k < MLP_IN; k += 32) staged[warp][k] = from[k];
    __syncwarp();
    float probability = mlp.run(staged[warp]);
    if (lane == 0) out[(size_t)tower * rows + row] = probability;
    __syncwarp();
  }
}
