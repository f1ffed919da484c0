// attention.cu for heads of 64 by Hopper's own instructions: bulk copies, wgmma, and two warpgroups
// of which one computes exponentials while the other's products run. It is off: it has run in the
// emulator alone, never on a card, and attention.cu serves.
//
//   qkv      by a tensor map of bf16 [T, 3 d], d = heads * 64, queries, keys, values side by side,
//            with boxes of 128 rows of 64, swizzled by 128 bytes
//   offsets  u32 [requests + 1], from 0 up to T: request i has rows [offsets[i], offsets[i + 1])
//   out      bf16 [T, d], aligned to 4 bytes: sum over keys of softmax(q . k / 8) v, head after
//            head
//
// Grid (ceil(longest request / 128), heads, requests), 384 threads, SMEM_BYTES of dynamic shared
// memory. A block has 128 rows of a head of a request; blocks past a request's rows return at once.
//
// One warp of the last warpgroup fills a ring of eight stages of 16 KiB: the keys and the values of
// the request, 128 at a time, in turns. Rows past the request's end belong to the next one. Scores
// of such keys become -infinity; such values are overwritten by zeros before anyone is shown them,
// for a weight of 0 would not undo a NaN.
//
// Two warpgroups have 64 rows each: scores by wgmma.m64n128k16 of queries and keys in shared
// memory, softmax as in flash.cuh, but over 128 keys at a time, then wgmma.m64n64k16 of the weights
// in registers, rounded to bf16, and the values. They issue products in turns: those of the next
// tile's scores and of this tile's values together. What a warpgroup does between its turns, the
// softmax, runs while the products are of the other.
//
// A row's result depends on its query and on the request's keys in their order, tile by tile from
// the first: on nothing else. Sums are made in another order than attention.cu's.
//
// FLOP 4 n^2 d per request of n rows. Bytes from L2: 4 n d ceil(n / 128), so 128 FLOP a byte.
// Registers: 168 a thread at launch; then 24 for the producer, 240 for the two others.
#include "flash_hopper.cuh"

constexpr int HEAD = 64, ROWS = 128, KEYS = 128, STAGES = 8;
constexpr int GROUP = 128, CONSUMERS = 2 * GROUP, THREADS = CONSUMERS + GROUP;
constexpr uint32_t ROW_BYTES = HEAD * 2, TILE_BYTES = 128 * ROW_BYTES;
constexpr uint32_t SMEM_BYTES = (1 + STAGES) * TILE_BYTES + (2 + 2 * STAGES) * 8;
static_assert(SMEM_BYTES == 147600, "what launches give");
static_assert(ROWS == KEYS, "one tensor map serves queries, keys and values");

#ifdef HOPPER

// Shared memory: the queries, the ring, the mbarriers. Chunk 2 i of the ring is tile i of the keys,
// chunk 2 i + 1 of the values.
struct Smem {
  uint32_t base;

  PTX_FN uint32_t queries() const { return base; }
  PTX_FN uint32_t chunk(int chunk) const { return base + (1 + chunk % STAGES) * TILE_BYTES; }
  PTX_FN uint32_t queries_full() const { return base + (1 + STAGES) * TILE_BYTES; }
  // Of the last values, before what is not the request's is overwritten.
  PTX_FN uint32_t copied() const { return queries_full() + 8; }
  PTX_FN uint32_t full(int chunk) const { return copied() + 8 + chunk % STAGES * 8; }
  PTX_FN uint32_t empty(int chunk) const { return full(chunk) + STAGES * 8; }
  // Of the phase in which a chunk's stage is full of it.
  PTX_FN static uint32_t parity(int chunk) { return chunk / STAGES & 1; }

  // By one thread; __syncthreads must follow.
  PTX_FN void init() const {
    mbar_init(queries_full(), 1);
    mbar_init(copied(), 1);
    for (int stage = 0; stage < STAGES; stage++) {
      mbar_init(full(stage), 1);
      mbar_init(empty(stage), CONSUMERS / 32);
    }
    mbar_init_fence();
  }
};

// A block's part: rows [row0, row0 + 128) of a head of the request with rows [first, first + rows).
struct Part {
  unsigned first, rows, row0, head, d;

  PTX_FN int tiles() const { return (rows + KEYS - 1) / KEYS; }
  // Keys of the last tile.
  PTX_FN int rest() const { return rows - (tiles() - 1) * KEYS; }
};

// ---- The producer, one warp

// By one thread: starts the copy of a chunk as soon as its stage is empty, to count on `barrier`.
PTX_FN void load(Smem smem, const TensorMap* qkv, const Part& part, int chunk, uint32_t barrier) {
  mbar_wait(smem.empty(chunk), Smem::parity(chunk) ^ 1);  // the first round is empty at once
  mbar_arrive_expect(barrier, TILE_BYTES);
  const int column = (1 + chunk % 2) * part.d + part.head * HEAD;
  bulk_load_2d(smem.chunk(chunk), qkv, column, part.first + chunk / 2 * KEYS, barrier);
}

// Warp-wide: overwrites rows [from, 128) of a tile by zeros, for bulk readers to see.
PTX_FN void clear(unsigned char* tile, int from) {
  for (int at = from * ROW_BYTES + threadIdx.x % 32 * 16; at < TILE_BYTES; at += 32 * 16) {
    *reinterpret_cast<uint4*>(tile + at) = uint4{};
  }
  fence_async();
  __syncwarp();
}

PTX_FN void produce(unsigned char* memory, Smem smem, const TensorMap* qkv, const Part& part) {
  const int last = 2 * part.tiles() - 1;
  const bool whole = part.rest() == KEYS;
  if (threadIdx.x % 32 == 0) {
    mbar_arrive_expect(smem.queries_full(), TILE_BYTES);
    bulk_load_2d(smem.queries(), qkv, part.head * HEAD, part.first + part.row0,
                 smem.queries_full());
    for (int chunk = 0; chunk < last; chunk++) load(smem, qkv, part, chunk, smem.full(chunk));
    load(smem, qkv, part, last, whole ? smem.full(last) : smem.copied());
  }
  if (whole) return;
  __syncwarp();
  mbar_wait(smem.copied(), 0);
  clear(memory + (smem.chunk(last) - smem.base), part.rest());
  if (threadIdx.x % 32 == 0) mbar_arrive(smem.full(last));
}

// ---- The consumers, two warpgroups

// Barriers 1 and 2 are the turns of the first and of the second.
PTX_FN void take_turn(int group) { bar_sync(1 + group, CONSUMERS); }
PTX_FN void pass_turn(int group) { bar_arrive(2 - group, CONSUMERS); }

// Says that this warp is done with a chunk.
PTX_FN void release(Smem smem, int chunk) {
  if (threadIdx.x % 32 == 0) mbar_arrive(smem.empty(chunk));
}

// Issues scores = queries keys^T.
PTX_FN void score(float (&scores)[KEYS / 2], uint32_t queries, uint32_t keys) {
#pragma unroll
  for (int step = 0; step < HEAD / 16; step++) {
    wgmma(scores, operand(queries + step * 32), operand(keys + step * 32), step > 0);
  }
  wgmma_commit();
}

// Issues out += weights values.
PTX_FN void add_values(float (&out)[HEAD / 2], const uint32_t (&weights)[KEYS / 16][4],
                       uint32_t values) {
#pragma unroll
  for (int step = 0; step < KEYS / 16; step++) {
    wgmma<true>(out, weights[step], operand(values + step * 16 * ROW_BYTES), true);
  }
  wgmma_commit();
}

PTX_FN void store(const float (&out)[HEAD / 2], const float (&sum)[2], __nv_bfloat16* to,
                  const Part& part) {
  const unsigned row0 = part.row0 + (threadIdx.x >> 5) * 16 + (threadIdx.x >> 2) % 8;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const unsigned row = row0 + r * 8;
    if (row >= part.rows) continue;
    const float share = 1.0f / sum[r];
    __nv_bfloat16* at = to + (size_t)(part.first + row) * part.d + part.head * HEAD;
#pragma unroll
    for (int j = 0; j < HEAD / 8; j++) {
      *reinterpret_cast<uint32_t*>(at + j * 8 + threadIdx.x % 4 * 2) =
          pack_bf16(out[4 * j + 2 * r] * share, out[4 * j + 2 * r + 1] * share);
    }
  }
}

// A lane's part of a warpgroup's work: what it has of wgmma's d and a.
struct Consumer {
  Smem smem;
  Part part;
  int group = threadIdx.x / GROUP;
  uint32_t queries = smem.queries() + group * 64 * ROW_BYTES;
  float scores[KEYS / 2], out[HEAD / 2] = {};
  uint32_t weights[KEYS / 16][4];
  Softmax softmax = {};

  PTX_FN void run(__nv_bfloat16* to) {
    if (group == 1) pass_turn(group);  // the other begins
    begin();
    for (int tile = 1; tile < part.tiles(); tile++) next(tile);
    end();
    softmax.join_sums();
    store(out, softmax.sum, to, part);
  }

 private:
  // The first tile's weights.
  PTX_FN void begin() {
    mbar_wait(smem.queries_full(), 0);
    mbar_wait(smem.full(0), 0);
    take_turn(group);
    wgmma_fence();
    score(scores, queries, smem.chunk(0));
    pass_turn(group);
    wgmma_wait<0>();
    wgmma_settle(scores);
    release(smem, 0);
    weigh(0);
    round(weights, scores);
  }

  // The values of the tile before, and this tile's weights.
  PTX_FN void next(int tile) {
    const int keys = 2 * tile, values = keys - 1;
    mbar_wait(smem.full(keys), Smem::parity(keys));
    take_turn(group);
    settle();
    wgmma_fence();
    score(scores, queries, smem.chunk(keys));
    add_values(out, weights, smem.chunk(values));
    pass_turn(group);
    wgmma_wait<1>();
    wgmma_settle(scores);
    release(smem, keys);
    weigh(tile);
    wgmma_wait<0>();
    wgmma_settle(out);
    release(smem, values);
#pragma unroll
    for (int i = 0; i < HEAD / 2; i++) out[i] *= softmax.shrink[i / 2 % 2];
    round(weights, scores);
  }

  // The last tile's values.
  PTX_FN void end() {
    take_turn(group);
    settle();
    wgmma_fence();
    add_values(out, weights, smem.chunk(2 * part.tiles() - 1));
    if (group == 0) pass_turn(group);  // the other has the last turn
    wgmma_wait<0>();
    wgmma_settle(out);
  }

  // A tile's scores to weights. Its values are waited for here, where they are not needed yet: the
  // loop in between keeps the compiler from moving exponentials behind the wait for the products.
  PTX_FN void weigh(int tile) {
    const int values = 2 * tile + 1;
    if (tile == part.tiles() - 1) mask(scores, part.rest());
    softmax.weigh(scores);
    wgmma_settle(scores);
    mbar_wait(smem.full(values), Smem::parity(values));
  }

  PTX_FN void settle() {
    wgmma_settle(out);
    wgmma_settle(weights);
  }
};

PTX_FN void attention(const TensorMap* qkv, const unsigned* offsets, __nv_bfloat16* out) {
  const unsigned first = offsets[blockIdx.z], rows = offsets[blockIdx.z + 1] - first;
  const Part part{first, rows, blockIdx.x * ROWS, blockIdx.y, gridDim.y * HEAD};
  if (part.row0 >= rows) return;
  DYN_SMEM(memory);
  const Smem smem{smem_u32(memory)};
  if (threadIdx.x == 0) smem.init();
  __syncthreads();
  if (threadIdx.x < CONSUMERS) {
    take_registers<240>();
    Consumer{smem, part}.run(out);
  } else {
    give_registers<24>();
    if (threadIdx.x < CONSUMERS + 32) produce(memory, smem, qkv, part);
  }
}

#else

// For other GPUs: the file loads there like any, and stops if it is launched.
PTX_FN void attention(const TensorMap*, const unsigned*, __nv_bfloat16*) { __trap(); }

#endif  // HOPPER

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    attention_hopper_64(const __grid_constant__ TensorMap qkv,
                        const unsigned* __restrict__ offsets, __nv_bfloat16* __restrict__ out) {
  begin_kernel();
  attention(&qkv, offsets, out);
}
