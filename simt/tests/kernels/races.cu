// Kernels with one race each. Lines that may be named in the report are marked `// racy`.
#include "../../../kernels/ptx.cuh"

// Grid 1, block 64.
extern "C" __global__ void race_write_then_read(float* x) {
  __shared__ float s[64];
  unsigned t = threadIdx.x;
  s[t] = x[t];                  // racy
  x[t] = s[(t + 32) % 64] * 2;  // racy
}

// Grid 1, block 64.
extern "C" __global__ void race_read_then_write(float* x) {
  __shared__ float s[64];
  unsigned t = threadIdx.x;
  s[t] = x[t];
  __syncthreads();
  float other = s[(t + 32) % 64];  // racy
  s[t] = other;                    // racy
  __syncthreads();
  x[t] = s[t];
}

// Grid 1, block 64.
extern "C" __global__ void race_write_then_write(float* x) {
  __shared__ float s;
  unsigned t = threadIdx.x;
  if (t % 32 == 0) s = x[t];  // racy
  __syncthreads();
  x[t] = s;
}

// Grid 1, block 32.
extern "C" __global__ void race_no_syncwarp(float* x) {
  __shared__ float s[32];
  unsigned lane = threadIdx.x;
  s[lane] = x[lane];          // racy
  x[lane] = s[lane ^ 1] * 2;  // racy
}

// A shuffle makes lanes meet but orders no memory. Grid 1, block 32.
extern "C" __global__ void race_shuffle_is_no_fence(float* x) {
  __shared__ float s[32];
  unsigned lane = threadIdx.x;
  s[lane] = x[lane];  // racy
  float other = __shfl_xor_sync(~0u, x[lane], 1);
  x[lane] = s[lane ^ 1] + other;  // racy
}

// Grid 2, block 64.
extern "C" __global__ void race_blocks_write(float* x) {
  x[threadIdx.x] = float(blockIdx.x);  // racy
}

// Grid 2, block 64.
extern "C" __global__ void race_block_reads_block(float* x) {
  unsigned t = threadIdx.x;
  if (blockIdx.x == 0) {
    x[t] = 1;  // racy
  } else {
    x[t + 64] = x[t];  // racy
  }
}

// Both blocks read before one of them writes. Grid 2, block 64.
extern "C" __global__ void race_block_writes_what_all_read(float* x) {
  unsigned t = threadIdx.x;
  float first = x[0];  // racy
  __syncthreads();
  if (blockIdx.x == 1 && t == 0) x[0] = 7;  // racy
  x[64 + blockIdx.x * 64 + t] = first;
}

// Grid 1, block 64.
extern "C" __global__ void race_plain_read_of_atomic(float* x) {
  __shared__ unsigned counter;
  if (threadIdx.x == 0) counter = 0;
  __syncthreads();
  atomicAdd(&counter, 1u);          // racy
  x[threadIdx.x] = float(counter);  // racy
}

// The last block sums what the others wrote, but nobody executes a fence. Grid 4, block 32; x[255]
// starts as 0 bits.
extern "C" __global__ void race_last_block_without_fence(float* x) {
  __shared__ bool last;
  unsigned t = threadIdx.x;
  x[blockIdx.x * 32 + t] = 1;  // racy
  __syncthreads();
  if (t == 0) last = atomicAdd(reinterpret_cast<unsigned*>(&x[255]), 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  float sum = 0;
  for (unsigned block = 0; block < gridDim.x; block++) sum += x[block * 32 + t];  // racy
  x[128 + t] = sum;
}

// Nothing orders what the second warp writes before the first one's atomic. Grid 2, block 64;
// x[255] starts as 0 bits, here and in the next two.
extern "C" __global__ void race_last_block_without_barrier(float* x) {
  __shared__ bool last;
  unsigned t = threadIdx.x;
  x[blockIdx.x * 64 + t] = 1;  // racy
  __threadfence();
  if (t == 0) last = atomicAdd(reinterpret_cast<unsigned*>(&x[255]), 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  x[128 + t] = x[t] + x[64 + t];  // racy
}

// One thread's fence before the barrier says nothing of what the second warp wrote. Grid 2, block
// 64.
extern "C" __global__ void race_last_block_fence_of_one(float* x) {
  __shared__ bool last;
  unsigned t = threadIdx.x;
  x[blockIdx.x * 64 + t] = 1;  // racy
  if (t == 0) __threadfence();
  __syncthreads();
  if (t == 0) last = atomicAdd(reinterpret_cast<unsigned*>(&x[255]), 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  x[128 + t] = x[t] + x[64 + t];  // racy
}

// Every thread executes its fence before it writes, not after. Grid 2, block 64.
extern "C" __global__ void race_last_block_fence_too_early(float* x) {
  __shared__ bool last;
  unsigned t = threadIdx.x;
  __threadfence();
  x[blockIdx.x * 64 + t] = 1;  // racy
  __syncthreads();
  if (t == 0) last = atomicAdd(reinterpret_cast<unsigned*>(&x[255]), 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  x[128 + t] = x[t] + x[64 + t];  // racy
}

// The consumer never says that it is done: the second write meets the first read, or the producer's
// second arrival takes the place of the consumer, which then waits for ever. Grid 1, block 64.
extern "C" __global__ void race_named_barrier_one_way(float* x) {
  __shared__ float s[32];
  unsigned t = threadIdx.x, lane = t % 32;
  for (int round = 0; round < 2; round++) {
    if (t < 32) {
      s[lane] = x[lane] + float(round);  // racy
      bar_arrive(1, 64);
    } else {
      bar_sync(1, 64);         // racy
      x[32 + lane] = s[lane];  // racy
    }
  }
}

// Warp 0 fills a buffer for warp 1, which waits for the phase before, or for the one after that
// never ends. Grid 1, block 64.
extern "C" __global__ void race_mbarrier_wrong_parity(float* x) {
  __shared__ float s[32];
  __shared__ uint64_t full;
  unsigned t = threadIdx.x, lane = t % 32;
  if (t < 32) s[lane] = 0;
  if (t == 0) mbar_init(smem_u32(&full), 32);
  __syncthreads();
  if (t < 32) {
    s[lane] = x[lane];  // racy
    mbar_arrive(smem_u32(&full));
  } else {
    mbar_wait(smem_u32(&full), 1);  // racy
    x[32 + lane] = s[lane];         // racy
  }
}

// Grid 1, block 64.
extern "C" __global__ void race_mbarrier_no_wait(float* x) {
  __shared__ float s[32];
  __shared__ uint64_t full;
  unsigned t = threadIdx.x, lane = t % 32;
  if (t < 32) s[lane] = 0;
  if (t == 0) mbar_init(smem_u32(&full), 32);
  __syncthreads();
  if (t < 32) {
    s[lane] = x[lane];  // racy
    mbar_arrive(smem_u32(&full));
  } else {
    x[32 + lane] = s[lane];  // racy
  }
}

// ldmatrix of a tile that other warps have not finished. Grid 1, block 64, 1,024 bytes of shared
// memory.
extern "C" __global__ void race_ldmatrix_before_barrier(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  reinterpret_cast<float4*>(bytes)[(t + 32) % 64] = float4{x[t], 0, 0, 0};  // racy
  uint32_t registers[4];
  ldsm_x4(registers, smem_u32(bytes + t * 16));  // racy
  x[64 + t] = float(registers[0] & 1);
}
