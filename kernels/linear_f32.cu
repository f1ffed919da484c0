// Products in f32: y = x W^T with an epilogue, for the reward model, whose numbers are never
// rounded to bf16.
//
//   x     f32 [rows, in]
//   w     f32 [out, in]      for linear_f32_swiglu two such matrices, gate and up
//   y     f32 [rows, out]
//
//   linear_f32            y = x W^T
//   linear_f32_add        y += x W^T                            the residual connection
//   linear_f32_bias       y = x W^T + bias                      bias [out]
//   linear_f32_bias_relu  y = max(x W^T + bias, 0)
//   linear_f32_position   y = (x W^T + bias) + table[r % period]    table [period, out]
//   linear_f32_swiglu     y = silu(x gate^T) * (x up^T)
//
// Each sum runs over k from 0 up in one sequence of fused multiply-adds, as on the CPU: the bits do
// not depend on tiles, batch or device.
//
// Launch: 128 threads, grid (ceil(rows / 64), ceil(out / 64)), any sizes.
// A block makes a tile of 64 x 64, a thread 8 x 4 of it. Slices of 16 along k lie in shared memory,
// [k][row], two of each operand: while one is multiplied the next is under way in registers.
// Shared memory: 17 KiB, 26 KiB with a gate. FLOPs: 2 rows out in (twice that with a gate).
// Bytes: x once per 64 columns, W once per 64 rows, mostly from L2.
// Wins where rows * out fills the device, some hundred tiles; a single request's 640 rows by 256
// columns are 40. Plain f32 units, no tensor cores.
#include "math_f32.cuh"

constexpr int THREADS = 128;
constexpr int TILE = 64;          // Rows and columns of a block's tile.
constexpr int SLICE = 16;         // Step along k.
constexpr int THREAD_ROWS = 8;
constexpr int THREAD_COLUMNS = 4;
constexpr int LOADS = TILE * SLICE / THREADS;

// A slice of an operand, [k][row]; the padding spreads the transposing stores over the banks.
struct Slice {
  __align__(16) float at[SLICE][TILE + 4];
};

// A thread's share of the next slice: element (tid / SLICE + i * THREADS / SLICE, tid % SLICE).
struct Loader {
  const float* from;
  unsigned rows, depth, row, k;
  float held[LOADS];

  // Starts at row `first` of a matrix [rows, depth].
  PTX_FN void start(const float* matrix, unsigned matrix_rows, unsigned matrix_depth,
                    unsigned first) {
    from = matrix;
    rows = matrix_rows;
    depth = matrix_depth;
    row = first + threadIdx.x / SLICE;
    k = threadIdx.x % SLICE;
  }

  // Reads the next slice; zeros beyond the matrix.
  PTX_FN void load() {
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      unsigned r = row + i * (THREADS / SLICE);
      held[i] = r < rows && k < depth ? from[(size_t)r * depth + k] : 0.f;
    }
    k += SLICE;
  }

  PTX_FN void store(Slice& slice) const {
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      slice.at[threadIdx.x % SLICE][threadIdx.x / SLICE + i * (THREADS / SLICE)] = held[i];
    }
  }
};

// A thread's part of the tile.
struct Sums {
  float at[THREAD_ROWS][THREAD_COLUMNS];

  PTX_FN void add(const Slice& x, const Slice& w, unsigned row, unsigned column) {
#pragma unroll
    for (int k = 0; k < SLICE; k++) {
      float4 low = *reinterpret_cast<const float4*>(&x.at[k][row]);
      float4 high = *reinterpret_cast<const float4*>(&x.at[k][row + 4]);
      float4 right = *reinterpret_cast<const float4*>(&w.at[k][column]);
      float a[THREAD_ROWS] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
      float b[THREAD_COLUMNS] = {right.x, right.y, right.z, right.w};
#pragma unroll
      for (int r = 0; r < THREAD_ROWS; r++) {
#pragma unroll
        for (int c = 0; c < THREAD_COLUMNS; c++) at[r][c] = fmaf(a[r], b[c], at[r][c]);
      }
    }
  }
};

// Computes the block's tile with MATRICES weights and calls finish(row, column, sums of each) for
// every element of y that this thread has.
template <int MATRICES, class Finish>
PTX_FN void product(const float* x, const float* const (&w)[MATRICES], unsigned rows, unsigned out,
                    unsigned in, Finish finish) {
  __shared__ Slice x_slices[2];
  __shared__ Slice w_slices[MATRICES][2];
  unsigned first_row = blockIdx.x * TILE, first_column = blockIdx.y * TILE;
  unsigned row = threadIdx.x / (TILE / THREAD_COLUMNS) * THREAD_ROWS;
  unsigned column = threadIdx.x % (TILE / THREAD_COLUMNS) * THREAD_COLUMNS;
  Loader x_loader, w_loader[MATRICES];
  Sums sums[MATRICES] = {};
  x_loader.start(x, rows, in, first_row);
  x_loader.load();
#pragma unroll
  for (int i = 0; i < MATRICES; i++) {
    w_loader[i].start(w[i], out, in, first_column);
    w_loader[i].load();
  }
  unsigned slices = (in + SLICE - 1) / SLICE;
  for (unsigned s = 0; s < slices; s++) {
    unsigned half = s % 2;
    x_loader.store(x_slices[half]);
#pragma unroll
    for (int i = 0; i < MATRICES; i++) w_loader[i].store(w_slices[i][half]);
    // One barrier a slice: whoever stores the slice after next has passed the next barrier, and so
    // has everyone who still reads this one.
    __syncthreads();
    if (s + 1 < slices) {
      x_loader.load();
#pragma unroll
      for (int i = 0; i < MATRICES; i++) w_loader[i].load();
    }
#pragma unroll
    for (int i = 0; i < MATRICES; i++) {
      sums[i].add(x_slices[half], w_slices[i][half], row, column);
    }
  }
#pragma unroll
  for (int r = 0; r < THREAD_ROWS; r++) {
#pragma unroll
    for (int c = 0; c < THREAD_COLUMNS; c++) {
      unsigned y_row = first_row + row + r, y_column = first_column + column + c;
      if (y_row < rows && y_column < out) {
        finish(y_row, y_column, sums[0].at[r][c], sums[MATRICES - 1].at[r][c]);
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_f32(const float* __restrict__ x, const float* __restrict__ w, unsigned rows,
               unsigned out, unsigned in, float* __restrict__ y) {
  begin_kernel();
  product<1>(x, {w}, rows, out, in, [=](unsigned r, unsigned c, float sum, float) {
    y[(size_t)r * out + c] = sum;
  });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_f32_add(const float* __restrict__ x, const float* __restrict__ w, unsigned rows,
                   unsigned out, unsigned in, float* __restrict__ y) {
  begin_kernel();
  product<1>(x, {w}, rows, out, in, [=](unsigned r, unsigned c, float sum, float) {
    y[(size_t)r * out + c] += sum;
  });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_f32_bias(const float* __restrict__ x, const float* __restrict__ w,
                    const float* __restrict__ bias, unsigned rows, unsigned out, unsigned in,
                    float* __restrict__ y) {
  begin_kernel();
  product<1>(x, {w}, rows, out, in, [=](unsigned r, unsigned c, float sum, float) {
    y[(size_t)r * out + c] = sum + bias[c];
  });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_f32_bias_relu(const float* __restrict__ x, const float* __restrict__ w,
                         const float* __restrict__ bias, unsigned rows, unsigned out, unsigned in,
                         float* __restrict__ y) {
  begin_kernel();
  product<1>(x, {w}, rows, out, in, [=](unsigned r, unsigned c, float sum, float) {
    y[(size_t)r * out + c] = relu_f32(sum + bias[c]);
  });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_f32_position(const float* __restrict__ x, const float* __restrict__ w,
                        const float* __restrict__ bias, const float* __restrict__ table,
                        unsigned period, unsigned rows, unsigned out, unsigned in,
                        float* __restrict__ y) {
  begin_kernel();
  product<1>(x, {w}, rows, out, in, [=](unsigned r, unsigned c, float sum, float) {
    y[(size_t)r * out + c] = (sum + bias[c]) + table[(size_t)(r % period) * out + c];
  });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_f32_swiglu(const float* __restrict__ x, const float* __restrict__ gate,
                      const float* __restrict__ up, unsigned rows, unsigned out, unsigned in,
                      float* __restrict__ y) {
  begin_kernel();
  product<2>(x, {gate, up}, rows, out, in, [=](unsigned r, unsigned c, float gate, float up) {
    y[(size_t)r * out + c] = __fmul_rn(silu_f32(gate), up);
  });
}
