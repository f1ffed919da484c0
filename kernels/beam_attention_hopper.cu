// beam_attention.cu for heads of 64 by Hopper's own instructions: the blocks of a cluster share the
// keys of a request and join their sums through shared memory, within the launch. It has run in the
// emulator alone, never on a card.
//
//   q        by a tensor map of bf16 [requests * beams, d], d = heads * 64, with boxes of 64 rows
//            of 64, swizzled by 128 bytes: `beams` rows for each request
//   kv       by a tensor map of bf16 [T, 2 d] with such boxes: d keys and d values in a row
//   offsets  u32 [requests + 1], up to T: request i has rows [offsets[i], offsets[i + 1]) of kv
//   out      bf16 [requests * beams, d], aligned to 4 bytes; zeros where there are no keys
//
// Where no request has keys the maps are not looked at.
//
// Grid (ceil(beams / 64) * C, heads, requests) in clusters of C = 1, 2, 4 or 8 blocks along x, 128
// threads, FIXED_BYTES + 8 / C * PART_BYTES of dynamic shared memory.
//
// A cluster has 64 beams of one request and head: the rows of one wgmma. The request's tiles of 64
// keys are cut into eight parts of equal length, or of two lengths that differ by one, and a block
// has 8 / C parts that follow one another. One thread of it fills a ring of four stages, keys and
// values of a tile each, by bulk copies. Scores are wgmma.m64n64k16 of queries and keys in shared
// memory; weights, rounded to bf16, stay in registers for the product with the values. Rows past
// the request's last belong to another: such scores become -infinity, such values zeros, for a
// weight of 0 would not undo a NaN.
//
// What a part comes to, maximum, sum and values, is left in its block's shared memory. Behind a
// barrier of the cluster each block joins 64 / C rows of all parts, the first part first. So
// neither the cut nor the order depends on the batch, or on C: how large a cluster is decides about
// time alone. The product sums in an order of its own: the bits are not those of beam_attention.cu.
//
// FLOP 4 beams n d per request of n keys. Bytes: 4 n d of keys and values per 64 beams, so 64 FLOP
// a byte at most; of shared memory 18 KiB written and read per part. Registers: 100 a thread.
#include "flash_hopper.cuh"

constexpr int HEAD = 64, STAGES = 4, THREADS = 128;
constexpr uint32_t ROW_BYTES = HEAD * 2, TILE_BYTES = 64 * ROW_BYTES;
constexpr uint32_t BARRIERS_AT = (1 + 2 * STAGES) * TILE_BYTES;
constexpr uint32_t FIXED_BYTES = BARRIERS_AT + 2 * STAGES * 8;
// What one thread has of a part: WORDS words of out, then maxima and sums.
constexpr unsigned WORDS = HEAD / 8;
constexpr uint32_t PART_BYTES = (WORDS + 1) * THREADS * sizeof(float4);
static_assert(FIXED_BYTES == 73792 && PART_BYTES == 18432, "what launches give");

#ifdef HOPPER

constexpr int ROWS = 64, KEYS = 64;
constexpr unsigned PARTS = 8;

// Shared memory: the queries, the ring, its mbarriers, and what the block's parts come to. Chunk i
// of the ring is the block's tile i.
struct Smem {
  unsigned char* memory;
  uint32_t base;

  PTX_FN uint32_t queries() const { return base; }
  PTX_FN uint32_t keys(int chunk) const { return base + (1 + chunk % STAGES * 2) * TILE_BYTES; }
  PTX_FN uint32_t values(int chunk) const { return keys(chunk) + TILE_BYTES; }
  PTX_FN uint32_t full(int chunk) const { return base + BARRIERS_AT + chunk % STAGES * 8; }
  PTX_FN uint32_t empty(int chunk) const { return full(chunk) + STAGES * 8; }
  // Of the phase in which a chunk's stage is full of it.
  PTX_FN static uint32_t parity(int chunk) { return chunk / STAGES & 1; }
  // Part `slot` of block `rank` of the cluster.
  PTX_FN const float4* part(unsigned slot, unsigned rank) const {
    return cluster_pointer(own_part(slot), rank);
  }
  PTX_FN float4* own_part(unsigned slot) const {
    return reinterpret_cast<float4*>(memory + FIXED_BYTES + slot * PART_BYTES);
  }

  // By one thread; __syncthreads must follow.
  PTX_FN void init() const {
    for (int stage = 0; stage < STAGES; stage++) {
      mbar_init(full(stage), 1);
      mbar_init(empty(stage), THREADS / 32);
    }
    mbar_init_fence();
  }
};

// What a cluster works on: 64 rows of q from `query` on and keys [first, first + keys) of a head.
struct Unit {
  unsigned query, first, keys, column, d;

  PTX_FN unsigned tiles() const { return (keys + KEYS - 1) / KEYS; }
  // The first tile of a part.
  PTX_FN unsigned start(unsigned part) const { return tiles() * part / PARTS; }
  PTX_FN bool has(unsigned part) const { return start(part) < start(part + 1); }
};

// By one thread: starts the copy of a tile, with the queries before the first.
PTX_FN void load(const Smem& smem, const TensorMap* q, const TensorMap* kv, const Unit& unit,
                 int chunk, unsigned tile) {
  const uint32_t full = smem.full(chunk);
  mbar_arrive_expect(full, (chunk == 0 ? 3 : 2) * TILE_BYTES);
  if (chunk == 0) bulk_load_2d(smem.queries(), q, unit.column, unit.query, full);
  const int row = unit.first + tile * KEYS;
  bulk_load_2d(smem.keys(chunk), kv, unit.column, row, full);
  bulk_load_2d(smem.values(chunk), kv, unit.d + unit.column, row, full);
}

// By all threads: overwrites rows [from, 64) of a tile by zeros, for wgmma to see.
PTX_FN void clear(unsigned char* tile, unsigned from) {
  for (uint32_t at = from * ROW_BYTES + threadIdx.x * 16; at < TILE_BYTES; at += THREADS * 16) {
    *reinterpret_cast<uint4*>(tile + at) = uint4{};
  }
  fence_async();
  __syncthreads();
}

// What a part comes to, of a lane's two rows; wgmma says which columns.
struct Sums {
  float out[HEAD / 2] = {};  // sums of weight * value
  Softmax softmax = {};

  // Attends to a tile of which the first `keys` count.
  PTX_FN void attend(const Smem& smem, int chunk, unsigned keys) {
    float scores[KEYS / 2];
    mbar_wait(smem.full(chunk), Smem::parity(chunk));
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < HEAD / 16; step++) {
      wgmma(scores, operand(smem.queries() + step * 32), operand(smem.keys(chunk) + step * 32),
            step > 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_settle(scores);
    if (keys < KEYS) {
      mask(scores, keys);
      clear(smem.memory + (smem.values(chunk) - smem.base), keys);
    }
    softmax.weigh(scores);
#pragma unroll
    for (int i = 0; i < HEAD / 2; i++) out[i] *= softmax.shrink[i / 2 % 2];
    add_values(scores, smem.values(chunk));
  }

  PTX_FN void leave(float4* part) const {
#pragma unroll
    for (unsigned word = 0; word < WORDS; word++) {
      const float* of = out + 4 * word;
      part[word * THREADS + threadIdx.x] = make_float4(of[0], of[1], of[2], of[3]);
    }
    part[WORDS * THREADS + threadIdx.x] =
        make_float4(softmax.max[0], softmax.max[1], softmax.sum[0], softmax.sum[1]);
  }

 private:
  PTX_FN void add_values(const float (&weights)[KEYS / 2], uint32_t values) {
    uint32_t rounded[KEYS / 16][4];
    round(rounded, weights);
    wgmma_settle(out);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
      wgmma<true>(out, rounded[step], operand(values + step * 16 * ROW_BYTES), true);
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_settle(out);
  }
};

// A block's parts, from the first tile to the last.
PTX_FN void attend_parts(const Smem& smem, const TensorMap* q, const TensorMap* kv,
                         const Unit& unit, unsigned first_part, unsigned parts) {
  const unsigned first = unit.start(first_part), end = unit.start(first_part + parts);
  const int chunks = end - first;
  if (threadIdx.x == 0) {
    for (int chunk = 0; chunk < min(chunks, STAGES); chunk++) {
      load(smem, q, kv, unit, chunk, first + chunk);
    }
  }
  __syncwarp();
  int chunk = 0;
  for (unsigned slot = 0; slot < parts; slot++) {
    const int part_end = unit.start(first_part + slot + 1) - first;
    if (chunk == part_end) continue;
    Sums sums;
    for (; chunk < part_end; chunk++) {
      sums.attend(smem, chunk, unit.keys - (first + chunk) * KEYS);
      if (threadIdx.x % 32 == 0) mbar_arrive(smem.empty(chunk));
      if (threadIdx.x == 0 && chunk + STAGES < chunks) {
        mbar_wait(smem.empty(chunk), Smem::parity(chunk));
        load(smem, q, kv, unit, chunk + STAGES, first + chunk + STAGES);
      }
      __syncwarp();
    }
    sums.softmax.join_sums();
    sums.leave(smem.own_part(slot));
  }
}

// What each part counts for in the rows of thread `source`, once all are relative to one maximum,
// and one over the sum of weights.
struct Join {
  float weight[PARTS][2], share[2];

  PTX_FN Join(const Smem& smem, const Unit& unit, unsigned own, unsigned source) {
    float sum[PARTS][2], max[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
#pragma unroll
    for (unsigned part = 0; part < PARTS; part++) {
      float4 edge = make_float4(-INFINITY, -INFINITY, 0, 0);
      if (unit.has(part)) edge = smem.part(part % own, part / own)[WORDS * THREADS + source];
      weight[part][0] = edge.x, weight[part][1] = edge.y;
      sum[part][0] = edge.z, sum[part][1] = edge.w;
#pragma unroll
      for (int r = 0; r < 2; r++) max[r] = fmaxf(max[r], weight[part][r]);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
#pragma unroll
      for (unsigned part = 0; part < PARTS; part++) {
        weight[part][r] = ex2(weight[part][r] - softmax_base(max[r]));
        total[r] = fmaf(sum[part][r], weight[part][r], total[r]);
      }
      share[r] = unit.keys ? 1.0f / total[r] : 0.0f;
    }
  }

  // Of all parts' word at `from`, in units of float4.
  PTX_FN float4 word(const Smem& smem, const Unit& unit, unsigned own, unsigned from) const {
    float4 sums = make_float4(0, 0, 0, 0);
#pragma unroll
    for (unsigned part = 0; part < PARTS; part++) {
      if (!unit.has(part)) continue;
      const float4 of = smem.part(part % own, part / own)[from];
      sums.x = fmaf(of.x, weight[part][0], sums.x);
      sums.y = fmaf(of.y, weight[part][0], sums.y);
      sums.z = fmaf(of.z, weight[part][1], sums.z);
      sums.w = fmaf(of.w, weight[part][1], sums.w);
    }
    return make_float4(sums.x * share[0], sums.y * share[0], sums.z * share[1], sums.w * share[1]);
  }
};

// Joins the parts in the rows that THREADS / C threads of each block have, and stores them to rows
// [0, rows) of `to`. A thread has words of one of those.
PTX_FN void join_parts(const Smem& smem, const Unit& unit, unsigned own, __nv_bfloat16* to,
                       unsigned rows) {
  const unsigned blocks = PARTS / own, sources = THREADS / blocks;
  const unsigned source = cluster_rank() * sources + threadIdx.x % sources, lane = source % 32;
  const unsigned row = source / 32 * 16 + lane / 4;
  const Join join(smem, unit, own, source);
  for (unsigned word = threadIdx.x / sources; word < WORDS; word += blocks) {
    const float4 sums = join.word(smem, unit, own, word * THREADS + source);
    __nv_bfloat16* at = to + (size_t)row * unit.d + word * 8 + lane % 4 * 2;
    if (row < rows) *reinterpret_cast<uint32_t*>(at) = pack_bf16(sums.x, sums.y);
    at += 8 * (size_t)unit.d;
    if (row + 8 < rows) *reinterpret_cast<uint32_t*>(at) = pack_bf16(sums.z, sums.w);
  }
}

PTX_FN void beam_attention(const TensorMap* q, const TensorMap* kv, const unsigned* offsets,
                           __nv_bfloat16* out, unsigned beams) {
  const unsigned blocks = cluster_blocks(), own = PARTS / blocks;
  const unsigned request = blockIdx.z, row0 = blockIdx.x / blocks * ROWS;
  const unsigned first = offsets[request], keys = offsets[request + 1] - first;
  const Unit unit{request * beams + row0, first, keys, blockIdx.y * HEAD, gridDim.y * HEAD};
  DYN_SMEM(memory);
  const Smem smem{memory, smem_u32(memory)};
  if (threadIdx.x == 0) smem.init();
  __syncthreads();
  attend_parts(smem, q, kv, unit, cluster_rank() * own, own);
  cluster_arrive();
  cluster_wait();
  __nv_bfloat16* to = out + (size_t)unit.query * unit.d + unit.column;
  join_parts(smem, unit, own, to, beams - row0);
  // No block ends while others read its parts.
  cluster_arrive();
  cluster_wait();
}

#else

// For other GPUs: the file loads there like any, and stops if it is launched.
PTX_FN void beam_attention(const TensorMap*, const TensorMap*, const unsigned*, __nv_bfloat16*,
                           unsigned) {
  __trap();
}

#endif  // HOPPER

extern "C" __global__ void __launch_bounds__(THREADS)
    beam_attention_hopper_64(const __grid_constant__ TensorMap q,
                             const __grid_constant__ TensorMap kv,
                             const unsigned* __restrict__ offsets,
                             __nv_bfloat16* __restrict__ out, unsigned beams) {
  begin_kernel();
  beam_attention(&q, &kv, offsets, out, beams);
}
