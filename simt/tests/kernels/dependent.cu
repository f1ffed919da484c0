// What a dependent launch may do before its wait: work in shared memory.
#include "../../../kernels/ptx.cuh"

// x[i] += 31 - i % 32; blocks of 32, 128 bytes of dynamic shared memory, x [32 blocks].
extern "C" __global__ void dependent_add(float* x) {
  DYN_SMEM(bytes);
  float* reversed = reinterpret_cast<float*>(bytes);
  reversed[31 - threadIdx.x] = threadIdx.x;
  __syncthreads();
  begin_kernel();
  x[blockIdx.x * 32 + threadIdx.x] += reversed[threadIdx.x];
}
