// Kernels with one mistake each around cp.async. Lines that may be named in the report are marked
// `// flagged`.
//
// Grid 1, block 64, 2,048 bytes of shared memory: two stages of 64 x 16 bytes. x has 256 floats.
#include "../../../kernels/ptx.cuh"

extern "C" __global__ void copy_read_before_wait(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  cp_async16(smem_u32(bytes + t * 16), x + t * 4, true);  // flagged
  cp_async_commit();
  x[t * 4] = reinterpret_cast<float*>(bytes)[t * 4] + 1;  // flagged
  cp_async_wait<0>();
}

extern "C" __global__ void copy_wait_too_weak(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  float* own = reinterpret_cast<float*>(bytes) + t * 4;
  cp_async16(smem_u32(own), x + t * 4, true);
  cp_async_commit();
  cp_async16(smem_u32(own + 256), x + t * 4, true);  // flagged
  cp_async_commit();
  cp_async_wait<1>();
  x[t * 4] = own[256] + 1;  // flagged
  cp_async_wait<0>();
}

extern "C" __global__ void copy_without_commit(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  cp_async16(smem_u32(bytes + t * 16), x + t * 4, true);  // flagged
  cp_async_wait<0>();
  x[t * 4] = reinterpret_cast<float*>(bytes)[t * 4] + 1;  // flagged
}

extern "C" __global__ void copy_overwritten_in_flight(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  cp_async16(smem_u32(bytes + t * 16), x + t * 4, true);  // flagged
  cp_async_commit();
  reinterpret_cast<float*>(bytes)[t * 4] = 1;  // flagged
  cp_async_wait<0>();
}

// Each thread has waited for its own copies only.
extern "C" __global__ void copy_wait_without_barrier(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  cp_async16(smem_u32(bytes + t * 16), x + t * 4, true);  // flagged
  cp_async_commit();
  cp_async_wait<0>();                                                    // flagged
  float other = reinterpret_cast<float*>(bytes)[(t + 32) % 64 * 4 + 1];  // flagged
  __syncthreads();
  x[t * 4] = other;
}

// The next copy into a stage starts while others still read it.
extern "C" __global__ void copy_refilled_too_early(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  float sum = 0;
  for (int round = 0; round < 2; round++) {
    cp_async16(smem_u32(bytes + t * 16), x + t * 4, true);  // flagged
    cp_async_commit();
    cp_async_wait<0>();  // flagged
    __syncthreads();
    sum += reinterpret_cast<float*>(bytes)[(t + 32) % 64 * 4];  // flagged
  }
  __syncthreads();
  x[t * 4] = sum;
}

// The source changes between issue and wait.
extern "C" __global__ void copy_source_changes(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  cp_async16(smem_u32(bytes + t * 16), x + t * 4, true);  // flagged
  cp_async_commit();
  x[(t + 32) % 64 * 4] = 1;  // flagged
  cp_async_wait<0>();        // flagged
}

extern "C" __global__ void copy_source_out_of_bounds(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  cp_async16(smem_u32(bytes + t * 16), x + 4 + t * 4, true);  // flagged
  cp_async_wait_all();
}

extern "C" __global__ void copy_destination_out_of_bounds(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  cp_async16(smem_u32(bytes + 1040 + t * 16), x + t * 4, true);  // flagged
  cp_async_wait_all();
}

extern "C" __global__ void copy_source_misaligned(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  cp_async16(smem_u32(bytes + t * 16), x + 1 + t * 2, true);  // flagged
  cp_async_wait_all();
}

extern "C" __global__ void copy_destination_misaligned(float* x) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  cp_async16(smem_u32(bytes + 8 + t * 16), x + t * 4, true);  // flagged
  cp_async_wait_all();
}
