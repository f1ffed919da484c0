// Kernels without a mistake, of the patterns that real ones are made of: the checker must stay
// silent, and every schedule must give the same result. All take `in`, 256 floats, and write 64
// floats to `out` if nothing else is said; `counter` is one integer, 0 at first. Grid 1, block 64.
#include "../../../kernels/hopper.cuh"

extern "C" __global__ void correct_syncthreads(const float* in, float* out, unsigned*) {
  __shared__ float s[64];
  unsigned t = threadIdx.x;
  s[t] = in[t];
  __syncthreads();
  float other = s[63 - t];
  __syncthreads();
  s[t] = other * 2;
  __syncthreads();
  out[t] = s[63 - t];
}

// Copies of the next stage are under way while this one is read. 2,048 bytes of shared memory.
extern "C" __global__ void correct_double_buffer(const float* in, float* out, unsigned*) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x;
  uint32_t stages = smem_u32(bytes);
  float sum = 0;
  cp_async16(stages + t * 16, in + t * 4, true);
  cp_async_commit();
  for (unsigned k = 0; k < 4; k++) {
    if (k < 3) cp_async16(stages + (k + 1) % 2 * 1024 + t * 16, in + t * 4, true);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    const float* stage = reinterpret_cast<float*>(bytes) + k % 2 * 256;
    for (unsigned i = 0; i < 4; i++) sum += stage[(63 - t) * 4 + i];
    __syncthreads();
  }
  out[t] = sum;
}

// Warp 0 copies tiles into a ring of two stages, warp 1 sums them up. 256 bytes of shared memory.
extern "C" __global__ void correct_mbarrier_pipeline(const float* in, float* out, unsigned*) {
  DYN_SMEM(bytes);
  __shared__ uint64_t full[2], empty[2];
  float* stages = reinterpret_cast<float*>(bytes);
  unsigned t = threadIdx.x, lane = t % 32;
  if (t < 2) {
    mbar_init(smem_u32(&full[t]), 32);
    mbar_init(smem_u32(&empty[t]), 32);
  }
  __syncthreads();
  float sum = 0;
  for (unsigned k = 0; k < 8; k++) {
    unsigned stage = k % 2, parity = k / 2 % 2;
    if (t < 32) {
      mbar_wait(smem_u32(&empty[stage]), parity ^ 1);
      stages[stage * 32 + lane] = in[k * 32 + lane];
      mbar_arrive(smem_u32(&full[stage]));
    } else {
      mbar_wait(smem_u32(&full[stage]), parity);
      sum += stages[stage * 32 + 31 - lane];
      mbar_arrive(smem_u32(&empty[stage]));
    }
  }
  out[t] = t < 32 ? 0 : sum;
}

// Barrier 1 says full, barrier 2 empty.
extern "C" __global__ void correct_named_barriers(const float* in, float* out, unsigned*) {
  __shared__ float s[32];
  unsigned t = threadIdx.x, lane = t % 32;
  float sum = 0;
  for (unsigned k = 0; k < 8; k++) {
    if (t < 32) {
      bar_sync(2, 64);
      s[lane] = in[k * 32 + lane];
      bar_arrive(1, 64);
    } else {
      bar_arrive(2, 64);
      bar_sync(1, 64);
      sum += s[31 - lane];
    }
  }
  out[t] = t < 32 ? 0 : sum;
}

// Each warp has a barrier of its own.
extern "C" __global__ void correct_barrier_per_warp(const float* in, float* out, unsigned*) {
  __shared__ float s[64];
  unsigned t = threadIdx.x, warp = t / 32;
  s[t] = in[t];
  bar_sync(int(1 + warp), 32);
  out[t] = s[t ^ 31];
}

// Integer atomics of all blocks on `counter` and on shared memory. Grid 5.
extern "C" __global__ void correct_atomics(const float* in, float* out, unsigned* counter) {
  __shared__ unsigned histogram[4];
  unsigned t = threadIdx.x;
  if (t < 4) histogram[t] = 0;
  __syncthreads();
  atomicAdd(&histogram[unsigned(in[t]) % 4], 1u);
  atomicMax(counter, unsigned(in[t]) + blockIdx.x);
  __syncthreads();
  if (blockIdx.x == 0) out[t] = float(histogram[t % 4]);
}

// The block that comes last sums what all have written. Grid 4.
extern "C" __global__ void correct_last_block(const float* in, float* out, unsigned* counter) {
  __shared__ bool last;
  unsigned t = threadIdx.x;
  float* partial = out + 64;
  partial[blockIdx.x * 64 + t] = in[t] * float(blockIdx.x + 1);
  __threadfence();
  __syncthreads();
  if (t == 0) last = atomicAdd(counter, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  float sum = 0;
  for (unsigned block = 0; block < gridDim.x; block++) sum += partial[block * 64 + t];
  out[t] = sum;
  if (t == 0) *counter = 0;
}

// The same, but only the thread that counts executes a fence, after the barrier. Grid 4.
extern "C" __global__ void correct_last_block_one_fence(const float* in, float* out,
                                                        unsigned* counter) {
  __shared__ bool last;
  unsigned t = threadIdx.x;
  float* partial = out + 64;
  partial[blockIdx.x * 64 + t] = in[t] * float(blockIdx.x + 1);
  __syncthreads();
  if (t == 0) {
    __threadfence();
    last = atomicAdd(counter, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!last) return;
  float sum = 0;
  for (unsigned block = 0; block < gridDim.x; block++) sum += partial[block * 64 + t];
  out[t] = sum;
}

// The same with a named barrier: half of what is written is fenced before it, half after. Grid 4.
extern "C" __global__ void correct_last_block_named_barrier(const float* in, float* out,
                                                            unsigned* counter) {
  __shared__ bool last;
  unsigned t = threadIdx.x;
  float* partial = out + 64;
  partial[blockIdx.x * 64 + t] = in[t] * float(blockIdx.x + 1);
  if (blockIdx.x % 2 == 0) __threadfence();
  bar_sync(1, 64);
  if (blockIdx.x % 2 == 1 && t == 0) __threadfence();
  if (t == 0) last = atomicAdd(counter, 1u) == gridDim.x - 1;
  bar_sync(1, 64);
  if (!last) return;
  float sum = 0;
  for (unsigned block = 0; block < gridDim.x; block++) sum += partial[block * 64 + t];
  out[t] = sum;
}

// Every thread counts for itself, with no barrier before. Grid 4.
extern "C" __global__ void correct_last_thread(const float* in, float* out, unsigned* counter) {
  __shared__ unsigned done;
  unsigned t = threadIdx.x;
  float* partial = out + 64;
  if (t == 0) done = 0;
  __syncthreads();
  partial[blockIdx.x * 64 + t] = in[t] * float(blockIdx.x + 1);
  __threadfence();
  atomicMax(&done, atomicAdd(counter, 1u) + 1);
  __syncthreads();
  if (done < gridDim.x * 64) return;
  float sum = 0;
  for (unsigned block = 0; block < gridDim.x; block++) sum += partial[block * 64 + t];
  out[t] = sum;
}

extern "C" __global__ void correct_warp_scan(const float* in, float* out, unsigned*) {
  __shared__ float s[64];
  unsigned t = threadIdx.x, lane = t % 32;
  s[t] = in[t];
  __syncwarp();
  for (unsigned d = 1; d < 32; d *= 2) {
    float before = lane >= d ? s[t - d] : 0;
    __syncwarp();
    s[t] += before;
    __syncwarp();
  }
  out[t] = s[t - lane + 31 - lane];
}

extern "C" __global__ void correct_half_warps(const float* in, float* out, unsigned*) {
  unsigned t = threadIdx.x;
  if (t % 32 < 16) {
    out[t] = in[t] + __shfl_xor_sync(0xffffu, in[t], 1);
  } else {
    out[t] = in[t] - __shfl_xor_sync(0xffff0000u, in[t], 3);
  }
}

// Votes, matches and reductions against what shuffles give.
extern "C" __global__ void correct_warp_functions(const float* in, float* out, unsigned*) {
  unsigned t = threadIdx.x, lane = t % 32;
  unsigned value = unsigned(in[t]) * 2654435761u >> 28;
  unsigned sum = value, highest = value, equal = 0;
  for (unsigned d = 16; d; d /= 2) {
    sum += __shfl_xor_sync(~0u, sum, int(d));
    highest = max(highest, __shfl_xor_sync(~0u, highest, int(d)));
  }
  for (unsigned i = 0; i < 32; i++) {
    if (__shfl_sync(~0u, value, int(i)) == value) equal |= 1u << i;
  }
  bool good = __reduce_add_sync(~0u, value) == sum && __reduce_max_sync(~0u, value) == highest &&
              __match_any_sync(~0u, value) == equal &&
              __ballot_sync(~0u, lane % 3 == 0) == 0x49249249u && __any_sync(~0u, lane == 7) &&
              !__all_sync(~0u, lane == 7) && __syncthreads_count(t < 10) == 10 &&
              __syncthreads_or(t == 63) && !__syncthreads_and(t == 63);
  double wide = __shfl_down_sync(~0u, double(t) + 0.25, 1, 8);
  good = good && wide == double(lane % 8 == 7 ? t : t + 1) + 0.25;
  out[t] = good ? 1 : 0;
}

// Neighbouring bytes and 16-bit values belong to different threads.
extern "C" __global__ void correct_narrow_neighbours(const float* in, float* out, unsigned*) {
  __shared__ unsigned char bytes[64];
  __shared__ __nv_bfloat16 halves[64];
  unsigned t = threadIdx.x;
  for (unsigned i = 0; i < 3; i++) {
    bytes[t] = i == 0 ? (unsigned char)in[t] : (unsigned char)(bytes[t] + 1);
    halves[t] = i == 0 ? __float2bfloat16_rn(in[t]) : __hadd(halves[t], __float2bfloat16_rn(1));
  }
  out[t] = float(bytes[t]) + __bfloat162float(halves[t]);
}

// Some threads have left for good when the others meet.
extern "C" __global__ void correct_early_exit(const float* in, float* out, unsigned*) {
  __shared__ float s[64];
  unsigned t = threadIdx.x;
  out[t] = 0;
  if (t >= 40) return;
  s[t] = in[t];
  __syncthreads();
  out[t] = s[39 - t];
}

// Each warp stores a tile by stmatrix's layout and loads it transposed. 2,048 bytes of shared
// memory.
extern "C" __global__ void correct_matrices(const float* in, float* out, unsigned*) {
  DYN_SMEM(bytes);
  unsigned t = threadIdx.x, warp = t / 32, lane = t % 32;
  auto* tile = reinterpret_cast<__nv_bfloat16*>(bytes) + warp * 256;
  for (unsigned i = 0; i < 8; i++)
    tile[lane * 8 + i] = __float2bfloat16_rn(in[(lane * 8 + i) % 64]);
  __syncwarp();
  uint32_t plain[4], transposed[4];
  ldsm_x4(plain, smem_u32(tile + lane * 8));
  ldsm_x4_t(transposed, smem_u32(tile + lane * 8));
  float d[4] = {0, 0, 0, 0};
  mma_bf16(d, plain, transposed[0], transposed[1]);
  out[t] = d[0] + d[1] + d[2] + d[3];
}

// A block of three dimensions, and a pointer to static shared memory in the window of shared
// addresses.
extern "C" __global__ void correct_dimensions(const float* in, float* out, unsigned*) {
  __shared__ float4 s[16];
  unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  if (t < 16) cp_async16(smem_u32(&s[t]), in + t * 4, true);
  cp_async_wait_all();
  __syncthreads();
  out[t] = reinterpret_cast<float*>(s)[63 - t] + float(threadIdx.z);
}

// A thread polls for another of its block, and lets it run meanwhile.
extern "C" __global__ void correct_polling(const float* in, float* out, unsigned* counter) {
  unsigned t = threadIdx.x;
  if (t == 17) atomicExch(counter, 5u);
  while (atomicAdd(counter, 0u) != 5) __nanosleep(20);
  out[t] = in[t];
}

#ifdef HOPPER

// As correct_mbarrier_pipeline, filled by bulk copies of one thread. 256 bytes of shared memory.
extern "C" __global__ void correct_bulk_ring(const float* in, float* out, unsigned*) {
  DYN_SMEM(bytes);
  __shared__ uint64_t full[2], empty[2];
  float* stages = reinterpret_cast<float*>(bytes);
  unsigned t = threadIdx.x, lane = t % 32;
  if (t < 2) {
    mbar_init(smem_u32(&full[t]), 1);
    mbar_init(smem_u32(&empty[t]), 32);
    mbar_init_fence();
  }
  __syncthreads();
  float sum = 0;
  for (unsigned k = 0; k < 8; k++) {
    unsigned stage = k % 2, parity = k / 2 % 2;
    if (t == 0) {
      mbar_wait(smem_u32(&empty[stage]), parity ^ 1);
      mbar_arrive_expect(smem_u32(&full[stage]), 128);
      bulk_load(smem_u32(stages + stage * 32), in + k * 32, 128, smem_u32(&full[stage]));
    } else if (t >= 32) {
      mbar_wait(smem_u32(&full[stage]), parity);
      sum += stages[stage * 32 + 31 - lane];
      mbar_arrive(smem_u32(&empty[stage]));
    }
  }
  out[t] = sum;
}

#endif  // HOPPER
