// Conformance of ptx.cuh: one kernel per helper or family of helpers, each run on one block and
// compared by tests/kernels/ptx.rs with what the helper's comment says. No part of the engine.
//
// Bytes and FLOPs are of no concern here.
#include "ptx.cuh"

// Asynchronous copies of every size, zero fill, and waits that leave later groups under way.
//
//   from  [128][16] bytes
//   to    [128][16], then [128][8], then [128][4]: the first bytes of each row of `from`; zeros for
//         rows at or past `valid`
//
// Grid 1, block 128, 28 bytes of shared memory per thread.
extern "C" __global__ void ptx_cp_async(const unsigned char* from, unsigned char* to,
                                        unsigned valid) {
  begin_kernel();
  DYN_SMEM(wide);
  unsigned char* middle = wide + 128 * 16;
  unsigned char* narrow = middle + 128 * 8;
  unsigned thread = threadIdx.x;
  bool pred = thread < valid;
  for (int i = 0; i < 16; i++) wide[thread * 16 + i] = 0xaa;
  for (int i = 0; i < 8; i++) middle[thread * 8 + i] = 0xbb;
  for (int i = 0; i < 4; i++) narrow[thread * 4 + i] = 0xcc;

  const unsigned char* row = from + (pred ? thread * 16 : 0);
  cp_async16(smem_u32(wide + thread * 16), row, pred);
  cp_async_commit();
  cp_async8(smem_u32(middle + thread * 8), row, pred);
  cp_async_commit();
  cp_async4(smem_u32(narrow + thread * 4), row, pred);

  cp_async_wait<1>();
  for (int i = 0; i < 16; i++) to[thread * 16 + i] = wide[thread * 16 + i];
  cp_async_wait<0>();
  to += 128 * 16;
  for (int i = 0; i < 8; i++) to[thread * 8 + i] = middle[thread * 8 + i];
  cp_async_wait_all();
  // What a neighbour copied is there after a barrier.
  __syncthreads();
  to += 128 * 8;
  unsigned neighbour = thread ^ 1;
  for (int i = 0; i < 4; i++) to[neighbour * 4 + i] = narrow[neighbour * 4 + i];
}

// Fragments of every form of ldmatrix.
//
//   tiles      [4][8][8] 16-bit values
//   fragments  [32 lanes][14]: x1, x1_t, x2 (2), x2_t (2), x4 (4), x4_t (4)
//
// Grid 1, block 32, shared memory for the tiles.
extern "C" __global__ void ptx_ldmatrix(const unsigned short* tiles, unsigned* fragments) {
  begin_kernel();
  DYN_SMEM(bytes);
  unsigned short* shared = (unsigned short*)bytes;
  unsigned lane = threadIdx.x;
  for (int i = lane; i < 4 * 8 * 8; i += 32) shared[i] = tiles[i];
  __syncwarp();
  uint32_t row = smem_u32(shared + lane * 8);
  uint32_t one, two[2], four[4];
  unsigned* out = fragments + lane * 14;
  ldsm_x1(one, row);
  out[0] = one;
  ldsm_x1_t(one, row);
  out[1] = one;
  ldsm_x2(two, row);
  for (int i = 0; i < 2; i++) out[2 + i] = two[i];
  ldsm_x2_t(two, row);
  for (int i = 0; i < 2; i++) out[4 + i] = two[i];
  ldsm_x4(four, row);
  for (int i = 0; i < 4; i++) out[6 + i] = four[i];
  ldsm_x4_t(four, row);
  for (int i = 0; i < 4; i++) out[10 + i] = four[i];
}

// stsm_x4: fragments [32 lanes][4] to tiles [4][8][8].
//
// Grid 1, block 32, shared memory for the tiles.
extern "C" __global__ void ptx_stmatrix(const unsigned* fragments, unsigned short* tiles) {
  begin_kernel();
  DYN_SMEM(bytes);
  unsigned short* shared = (unsigned short*)bytes;
  unsigned lane = threadIdx.x;
  uint32_t four[4];
  for (int i = 0; i < 4; i++) four[i] = fragments[lane * 4 + i];
  // Tiles in falling order, so that the addresses of the lanes count.
  stsm_x4(smem_u32(shared + (3 - lane / 8) * 64 + lane % 8 * 8), four);
  __syncwarp();
  for (int i = lane; i < 4 * 8 * 8; i += 32) tiles[i] = shared[i];
}

typedef __nv_bfloat16 Matrix[16][16];

static __device__ void load_matrix(Matrix& to, const __nv_bfloat16* from) {
  for (int i = threadIdx.x; i < 256; i += 32) to[i / 16][i % 16] = from[i];
}

// Stores a lane's part of d [16, 8].
static __device__ void store_tile(float* to, unsigned stride, const float (&d)[4]) {
  unsigned row = threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
  to[row * stride + column] = d[0];
  to[row * stride + column + 1] = d[1];
  to[(row + 8) * stride + column] = d[2];
  to[(row + 8) * stride + column + 1] = d[3];
}

// a b + c with every way of loading the operands that ptx.cuh lists.
//
//   a [m][k], a_columns [k][m], b_rows [k][n], b_columns [n][k]   all 16 x 16, bf16
//   c [16][16]
//   d [2][4][16][16]: by the way of a (ldsm_x4, ldsm_x4_t) and that of b (ldsm_x2, ldsm_x2_t,
//     ldsm_x4, ldsm_x4_t)
//
// Grid 1, block 32, shared memory for the operands.
extern "C" __global__ void ptx_mma(const __nv_bfloat16* a, const __nv_bfloat16* a_columns,
                                   const __nv_bfloat16* b_rows, const __nv_bfloat16* b_columns,
                                   const float* c, float* d) {
  begin_kernel();
  DYN_SMEM(bytes);
  Matrix* shared = (Matrix*)bytes;
  unsigned lane = threadIdx.x;
  load_matrix(shared[0], a);
  load_matrix(shared[1], a_columns);
  load_matrix(shared[2], b_rows);
  load_matrix(shared[3], b_columns);
  __syncwarp();

  uint32_t left[2][4], right[4][4];
  ldsm_x4(left[0], smem_u32(&shared[0][lane % 16][lane / 16 * 8]));
  ldsm_x4_t(left[1], smem_u32(&shared[1][lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8]));
  for (int tile = 0; tile < 2; tile++) {
    uint32_t pair[2];
    ldsm_x2(pair, smem_u32(&shared[3][tile * 8 + lane % 8][lane / 8 % 2 * 8]));
    right[0][tile * 2] = pair[0];
    right[0][tile * 2 + 1] = pair[1];
    ldsm_x2_t(pair, smem_u32(&shared[2][lane % 16][tile * 8]));
    right[1][tile * 2] = pair[0];
    right[1][tile * 2 + 1] = pair[1];
  }
  ldsm_x4(right[2], smem_u32(&shared[3][lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8]));
  ldsm_x4_t(right[3], smem_u32(&shared[2][lane % 16][lane / 16 * 8]));

  for (int way = 0; way < 8; way++) {
    for (int tile = 0; tile < 2; tile++) {
      unsigned row = lane / 4, column = tile * 8 + lane % 4 * 2;
      float sum[4] = {c[row * 16 + column], c[row * 16 + column + 1], c[(row + 8) * 16 + column],
                      c[(row + 8) * 16 + column + 1]};
      mma_bf16(sum, left[way / 4], right[way % 4][tile * 2], right[way % 4][tile * 2 + 1]);
      store_tile(d + way * 256 + tile * 8, 16, sum);
    }
  }
}

// (a b) b, the first product handed on in registers as bf16.
//
//   a [m][k], b_rows [k][n]   16 x 16, bf16
//   d [16][16]
//
// Grid 1, block 32, shared memory for the operands.
extern "C" __global__ void ptx_mma_chain(const __nv_bfloat16* a, const __nv_bfloat16* b_rows,
                                         float* d) {
  begin_kernel();
  DYN_SMEM(bytes);
  Matrix* shared = (Matrix*)bytes;
  unsigned lane = threadIdx.x;
  load_matrix(shared[0], a);
  load_matrix(shared[1], b_rows);
  __syncwarp();
  uint32_t left[4], right[4];
  ldsm_x4(left, smem_u32(&shared[0][lane % 16][lane / 16 * 8]));
  ldsm_x4_t(right, smem_u32(&shared[1][lane % 16][lane / 16 * 8]));
  float first[2][4] = {}, second[2][4] = {};
  for (int tile = 0; tile < 2; tile++)
    mma_bf16(first[tile], left, right[tile * 2], right[tile * 2 + 1]);
  uint32_t middle[4] = {pack_bf16(first[0][0], first[0][1]), pack_bf16(first[0][2], first[0][3]),
                        pack_bf16(first[1][0], first[1][1]), pack_bf16(first[1][2], first[1][3])};
  for (int tile = 0; tile < 2; tile++) {
    mma_bf16(second[tile], middle, right[tile * 2], right[tile * 2 + 1]);
    store_tile(d + tile * 8, 16, second[tile]);
  }
}

// pack_bf16, bf16_low, bf16_high and ex2.
//
//   x         [2 pairs]
//   packed    [pairs]: elements 2 i and 2 i + 1 of x
//   unpacked  [2 pairs]
//   powers    [2 pairs]: 2^x
//
// Grid of blocks of 128 that cover the pairs.
extern "C" __global__ void ptx_numbers(const float* x, unsigned pairs, unsigned* packed,
                                       float* unpacked, float* powers) {
  begin_kernel();
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= pairs) return;
  uint32_t pair = pack_bf16(x[2 * i], x[2 * i + 1]);
  packed[i] = pair;
  unpacked[2 * i] = bf16_low(pair);
  unpacked[2 * i + 1] = bf16_high(pair);
  powers[2 * i] = ex2(x[2 * i]);
  powers[2 * i + 1] = ex2(x[2 * i + 1]);
}

// load_stream16 and store_stream16: copies `rows` rows of 16 bytes.
//
// Grid of blocks of 128 that cover the rows.
extern "C" __global__ void ptx_stream_copy(const unsigned char* from, unsigned char* to,
                                           unsigned rows) {
  begin_kernel();
  size_t row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row < rows) store_stream16(to + row * 16, load_stream16(from + row * 16));
}

// Named barriers: the first warp hands `rounds` rows of 32 values to the second through one shared
// row; barrier 1 says that it is full, barrier 2 that it is empty. A third warp takes no part.
//
//   values  [rounds][32]
//   copied  [rounds][32]
//
// Grid 1, block 96, shared memory for the row.
extern "C" __global__ void ptx_named_barriers(const unsigned* values, unsigned* copied,
                                              unsigned rounds) {
  begin_kernel();
  DYN_SMEM(bytes);
  unsigned* row = (unsigned*)bytes;
  unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (unsigned round = 0; round < rounds; round++) {
    if (warp == 0) {
      if (round > 0) bar_sync(2, 64);
      row[lane] = values[round * 32 + lane];
      bar_arrive(1, 64);
    } else if (warp == 1) {
      bar_sync(1, 64);
      // Another lane's value: the barrier orders the whole row.
      copied[round * 32 + (lane ^ 31)] = row[lane ^ 31];
      if (round + 1 < rounds) bar_arrive(2, 64);
    }
  }
}

// Barriers in shared memory: as above, through two rows in turn.
//
// Grid 1, block 64, shared memory for two rows and four barriers.
extern "C" __global__ void ptx_mbarrier(const unsigned* values, unsigned* copied,
                                        unsigned rounds) {
  begin_kernel();
  DYN_SMEM(bytes);
  unsigned* rows = (unsigned*)bytes;
  uint32_t full = smem_u32(bytes + 2 * 32 * 4), empty = full + 2 * 8;
  unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x < 4) mbar_init(full + threadIdx.x * 8, 32);
  __syncthreads();
  for (unsigned round = 0; round < rounds; round++) {
    unsigned slot = round % 2, phase = round / 2;
    if (warp == 0) {
      // The phase before the first is over from the start.
      mbar_wait(empty + slot * 8, (phase + 1) % 2);
      rows[slot * 32 + lane] = values[round * 32 + lane];
      mbar_arrive(full + slot * 8);
    } else {
      mbar_wait(full + slot * 8, phase % 2);
      copied[round * 32 + (lane ^ 31)] = rows[slot * 32 + (lane ^ 31)];
      mbar_arrive(empty + slot * 8);
    }
  }
}
