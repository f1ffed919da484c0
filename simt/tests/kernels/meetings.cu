// Kernels whose threads fail to meet: barriers, warp collectives, endless waits. Found on both
// builds. Lines that may be named in the report are marked `// flagged`.
//
// Grid 1, block 64; x has 256 floats.
#include "../../../kernels/ptx.cuh"

extern "C" __global__ void barrier_in_divergent_code(float* x) {
  unsigned t = threadIdx.x;
  if (t < 32) {
    x[t] += 1;
    __syncthreads();  // flagged
  } else {
    x[t] += 2;
    __syncthreads();  // flagged
  }
}

extern "C" __global__ void barrier_in_some_threads(float* x) {
  unsigned t = threadIdx.x;
  if (t < 48) __syncthreads();  // flagged
  x[t] *= 2;
  __syncthreads();  // flagged
}

extern "C" __global__ void barrier_that_others_never_reach(float* x) {
  __shared__ uint64_t never;
  unsigned t = threadIdx.x;
  if (t == 0) mbar_init(smem_u32(&never), 1);
  __syncthreads();
  if (t < 32) {
    __syncthreads();  // flagged
  } else {
    mbar_wait(smem_u32(&never), 0);  // flagged
  }
  x[t] = 0;
}

extern "C" __global__ void barrier_named_never_completed(float* x) {
  if (threadIdx.x < 32) bar_sync(1, 64);  // flagged
  x[threadIdx.x] = 0;
}

extern "C" __global__ void barrier_named_two_counts(float* x) {
  bar_sync(1, threadIdx.x < 32 ? 64 : 96);  // flagged
  x[threadIdx.x] = 0;
}

extern "C" __global__ void barrier_named_part_of_warp(float* x) {
  bar_sync(1, 48);  // flagged
  x[threadIdx.x] = 0;
}

extern "C" __global__ void mbarrier_never_initialised(float* x) {
  __shared__ uint64_t barrier;
  mbar_arrive(smem_u32(&barrier));  // flagged
  x[threadIdx.x] = 0;
}

// 64 arrive where 96 are expected.
extern "C" __global__ void mbarrier_too_few_arrivals(float* x) {
  __shared__ uint64_t barrier;
  if (threadIdx.x == 0) mbar_init(smem_u32(&barrier), 96);
  __syncthreads();
  mbar_arrive(smem_u32(&barrier));
  mbar_wait(smem_u32(&barrier), 0);  // flagged
  x[threadIdx.x] = 0;
}

extern "C" __global__ void warp_mask_names_exited_lanes(float* x) {
  unsigned t = threadIdx.x;
  if (t % 32 >= 16) return;
  x[t] += __shfl_xor_sync(~0u, x[t], 1);  // flagged
}

extern "C" __global__ void warp_mask_leaves_caller_out(float* x) {
  unsigned t = threadIdx.x;
  x[t] += __shfl_xor_sync(0xffffu, x[t], 1);  // flagged
}

extern "C" __global__ void warp_lanes_at_different_collectives(float* x) {
  unsigned t = threadIdx.x;
  if (t % 32 < 16) {
    x[t] += __shfl_xor_sync(~0u, x[t], 1);  // flagged
  } else {
    x[t] += float(__ballot_sync(~0u, 1));  // flagged
  }
}

extern "C" __global__ void warp_shuffle_from_outside(float* x) {
  unsigned t = threadIdx.x;
  if (t % 32 < 16) x[t] += __shfl_sync(0xffffu, x[t], 20);  // flagged
}

// The other half waits at the barrier.
extern "C" __global__ void warp_half_at_ldmatrix(float* x) {
  __shared__ float4 tile[8];
  unsigned t = threadIdx.x;
  if (t < 8) tile[t] = float4{0, 0, 0, 0};
  __syncthreads();
  uint32_t register_ = 0;
  if (t % 32 < 16) ldsm_x1(register_, smem_u32(&tile[t % 8]));  // flagged
  __syncthreads();                                              // flagged
  x[t] = float(register_);
}

// Polls for what nobody writes.
extern "C" __global__ void endless_polling(float* x) {
  auto* flag = reinterpret_cast<unsigned*>(x + 255);
  while (atomicAdd(flag, 0u) != 1) __nanosleep(100);  // flagged
}

extern "C" __global__ void trap_on_purpose(float* x) {
  if (x[threadIdx.x] == 5) __trap();  // flagged
}

extern "C" __global__ void trap_by_assertion(float* x) {
  assert(x[threadIdx.x] != 5);  // flagged
}

// Found on the check build only: no call of the emulator in the loop.
extern "C" __global__ void endless_computing(float* x) {
  auto* flag = reinterpret_cast<unsigned*>(x + 255);
  while (atomicAdd(flag, 0u) != 1) {  // flagged
  }
}
