// What the emulator's own operations cost; `examples/speed.rs` times these. Each repeats one
// operation `count` times.
#include "../../../kernels/ptx.cuh"

extern "C" __global__ void speed_nothing(unsigned, float*) {}

extern "C" __global__ void speed_syncwarp(unsigned count, float*) {
  for (unsigned i = 0; i < count; i++) __syncwarp();
}

extern "C" __global__ void speed_syncthreads(unsigned count, float*) {
  for (unsigned i = 0; i < count; i++) __syncthreads();
}

extern "C" __global__ void speed_shuffle(unsigned count, float* out) {
  float value = float(threadIdx.x);
  for (unsigned i = 0; i < count; i++) value += __shfl_xor_sync(~0u, value, 1);
  out[threadIdx.x] = value;
}

// 512 bytes of shared memory.
extern "C" __global__ void speed_ldmatrix(unsigned count, float* out) {
  DYN_SMEM(bytes);
  unsigned lane = threadIdx.x % 32;
  if (threadIdx.x < 32) reinterpret_cast<float4*>(bytes)[lane] = float4{};
  __syncthreads();
  uint32_t registers[4], sum = 0;
  for (unsigned i = 0; i < count; i++) {
    ldsm_x4(registers, smem_u32(bytes + lane * 16));
    sum += registers[0];
  }
  out[threadIdx.x] = float(sum);
}

extern "C" __global__ void speed_mma(unsigned count, float* out) {
  float sums[4] = {0, 0, 0, 0};
  uint32_t a[4] = {0x3f803f80, 0x3f803f80, 0x3f803f80, 0x3f803f80};
  for (unsigned i = 0; i < count; i++) mma_bf16(sums, a, 0x3f803f80, 0x3f803f80);
  out[threadIdx.x] = sums[0];
}

// A read and a write of shared memory.
extern "C" __global__ void speed_shared(unsigned count, float* out) {
  __shared__ float s[1024];
  unsigned t = threadIdx.x;
  s[t] = 0;
  for (unsigned i = 0; i < count; i++) {
    s[t] += 1;
    asm volatile("" ::: "memory");
  }
  out[t] = s[t];
}
