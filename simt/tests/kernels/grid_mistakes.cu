// Kernels with one mistake each around blocks that wait for each other. Lines that may be named in
// the report are marked `// flagged`.
//
// A cooperative launch of two blocks of 64; x has 256 floats, of which x[255] starts as 0 bits and
// serves as the barrier's counter. Block b writes x[64 b + t] and reads what the other one wrote.
#include "../../../kernels/grid.cuh"

#ifdef HOPPER

PTX_FN unsigned* counter_of(float* x) { return reinterpret_cast<unsigned*>(&x[255]); }
PTX_FN float* own(float* x) { return x + blockIdx.x * 64 + threadIdx.x; }
PTX_FN float* others(float* x) { return x + (blockIdx.x ^ 1) * 64 + threadIdx.x; }
PTX_FN float* result(float* x) { return x + 128 + blockIdx.x * 32 + threadIdx.x % 32; }

extern "C" __global__ void grid_without_barrier(float* x) {
  *own(x) = 1;                     // flagged
  const float found = *others(x);  // flagged
  if (threadIdx.x < 32) *result(x) = found;
}

// The arrival is an atomic that nothing is fenced before.
extern "C" __global__ void grid_arrival_without_fence(float* x) {
  *own(x) = 1;  // flagged
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicAdd(counter_of(x), 1u);
    counter_wait(counter_of(x), 2);
  }
  __syncthreads();
  const float found = *others(x);  // flagged
  if (threadIdx.x < 32) *result(x) = found;
}

// The thread that polls goes on without a fence.
extern "C" __global__ void grid_wait_without_fence(float* x) {
  *own(x) = 1;  // flagged
  __syncthreads();
  if (threadIdx.x == 0) {
    counter_add(counter_of(x), 1);
    while (atomicAdd(counter_of(x), 0u) < 2) __nanosleep(20);
  }
  __syncthreads();
  const float found = *others(x);  // flagged
  if (threadIdx.x < 32) *result(x) = found;
}

// The second warp may still write when the first thread arrives for it.
extern "C" __global__ void grid_arrival_before_block(float* x) {
  *own(x) = 1;  // flagged
  if (threadIdx.x == 0) {
    counter_add(counter_of(x), 1);
    counter_wait(counter_of(x), 2);
  }
  __syncthreads();
  const float found = *others(x);  // flagged
  if (threadIdx.x < 32) *result(x) = found;
}

// The second warp does not wait for the thread that waits.
extern "C" __global__ void grid_wait_of_one_warp(float* x) {
  *own(x) = 1;  // flagged
  __syncthreads();
  if (threadIdx.x == 0) {
    counter_add(counter_of(x), 1);
    counter_wait(counter_of(x), 2);
  }
  const float found = *others(x);  // flagged
  __syncthreads();
  if (threadIdx.x < 32) *result(x) = found;
}

extern "C" __global__ void grid_too_few_arrivals(float* x) {
  *own(x) = 1;
  if (blockIdx.x == 1) return;
  grid_barrier(counter_of(x), 0);  // flagged
  if (threadIdx.x < 32) *result(x) = *others(x);
}

// The second barrier takes itself for the first, which is over: nobody waits.
extern "C" __global__ void grid_round_repeated(float* x) {
  grid_barrier(counter_of(x), 0);
  *own(x) = 1;  // flagged
  grid_barrier(counter_of(x), 0);
  const float found = *others(x);  // flagged
  if (threadIdx.x < 32) *result(x) = found;
}

// A round is left out, and never comes.
extern "C" __global__ void grid_round_skipped(float* x) {
  *own(x) = 1;
  grid_barrier(counter_of(x), 1);  // flagged
  if (threadIdx.x < 32) *result(x) = *others(x);
}

// What the other block still reads is written again: a second barrier is missing.
extern "C" __global__ void grid_overwritten_too_early(float* x) {
  *own(x) = 1;
  grid_barrier(counter_of(x), 0);
  const float found = *others(x);  // flagged
  *own(x) = found + 1;             // flagged
}

#endif  // HOPPER
