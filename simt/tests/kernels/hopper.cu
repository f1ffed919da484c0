// Conformance of hopper.cuh: tests/hopper.rs compares what these kernels compute with what the
// helpers' comments say.
#include "../../../kernels/hopper.cuh"

#ifdef HOPPER

// A phase of one mbarrier that one thread fills by bulk copies and all threads wait for.
PTX_FN void init_one(uint32_t barrier) {
  if (threadIdx.x == 0) {
    mbar_init(barrier, 1);
    mbar_init_fence();
  }
  __syncthreads();
}

// Loads the box at (x, y), shows how it lies in shared memory in `raw` [bytes], and stores it at
// the same place of `to`.
//
// Grid 1, block 64; shared memory for the box.
extern "C" __global__ void hopper_box_2d(const __grid_constant__ TensorMap from,
                                         const __grid_constant__ TensorMap to, int x, int y,
                                         unsigned bytes, unsigned char* raw) {
  DYN_SMEM(box);
  __shared__ uint64_t full;
  init_one(smem_u32(&full));
  if (threadIdx.x == 0) {
    mbar_arrive_expect(smem_u32(&full), bytes);
    bulk_load_2d(smem_u32(box), &from, x, y, smem_u32(&full));
  }
  mbar_wait(smem_u32(&full), 0);
  for (unsigned i = threadIdx.x; i < bytes; i += blockDim.x) raw[i] = box[i];
  if (threadIdx.x == 0) {
    bulk_store_2d(&to, x, y, smem_u32(box));
    bulk_commit();
    bulk_wait<0>();
  }
}

// As hopper_box_2d, in three dimensions.
extern "C" __global__ void hopper_box_3d(const __grid_constant__ TensorMap from,
                                         const __grid_constant__ TensorMap to, int x, int y, int z,
                                         unsigned bytes, unsigned char* raw) {
  DYN_SMEM(box);
  __shared__ uint64_t full;
  init_one(smem_u32(&full));
  if (threadIdx.x == 0) {
    mbar_arrive_expect(smem_u32(&full), bytes);
    bulk_load_3d(smem_u32(box), &from, x, y, z, smem_u32(&full));
  }
  mbar_wait(smem_u32(&full), 0);
  for (unsigned i = threadIdx.x; i < bytes; i += blockDim.x) raw[i] = box[i];
  if (threadIdx.x == 0) {
    bulk_store_3d(&to, x, y, z, smem_u32(box));
    bulk_commit();
    bulk_wait<0>();
  }
}

// out = 2 in, `rounds` rows of 64 floats, one bulk load and one bulk store each.
//
// Grid 1, block 64, 256 bytes of shared memory.
extern "C" __global__ void hopper_bulk_rows(const float* in, float* out, unsigned rounds) {
  DYN_SMEM(bytes);
  float* row = reinterpret_cast<float*>(bytes);
  __shared__ uint64_t full;
  const unsigned t = threadIdx.x;
  init_one(smem_u32(&full));
  for (unsigned round = 0; round < rounds; round++) {
    if (t == 0) {
      mbar_arrive_expect(smem_u32(&full), 256);
      bulk_load(smem_u32(row), in + round * 64, 256, smem_u32(&full));
    }
    mbar_wait(smem_u32(&full), round % 2);
    row[t] *= 2;
    fence_async();
    __syncthreads();
    if (t == 0) {
      bulk_store(out + round * 64, smem_u32(row), 256);
      bulk_commit();
      bulk_wait_read<0>();
    }
    __syncthreads();
  }
}

// d [64, N] = initial + a b with 64 of k; operands come as boxes of rows of `width`
// bytes, the length of the swizzle or 16 without one.
constexpr int DEPTH = 64, STEPS = DEPTH / 16;

// Where an operand of `count` rows or columns lies, and how a descriptor names its 16 of k.
struct Operand {
  uint32_t address, count, width;
  MatrixSwizzle swizzle;
  bool mn;  // rows along m or n

  PTX_FN uint32_t boxes() const { return (mn ? count : DEPTH) * 2 / width; }
  PTX_FN uint32_t box_bytes() const { return (mn ? DEPTH : count) * width; }
  PTX_FN uint64_t descriptor(uint32_t step) const {
    if (swizzle == MatrixSwizzle::NONE) {
      return mn ? matrix_descriptor(address + step * 16 * width, 8 * width, box_bytes(), swizzle)
                : matrix_descriptor(address + step * 2 * box_bytes(), box_bytes(), 128, swizzle);
    }
    if (mn) {
      return matrix_descriptor(address + step * 16 * width, box_bytes(), 8 * width, swizzle);
    }
    const uint32_t column = step * 32;
    return matrix_descriptor(address + column / width * box_bytes() + column % width, 0, 8 * width,
                             swizzle);
  }
  PTX_FN void load(const TensorMap* map, uint32_t barrier LOCP) const {
    for (uint32_t box = 0; box < boxes(); box++) {
      bulk_load_2d(address + box * box_bytes(), map, box * width / 2, 0, barrier);
    }
  }
};

template <int N>
PTX_FN void store_sums(const float (&sums)[N / 2], float* d) {
  const unsigned warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < N / 2; i++) {
    const unsigned row = warp * 16 + g + i / 2 % 2 * 8, column = i / 4 * 8 + t + i % 2;
    d[row * N + column] = sums[i];
  }
}

// Both operands in shared memory.
template <int N, bool A_MN, bool B_MN>
PTX_FN void products(const TensorMap* a_map, const TensorMap* b_map, unsigned width,
                     unsigned swizzle, float initial, float* d) {
  DYN_SMEM(smem);
  __shared__ uint64_t full;
  const uint32_t barrier = smem_u32(&full), base = smem_u32(smem);
  const Operand a{base, 64, width, (MatrixSwizzle)swizzle, A_MN};
  const Operand b{base + 64 * DEPTH * 2, N, width, (MatrixSwizzle)swizzle, B_MN};
  init_one(barrier);
  if (threadIdx.x == 0) {
    mbar_arrive_expect(barrier, (64 + N) * DEPTH * 2);
    a.load(a_map, barrier);
    b.load(b_map, barrier);
  }
  uint64_t a_at[STEPS], b_at[STEPS];
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
    a_at[step] = a.descriptor(step);
    b_at[step] = b.descriptor(step);
  }
  float sums[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; i++) sums[i] = initial;
  mbar_wait(barrier, 0);
  wgmma_settle(sums);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < STEPS; step++) wgmma<A_MN, B_MN>(sums, a_at[step], b_at[step], true);
  wgmma_commit();
  wgmma_wait<0>();
  store_sums<N>(sums, d);
}

// Grid 1, block 128, 16 KiB (N 64) or 24 KiB (N 128) of shared memory, in these six.
#define PRODUCTS(NAME, N, A_MN, B_MN)                                                             \
  extern "C" __global__ void NAME(const __grid_constant__ TensorMap a,                            \
                                  const __grid_constant__ TensorMap b, unsigned width,            \
                                  unsigned swizzle, float initial, float* d) {                    \
    products<N, A_MN, B_MN>(&a, &b, width, swizzle, initial, d);                                  \
  }
PRODUCTS(hopper_wgmma_64, 64, false, false)
PRODUCTS(hopper_wgmma_64_mn, 64, true, true)
PRODUCTS(hopper_wgmma_128, 128, false, false)
PRODUCTS(hopper_wgmma_128_am, 128, true, false)
PRODUCTS(hopper_wgmma_128_bn, 128, false, true)
PRODUCTS(hopper_wgmma_128_mn, 128, true, true)

// a, bf16 [64][DEPTH] in global memory, goes to registers.
template <int N, bool B_MN>
PTX_FN void products_of_registers(const uint32_t* a, const TensorMap* b_map, unsigned width,
                                  unsigned swizzle, float initial, float* d) {
  DYN_SMEM(smem);
  __shared__ uint64_t full;
  const uint32_t barrier = smem_u32(&full);
  const unsigned row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const Operand b{smem_u32(smem), N, width, (MatrixSwizzle)swizzle, B_MN};
  init_one(barrier);
  if (threadIdx.x == 0) {
    mbar_arrive_expect(barrier, N * DEPTH * 2);
    b.load(b_map, barrier);
  }
  uint32_t fragments[STEPS][4];
  uint64_t b_at[STEPS];
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
    b_at[step] = b.descriptor(step);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      fragments[step][i] = a[(row + i % 2 * 8) * (DEPTH / 2) + step * 8 + t + i / 2 * 4];
    }
  }
  float sums[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; i++) sums[i] = initial;
  mbar_wait(barrier, 0);
  wgmma_settle(sums);
  wgmma_fence();
  wgmma<B_MN>(sums, fragments[0], b_at[0], initial != 0);
#pragma unroll
  for (int step = 1; step < STEPS; step++) wgmma<B_MN>(sums, fragments[step], b_at[step], true);
  wgmma_commit();
  wgmma_wait<0>();
  store_sums<N>(sums, d);
}

#define PRODUCTS_OF_REGISTERS(NAME, N, B_MN)                                                      \
  extern "C" __global__ void NAME(const uint32_t* a, const __grid_constant__ TensorMap b,         \
                                  unsigned width, unsigned swizzle, float initial, float* d) {    \
    products_of_registers<N, B_MN>(a, &b, width, swizzle, initial, d);                            \
  }
PRODUCTS_OF_REGISTERS(hopper_wgmma_registers_64, 64, false)
PRODUCTS_OF_REGISTERS(hopper_wgmma_registers_64_bn, 64, true)
PRODUCTS_OF_REGISTERS(hopper_wgmma_registers_128, 128, false)
PRODUCTS_OF_REGISTERS(hopper_wgmma_registers_128_bn, 128, true)

// ---- Clusters, blocks of 64 threads, all in dynamic shared memory.

PTX_FN void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

// out [blocks][64] = rank + 100 blocks of the cluster + the values, backwards, of its next block in
// `in` [blocks][64]. 256 bytes of shared memory.
extern "C" __global__ void hopper_cluster_next(const float* in, float* out) {
  DYN_SMEM(bytes);
  float* row = reinterpret_cast<float*>(bytes);
  const unsigned t = threadIdx.x, at = blockIdx.x * 64 + t;
  const uint32_t rank = cluster_rank(), blocks = cluster_blocks();
  row[t] = in[at];
  cluster_sync();
  const float next = cluster_pointer(row, (rank + 1) % blocks)[63 - t];
  cluster_sync();
  out[at] = float(rank + 100 * blocks) + next;
}

// Every block leaves a row in the first block of its cluster, which adds them up to out
// [clusters][64]. 64 floats for each block of the cluster, and 8 bytes, of shared memory.
extern "C" __global__ void hopper_cluster_sum(const float* in, float* out) {
  DYN_SMEM(bytes);
  float* rows = reinterpret_cast<float*>(bytes);
  const unsigned t = threadIdx.x;
  const uint32_t rank = cluster_rank(), blocks = cluster_blocks();
  const uint32_t barrier = smem_u32(bytes) + blocks * 256;
  if (t == 0) {
    mbar_init(barrier, blocks * 64);
    mbar_init_fence();
  }
  cluster_sync();
  cluster_pointer(rows, 0)[rank * 64 + t] = in[blockIdx.x * 64 + t];
  mbar_arrive_cluster(cluster_address(barrier, 0));
  if (rank == 0) {
    mbar_wait_cluster(barrier, 0);
    float sum = 0;
    for (unsigned i = 0; i < blocks; i++) sum += rows[i * 64 + t];
    out[blockIdx.x / blocks * 64 + t] = sum;
  }
  cluster_sync();
}

// Each block of the only cluster loads eight rows of 128 bytes for all of them; `out` [blocks]
// [8 blocks][128] bytes is what each then has. No block ends before all have said that they are
// done. 1,024 bytes a block, and 16, of shared memory; two warps.
extern "C" __global__ void hopper_multicast(const __grid_constant__ TensorMap map,
                                            unsigned char* out) {
  DYN_SMEM(bytes);
  const uint32_t rank = cluster_rank(), blocks = cluster_blocks(), all = blocks * 1024;
  const uint32_t barrier = smem_u32(bytes) + all, returned = barrier + 8, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    mbar_init(barrier, 1);
    mbar_init(returned, 2 * blocks);
    mbar_init_fence();
    mbar_arrive_expect(barrier, all);
  }
  cluster_sync();
  if (threadIdx.x == 0) {
    bulk_load_2d_multicast(smem_u32(bytes) + rank * 1024, &map, 0, rank * 8, barrier,
                           (1u << blocks) - 1);
  }
  mbar_wait_cluster(barrier, 0);
  for (unsigned i = threadIdx.x; i < all; i += 64) out[rank * all + i] = bytes[i];
  __syncwarp();
  if (lane < blocks) mbar_return_cluster(cluster_address(returned, lane));
  mbar_wait(returned, 0);
}

// Registers go from one warpgroup to the other; `out` counts the threads. Grid 1, block 256.
extern "C" __global__ void __launch_bounds__(256, 1) hopper_registers(unsigned* out) {
  if (threadIdx.x < 128) {
    give_registers<24>();
    atomicAdd(out, 1u);
  } else {
    take_registers<240>();
    atomicAdd(out, 1u);
  }
}

#endif  // HOPPER
