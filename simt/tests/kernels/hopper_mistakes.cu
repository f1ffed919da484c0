// Kernels with one mistake each around bulk copies and wgmma. Lines that may be named in the report
// are marked `// flagged`.
//
// Grid 1, block 128, 8,192 bytes of shared memory; x has 256 floats.
#include "../../../kernels/hopper.cuh"

#ifdef HOPPER

// An mbarrier for one arrival, ready for copies.
PTX_FN uint32_t ready(uint64_t* barrier) {
  if (threadIdx.x == 0) {
    mbar_init(smem_u32(barrier), 1);
    mbar_init_fence();
  }
  __syncthreads();
  return smem_u32(barrier);
}

extern "C" __global__ void bulk_no_wait(float* x) {
  DYN_SMEM(bytes);
  __shared__ uint64_t barrier;
  const uint32_t full = ready(&barrier);
  if (threadIdx.x == 0) {
    mbar_arrive_expect(full, 512);
    bulk_load(smem_u32(bytes), x, 512, full);  // flagged
  }
  __syncthreads();
  x[128 + threadIdx.x] = reinterpret_cast<float*>(bytes)[threadIdx.x];  // flagged
  mbar_wait(full, 0);
}

// One thread waits, and nothing hands on to the others what it has learned.
extern "C" __global__ void bulk_wait_of_one(float* x) {
  DYN_SMEM(bytes);
  __shared__ uint64_t barrier;
  const uint32_t full = ready(&barrier);
  if (threadIdx.x == 0) {
    mbar_arrive_expect(full, 512);
    bulk_load(smem_u32(bytes), x, 512, full);  // flagged
    mbar_wait(full, 0);                        // flagged
  }
  x[128 + threadIdx.x] = reinterpret_cast<float*>(bytes)[threadIdx.x];  // flagged
}

// Waits for the phase before the first.
extern "C" __global__ void bulk_wrong_parity(float* x) {
  DYN_SMEM(bytes);
  __shared__ uint64_t barrier;
  const uint32_t full = ready(&barrier);
  if (threadIdx.x == 0) {
    mbar_arrive_expect(full, 512);
    bulk_load(smem_u32(bytes), x, 512, full);  // flagged
  }
  mbar_wait(full, 1);                                                   // flagged
  x[128 + threadIdx.x] = reinterpret_cast<float*>(bytes)[threadIdx.x];  // flagged
}

// Half of the bytes are expected: the count goes below zero, and the phase never ends.
extern "C" __global__ void bulk_wrong_bytes(float* x) {
  DYN_SMEM(bytes);
  __shared__ uint64_t barrier;
  const uint32_t full = ready(&barrier);
  if (threadIdx.x == 0) {
    mbar_arrive_expect(full, 256);
    bulk_load(smem_u32(bytes), x, 512, full);
  }
  mbar_wait(full, 0);  // flagged
  x[128 + threadIdx.x] = reinterpret_cast<float*>(bytes)[threadIdx.x];
}

extern "C" __global__ void bulk_barrier_not_fenced(float* x) {
  DYN_SMEM(bytes);
  __shared__ uint64_t barrier;
  if (threadIdx.x == 0) mbar_init(smem_u32(&barrier), 1);
  __syncthreads();
  if (threadIdx.x == 0) {
    mbar_arrive_expect(smem_u32(&barrier), 512);
    bulk_load(smem_u32(bytes), x, 512, smem_u32(&barrier));  // flagged
  }
  mbar_wait(smem_u32(&barrier), 0);
}

extern "C" __global__ void bulk_never_waited(float* x) {
  DYN_SMEM(bytes);
  __shared__ uint64_t barrier;
  const uint32_t full = ready(&barrier);
  if (threadIdx.x == 0) {
    mbar_arrive_expect(full, 512);
    bulk_load(smem_u32(bytes), x, 512, full);  // flagged
  }
}

// The next load into a stage starts while others still read it.
extern "C" __global__ void bulk_refilled_too_early(float* x) {
  DYN_SMEM(bytes);
  __shared__ uint64_t barrier;
  const uint32_t full = ready(&barrier);
  float sum = 0;
  for (int round = 0; round < 2; round++) {
    if (threadIdx.x == 0) {
      mbar_arrive_expect(full, 512);
      bulk_load(smem_u32(bytes), x, 512, full);  // flagged
    }
    mbar_wait(full, round);                                     // flagged
    sum += reinterpret_cast<float*>(bytes)[127 - threadIdx.x];  // flagged
  }
  x[128 + threadIdx.x] = sum;
}

extern "C" __global__ void bulk_misaligned(float* x) {
  DYN_SMEM(bytes);
  __shared__ uint64_t barrier;
  const uint32_t full = ready(&barrier);
  if (threadIdx.x == 0) bulk_load(smem_u32(bytes) + 8, x, 512, full);  // flagged
}

extern "C" __global__ void bulk_store_without_proxy_fence(float* x) {
  DYN_SMEM(bytes);
  reinterpret_cast<float*>(bytes)[threadIdx.x] = x[threadIdx.x];  // flagged
  __syncthreads();
  if (threadIdx.x == 0) {
    bulk_store(x, smem_u32(bytes), 512);  // flagged
    bulk_commit();
    bulk_wait<0>();
  }
}

// One thread's fence says nothing of what the others wrote.
extern "C" __global__ void bulk_store_fence_of_one(float* x) {
  DYN_SMEM(bytes);
  reinterpret_cast<float*>(bytes)[threadIdx.x] = x[threadIdx.x];  // flagged
  __syncthreads();
  if (threadIdx.x == 0) {
    fence_async();
    bulk_store(x, smem_u32(bytes), 512);  // flagged
    bulk_commit();
    bulk_wait<0>();
  }
}

// All fence, but before they write.
extern "C" __global__ void bulk_store_fence_too_early(float* x) {
  DYN_SMEM(bytes);
  fence_async();
  reinterpret_cast<float*>(bytes)[threadIdx.x] = x[threadIdx.x];  // flagged
  __syncthreads();
  if (threadIdx.x == 0) {
    bulk_store(x, smem_u32(bytes), 512);  // flagged
    bulk_commit();
    bulk_wait<0>();
  }
}

extern "C" __global__ void bulk_store_source_changes(float* x) {
  DYN_SMEM(bytes);
  reinterpret_cast<float*>(bytes)[threadIdx.x] = x[threadIdx.x];
  fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    bulk_store(x, smem_u32(bytes), 512);  // flagged
    bulk_commit();
    reinterpret_cast<float*>(bytes)[0] = 7;  // flagged
    bulk_wait<0>();
  }
}

extern "C" __global__ void bulk_store_never_waited(float* x) {
  DYN_SMEM(bytes);
  reinterpret_cast<float*>(bytes)[threadIdx.x] = x[threadIdx.x];
  fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    bulk_store(x, smem_u32(bytes), 512);  // flagged
    bulk_commit();
  }
}

// The wait leaves the group that counts under way.
extern "C" __global__ void bulk_store_wait_too_weak(float* x) {
  DYN_SMEM(bytes);
  reinterpret_cast<float*>(bytes)[threadIdx.x] = x[threadIdx.x];
  fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    bulk_store(x, smem_u32(bytes), 512);  // flagged
    bulk_commit();
    bulk_wait<1>();
  }
}

// ---- wgmma. a and b are 64 x 16, without a swizzle, 2,048 bytes each.

PTX_FN uint64_t operand(const unsigned char* bytes) {
  return matrix_descriptor(smem_u32(bytes), 1024, 128, MatrixSwizzle::NONE);
}

PTX_FN void fill(unsigned char* bytes) {
  for (unsigned i = threadIdx.x; i < 1024; i += 128) reinterpret_cast<float*>(bytes)[i] = 0;
}

PTX_FN void filled(unsigned char* bytes) {
  fill(bytes);
  fence_async();
  __syncthreads();
}

extern "C" __global__ void wgmma_without_proxy_fence(float* x) {
  DYN_SMEM(bytes);
  float d[32] = {};
  for (unsigned i = threadIdx.x; i < 1024; i += 128) {
    reinterpret_cast<float*>(bytes)[i] = 0;  // flagged
  }
  __syncthreads();
  wgmma_fence();
  wgmma(d, operand(bytes), operand(bytes + 2048), false);  // flagged
  wgmma_commit();
  wgmma_wait<0>();
  x[threadIdx.x] = d[0];
}

extern "C" __global__ void wgmma_before_barrier(float* x) {
  DYN_SMEM(bytes);
  float d[32] = {};
  for (unsigned i = threadIdx.x; i < 1024; i += 128) {
    reinterpret_cast<float*>(bytes)[i] = 0;  // flagged
  }
  fence_async();
  wgmma_fence();
  wgmma(d, operand(bytes), operand(bytes + 2048), false);  // flagged
  wgmma_commit();
  wgmma_wait<0>();
  x[threadIdx.x] = d[0];
}

extern "C" __global__ void wgmma_operand_in_flight(float* x) {
  DYN_SMEM(bytes);
  __shared__ uint64_t barrier;
  float d[32] = {};
  filled(bytes);
  const uint32_t full = ready(&barrier);
  if (threadIdx.x == 0) {
    mbar_arrive_expect(full, 512);
    bulk_load(smem_u32(bytes) + 2048, x, 512, full);  // flagged
  }
  __syncthreads();
  wgmma_fence();
  wgmma(d, operand(bytes), operand(bytes + 2048), false);  // flagged
  wgmma_commit();
  wgmma_wait<0>();
  mbar_wait(full, 0);
  x[threadIdx.x] = d[0];
}

extern "C" __global__ void wgmma_without_fence(float* x) {
  DYN_SMEM(bytes);
  float d[32] = {};
  filled(bytes);
  wgmma(d, operand(bytes), operand(bytes + 2048), false);  // flagged
  wgmma_commit();
  wgmma_wait<0>();
  x[threadIdx.x] = d[0];
}

extern "C" __global__ void wgmma_sums_read_before_wait(float* x) {
  DYN_SMEM(bytes);
  float d[32] = {};
  filled(bytes);
  wgmma_fence();
  wgmma(d, operand(bytes), operand(bytes + 2048), false);
  wgmma_commit();
  x[threadIdx.x] = d[0];  // flagged
  wgmma_wait<0>();
}

extern "C" __global__ void wgmma_sums_written_before_wait(float* x) {
  DYN_SMEM(bytes);
  float d[32] = {};
  filled(bytes);
  wgmma_fence();
  wgmma(d, operand(bytes), operand(bytes + 2048), false);
  wgmma_commit();
  d[1] = 1;  // flagged
  wgmma_wait<0>();
  x[threadIdx.x] = d[1];
}

// Two groups, and a wait for the first alone.
extern "C" __global__ void wgmma_wait_too_weak(float* x) {
  DYN_SMEM(bytes);
  float d[32] = {}, e[32] = {};
  filled(bytes);
  wgmma_fence();
  wgmma(d, operand(bytes), operand(bytes + 2048), false);
  wgmma_commit();
  wgmma(e, operand(bytes), operand(bytes + 2048), false);
  wgmma_commit();
  wgmma_wait<1>();
  x[threadIdx.x] = d[0] + e[0];  // flagged
  wgmma_wait<0>();
}

extern "C" __global__ void wgmma_operand_changes(float* x) {
  DYN_SMEM(bytes);
  float d[32] = {};
  filled(bytes);
  wgmma_fence();
  wgmma(d, operand(bytes), operand(bytes + 2048), false);  // flagged
  wgmma_commit();
  reinterpret_cast<float*>(bytes)[threadIdx.x] = 1;  // flagged
  wgmma_wait<0>();
  x[threadIdx.x] = d[0];
}

// The stage is given back before the products that read it are done.
extern "C" __global__ void wgmma_stage_released_too_early(float* x) {
  DYN_SMEM(bytes);
  __shared__ uint64_t empty;
  if (threadIdx.x == 0) mbar_init(smem_u32(&empty), 128);
  for (unsigned i = threadIdx.x; i < 1024; i += 160) reinterpret_cast<float*>(bytes)[i] = 0;
  fence_async();
  __syncthreads();
  if (threadIdx.x < 128) {
    float d[32] = {};
    wgmma_fence();
    wgmma(d, operand(bytes), operand(bytes + 2048), false);  // flagged
    wgmma_commit();
    mbar_arrive(smem_u32(&empty));
    wgmma_wait<0>();
    x[threadIdx.x] = d[0];
  } else {
    mbar_wait(smem_u32(&empty), 0);
    reinterpret_cast<float*>(bytes)[threadIdx.x] = 1;  // flagged
  }
}

extern "C" __global__ void wgmma_never_waited(float* x) {
  DYN_SMEM(bytes);
  float d[32] = {};
  filled(bytes);
  wgmma_fence();
  wgmma(d, operand(bytes), operand(bytes + 2048), false);  // flagged
  wgmma_commit();
  x[threadIdx.x] = 0;
}

extern "C" __global__ void wgmma_of_one_warp(float* x) {
  DYN_SMEM(bytes);
  float d[32] = {};
  filled(bytes);
  if (threadIdx.x < 32) {
    wgmma_fence();
    wgmma(d, operand(bytes), operand(bytes + 2048), false);
    wgmma_commit();
    wgmma_wait<0>();
  }
  x[threadIdx.x] = d[0];
  __syncthreads();  // flagged
}

// The pattern of a swizzle of 128 bytes starts at a multiple of 1,024.
extern "C" __global__ void wgmma_misaligned_pattern(float* x) {
  DYN_SMEM(bytes);
  float d[32] = {};
  filled(bytes);
  wgmma_fence();
  const uint64_t a = matrix_descriptor(smem_u32(bytes) + 128, 0, 1024, MatrixSwizzle::BYTES_128);
  wgmma(d, a, a, false);  // flagged
  wgmma_commit();
  wgmma_wait<0>();
  x[threadIdx.x] = d[0];
}

extern "C" __global__ void registers_not_a_multiple(float* x) {
  take_registers<100>();  // flagged
  x[threadIdx.x] = 0;
}

// ---- Clusters: grid 2, in one cluster, block 64, 512 bytes of shared memory.

PTX_FN void cluster_sync() {
  cluster_arrive();
  cluster_wait();  // flagged
}

extern "C" __global__ void cluster_read_before_barrier(float* x) {
  DYN_SMEM(bytes);
  float* row = reinterpret_cast<float*>(bytes);
  const unsigned t = threadIdx.x;
  row[t] = x[t];                                                               // flagged
  x[128 + blockIdx.x * 64 + t] = cluster_pointer(row, cluster_rank() ^ 1)[t];  // flagged
  cluster_sync();
}

// A block may end while the other one still reads it.
extern "C" __global__ void cluster_no_barrier_before_end(float* x) {
  DYN_SMEM(bytes);
  float* row = reinterpret_cast<float*>(bytes);
  const unsigned t = threadIdx.x;
  row[t] = x[t];
  cluster_sync();
  x[128 + blockIdx.x * 64 + t] = cluster_pointer(row, cluster_rank() ^ 1)[t];  // flagged
}

extern "C" __global__ void cluster_write_before_barrier(float* x) {
  DYN_SMEM(bytes);
  float* row = reinterpret_cast<float*>(bytes);
  const unsigned t = threadIdx.x;
  row[t] = 0;
  cluster_sync();
  cluster_pointer(row, cluster_rank() ^ 1)[t] = x[t];  // flagged
  __syncthreads();
  x[128 + blockIdx.x * 64 + t] = row[t];  // flagged
  cluster_sync();
}

// __syncthreads is a barrier of one block only.
extern "C" __global__ void cluster_block_barrier_only(float* x) {
  DYN_SMEM(bytes);
  float* row = reinterpret_cast<float*>(bytes);
  const unsigned t = threadIdx.x;
  row[t] = x[t];  // flagged
  __syncthreads();
  x[128 + blockIdx.x * 64 + t] = cluster_pointer(row, cluster_rank() ^ 1)[t];  // flagged
  cluster_sync();
}

extern "C" __global__ void cluster_arrival_twice(float* x) {
  cluster_arrive();
  cluster_arrive();  // flagged
  cluster_wait();
  x[blockIdx.x * 64 + threadIdx.x] = 0;
}

extern "C" __global__ void cluster_wait_alone(float* x) {
  cluster_wait();  // flagged
  x[blockIdx.x * 64 + threadIdx.x] = 0;
}

// The second block waits in its __syncthreads for threads that wait for the cluster.
extern "C" __global__ void cluster_barriers_crossed(float* x) {
  if (blockIdx.x == 0 || threadIdx.x < 32) {
    cluster_sync();
    __syncthreads();
  } else {
    __syncthreads();  // flagged
    cluster_sync();
  }
  x[blockIdx.x * 64 + threadIdx.x] = 0;
}

extern "C" __global__ void cluster_no_such_block(float* x) {
  DYN_SMEM(bytes);
  float* row = cluster_pointer(reinterpret_cast<float*>(bytes), 2);  // flagged
  row[threadIdx.x] = x[threadIdx.x];
}

// The other block arrives, but what it wrote comes after.
extern "C" __global__ void cluster_arrival_before_write(float* x) {
  DYN_SMEM(bytes);
  float* row = reinterpret_cast<float*>(bytes);
  const uint32_t barrier = smem_u32(bytes) + 256;
  const unsigned t = threadIdx.x;
  row[t] = 0;
  if (t == 0) mbar_init(barrier, 64);
  cluster_sync();
  if (blockIdx.x == 1) {
    mbar_arrive_cluster(cluster_address(barrier, 0));
    cluster_pointer(row, 0)[t] = x[t];  // flagged
  } else {
    mbar_wait_cluster(barrier, 0);
    x[128 + t] = row[t];  // flagged
  }
  cluster_sync();
}

#endif  // HOPPER
