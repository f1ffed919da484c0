// Kernels with one wrong access each. Lines that may be named in the report are marked `//
// flagged`.
//
// x has 256 floats; grid 1, block 64 and no shared memory if nothing else is said.
#include "../../../kernels/ptx.cuh"

extern "C" __global__ void access_write_past_end(float* x) {
  x[threadIdx.x * 5] = 1;  // flagged
}

extern "C" __global__ void access_read_past_end(float* x) {
  x[threadIdx.x] = x[threadIdx.x + 193];  // flagged
}

extern "C" __global__ void access_read_before_start(float* x) {
  x[threadIdx.x] = x[int(threadIdx.x) - 1];  // flagged
}

// Half of the last access is inside. 252 bytes of shared memory.
extern "C" __global__ void access_wide_past_end(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  if (t < 32) reinterpret_cast<float2*>(bytes)[t] = float2{x[t], x[t]};  // flagged
}

extern "C" __global__ void access_null(float* x) {
  float* nothing = nullptr;
  if (x[threadIdx.x] >= 0) nothing[threadIdx.x] = 1;  // flagged
}

extern "C" __global__ void access_plain(float* x) {
  x[threadIdx.x] += 1;  // flagged
}

extern "C" __global__ void access_misaligned_vector(float* x) {
  float4 v = *reinterpret_cast<float4*>(x + 1 + threadIdx.x);  // flagged
  x[128 + threadIdx.x] = v.x + v.w;
}

// 256 bytes of shared memory.
extern "C" __global__ void access_misaligned_ldmatrix(float* x) {
  DYN_SMEM(bytes);
  reinterpret_cast<float*>(bytes)[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  uint32_t register_;
  ldsm_x1(register_, smem_u32(bytes + 8));  // flagged
  x[threadIdx.x] = float(register_);
}

// 252 bytes of shared memory: one float too few.
extern "C" __global__ void access_dynamic_too_small(float* x) {
  DYN_SMEM(bytes);
  float* s = reinterpret_cast<float*>(bytes);
  s[threadIdx.x] = x[threadIdx.x];  // flagged
  __syncthreads();
  x[threadIdx.x] = s[63 - threadIdx.x];
}

extern "C" __global__ void access_static_index(float* x) {
  __shared__ float s[64];
  s[threadIdx.x + 1] = x[threadIdx.x];  // flagged
  __syncthreads();
  x[threadIdx.x] = s[1];
}

// 64 bytes of shared memory.
extern "C" __global__ void access_ldmatrix_past_end(float* x) {
  DYN_SMEM(bytes);
  if (threadIdx.x < 16) reinterpret_cast<float*>(bytes)[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  uint32_t register_;
  ldsm_x1(register_, smem_u32(bytes) + threadIdx.x % 8 * 16);  // flagged
  x[threadIdx.x] = float(register_);
}

extern "C" __global__ void access_other_threads_variable(float* x) {
  __shared__ float* theirs;
  float mine[2] = {x[0], 1};
  if (threadIdx.x == 0) theirs = mine;
  __syncthreads();
  x[threadIdx.x] = theirs[1];  // flagged
  __syncthreads();
}

__device__ float table[4] = {1, 2, 3, 4};

extern "C" __global__ void access_write_to_constant(float* x) {
  table[threadIdx.x % 4] = x[threadIdx.x];  // flagged
}

extern "C" __global__ void access_uninitialised_static(float* x) {
  __shared__ float s[64];
  if (threadIdx.x < 60) s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];  // flagged
}

// 256 bytes of shared memory.
extern "C" __global__ void access_uninitialised_dynamic(float* x) {
  DYN_SMEM(bytes);
  float* s = reinterpret_cast<float*>(bytes);
  if (threadIdx.x < 60) s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];  // flagged
}

// Shared memory does not outlive its block. Grid 2.
extern "C" __global__ void access_shared_of_last_block(float* x) {
  __shared__ float s[64];
  bool writes = blockIdx.x == unsigned(x[0]);
  if (writes) s[threadIdx.x] = 1;
  __syncthreads();
  if (!writes) x[64 + threadIdx.x] = s[threadIdx.x];  // flagged
}

extern "C" __global__ void access_uninitialised_atomic(float* x) {
  __shared__ unsigned counter;
  atomicAdd(&counter, 1u);  // flagged
  __syncthreads();
  x[threadIdx.x] = float(counter);
}

extern "C" __global__ void undefined_signed_overflow(float* x) {
  int i = int(x[threadIdx.x]) + 2147483600;  // flagged
  x[threadIdx.x] = float(i);
}

extern "C" __global__ void undefined_shift(float* x) {
  x[threadIdx.x] = float(1u << unsigned(x[threadIdx.x]));  // flagged
}

extern "C" __global__ void undefined_cast(float* x) {
  x[threadIdx.x] = float(int((x[threadIdx.x] + 1) * 1e9f));  // flagged
}
