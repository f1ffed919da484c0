// Kernels with one mistake each around the wait for earlier kernels. Lines that may be named in the
// report are marked `// flagged`.
//
// Dependent launches of one block of 64 with 512 bytes of shared memory; x has 256 floats.
#include "../../../kernels/hopper.cuh"

#ifdef HOPPER

extern "C" __global__ void early_load(float* x) {
  const float value = x[threadIdx.x];  // flagged
  begin_kernel();
  x[threadIdx.x] = value + 1;
}

extern "C" __global__ void early_store(float* x) {
  x[threadIdx.x] = 1;  // flagged
  begin_kernel();
}

extern "C" __global__ void early_atomic(float* x) {
  atomicAdd(&x[0], 1.0f);  // flagged
  begin_kernel();
}

extern "C" __global__ void early_memcpy(float* x) {
  float value;
  memcpy(&value, &x[threadIdx.x], sizeof value);  // flagged
  begin_kernel();
  x[threadIdx.x] = value + 1;
}

extern "C" __global__ void early_cp_async(float* x) {
  DYN_SMEM(bytes);
  cp_async4(smem_u32(bytes) + threadIdx.x * 4, x + threadIdx.x, true);  // flagged
  begin_kernel();
  cp_async_wait_all();
}

extern "C" __global__ void early_bulk_load(float* x) {
  DYN_SMEM(bytes);
  const uint32_t full = smem_u32(bytes) + 256;
  if (threadIdx.x == 0) {
    mbar_init(full, 1);
    mbar_init_fence();
    mbar_arrive_expect(full, 256);
    bulk_load(smem_u32(bytes), x, 256, full);  // flagged
  }
  __syncthreads();
  begin_kernel();
  mbar_wait(full, 0);
}

extern "C" __global__ void early_bulk_store(float* x) {
  DYN_SMEM(bytes);
  reinterpret_cast<float*>(bytes)[threadIdx.x] = 1;
  fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    bulk_store(x, smem_u32(bytes), 256);  // flagged
    bulk_commit();
    bulk_wait<0>();  // flagged
  }
  begin_kernel();
}

extern "C" __global__ void early_counter(float* x) {
  counter_add(reinterpret_cast<unsigned*>(&x[255]), 1);  // flagged
  begin_kernel();
}

extern "C" __global__ void early_in_some_lanes(float* x) {
  if (threadIdx.x % 2) begin_kernel();
  x[threadIdx.x] += 1;  // flagged
  if (threadIdx.x % 2 == 0) begin_kernel();
}

// A barrier after the wait of one thread would do on a GPU; here every thread waits for itself, so
// that none can end before.
extern "C" __global__ void early_wait_of_one_thread(float* x) {
  if (threadIdx.x == 0) begin_kernel();
  __syncthreads();
  x[threadIdx.x] += 1;  // flagged
}

// The second warp has nothing to do, and may end before the kernels that came first.
extern "C" __global__ void early_end(float* x) {  // flagged
  if (threadIdx.x >= 32) return;
  begin_kernel();
  x[threadIdx.x] += 1;
}

// Touches no device memory, but ends before what the next kernel must come after.
extern "C" __global__ void early_end_of_all(float*) {  // flagged
  __syncthreads();
}

#endif  // HOPPER
