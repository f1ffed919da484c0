// Cross-attention of a decoder: every beam of a request attends to all of the request's encoder
// rows.
//
//   q         bf16 [requests * beams, d], d = heads * HEAD, aligned to 16 bytes: `beams` rows for
//             each request
//   kv        bf16: row r has d keys from kv + r * kv_stride on and d values after them; kv_stride
//             a multiple of 8
//   offsets   u32 [requests + 1]: request i has rows [offsets[i], offsets[i + 1]) of kv, at least
//             one
//   partials  f32 [units][chunks][HEAD / 8 + 1][128][4], units = requests * heads * ceil(beams /
//             64): scratch
//   counters  u32 [units]: zeros before the first launch, and again after each
//   out       bf16 [requests * beams, d], aligned to 4 bytes
//
// Grid (ceil(beams / 64) * chunks, heads, requests), 128 threads, 5 * 128 * HEAD bytes of dynamic
// shared memory, with chunks = ceil(most keys of a request / 256). The kernel's name ends in HEAD.
//
// A block has 64 beams, one head and 256 keys of one request. Blocks of a unit write their running
// maximum, sum and values; the one that ends last joins them from the first chunk up. So the split
// and the order depend on the request's number of keys alone, not on the batch, and there is one
// launch. Rows past a request's beams may hold anything: rows do not meet. FLOP 4 beams n d per
// request; bytes: 4 n d of keys and values per 64 beams, so 64 FLOP a byte at most, and 512 HEAD +
// 2048 per block for the partial sums.
#include "flash.cuh"

constexpr unsigned CHUNK_KEYS = 256;

// What one thread has of a block's rows: out[0 ..], then max and sum.
template <int HEAD>
constexpr int PARTIAL_WORDS = HEAD / 8 + 1;

template <int HEAD>
PTX_FN float4* partial_at(float4* partials, size_t unit, unsigned chunks, unsigned chunk) {
  return partials + (unit * chunks + chunk) * PARTIAL_WORDS<HEAD> * FLASH_THREADS + threadIdx.x;
}

template <int HEAD>
PTX_FN void write_partial(float4* to, const Flash<HEAD>& flash) {
#pragma unroll
  for (int j = 0; j < HEAD / 8; j++) {
    const float* out = flash.out[j];
    to[j * FLASH_THREADS] = make_float4(out[0], out[1], out[2], out[3]);
  }
  to[HEAD / 8 * FLASH_THREADS] =
      make_float4(flash.max[0], flash.max[1], flash.sum[0], flash.sum[1]);
}

// Whether this block is the last of `count` to arrive at `counter`; then it sees what the others
// wrote.
PTX_FN bool arrives_last(unsigned* counter, unsigned count) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(counter, 1) == count - 1;
    if (last) atomicExch(counter, 0);
  }
  __syncthreads();
  __threadfence();
  return last;
}

template <int HEAD>
PTX_FN void join_partials(const float4* from, unsigned count, Flash<HEAD>& flash) {
  constexpr int WORDS = PARTIAL_WORDS<HEAD>;
  const float4* edge = from + HEAD / 8 * FLASH_THREADS;
  flash = Flash<HEAD>();
  for (unsigned chunk = 0; chunk < count; chunk++) {
    const float4 of = __ldcg(edge + chunk * WORDS * FLASH_THREADS);
    flash.max[0] = fmaxf(flash.max[0], of.x);
    flash.max[1] = fmaxf(flash.max[1], of.y);
  }
  for (unsigned chunk = 0; chunk < count; chunk++) {
    const float4 of = __ldcg(edge + chunk * WORDS * FLASH_THREADS);
    const float first = ex2(of.x - softmax_base(flash.max[0]));
    const float second = ex2(of.y - softmax_base(flash.max[1]));
    flash.sum[0] = fmaf(of.z, first, flash.sum[0]);
    flash.sum[1] = fmaf(of.w, second, flash.sum[1]);
#pragma unroll
    for (int j = 0; j < HEAD / 8; j++) {
      const float4 out = __ldcg(from + (chunk * WORDS + j) * FLASH_THREADS);
      flash.out[j][0] = fmaf(out.x, first, flash.out[j][0]);
      flash.out[j][1] = fmaf(out.y, first, flash.out[j][1]);
      flash.out[j][2] = fmaf(out.z, second, flash.out[j][2]);
      flash.out[j][3] = fmaf(out.w, second, flash.out[j][3]);
    }
  }
}

template <int HEAD>
PTX_FN void beam_attention(const __nv_bfloat16* q, const __nv_bfloat16* kv, const unsigned* offsets,
                           float4* partials, unsigned* counters, __nv_bfloat16* out, unsigned beams,
                           unsigned kv_stride, unsigned chunks) {
  const unsigned request = blockIdx.z, head = blockIdx.y;
  const unsigned tile = blockIdx.x / chunks, chunk = blockIdx.x % chunks;
  const unsigned first = offsets[request], keys = offsets[request + 1] - first;
  const unsigned own_chunks = (keys + CHUNK_KEYS - 1) / CHUNK_KEYS;
  if (chunk >= own_chunks) return;
  const unsigned heads = gridDim.y, tiles = gridDim.x / chunks, row0 = tile * FLASH_ROWS;
  const size_t d = (size_t)heads * HEAD, rows = (size_t)request * beams * d + head * HEAD;
  const unsigned start = chunk * CHUNK_KEYS;
  const __nv_bfloat16* k = kv + (size_t)(first + start) * kv_stride + head * HEAD;

  DYN_SMEM(smem);
  Flash<HEAD> flash;
  flash.run(smem_u32(smem), q + rows, d, row0, beams, k, k + d, kv_stride,
            min(keys - start, CHUNK_KEYS));
  flash.join_sums();
  if (own_chunks > 1) {
    const size_t unit = ((size_t)request * heads + head) * tiles + tile;
    write_partial(partial_at<HEAD>(partials, unit, chunks, chunk), flash);
    if (!arrives_last(counters + unit, own_chunks)) return;
    join_partials(partial_at<HEAD>(partials, unit, chunks, 0), own_chunks, flash);
  }
  flash.store(out + rows, d, row0, beams);
}

extern "C" __global__ void __launch_bounds__(FLASH_THREADS)
    beam_attention_32(const __nv_bfloat16* __restrict__ q, const __nv_bfloat16* __restrict__ kv,
                      const unsigned* __restrict__ offsets, float* partials, unsigned* counters,
                      __nv_bfloat16* __restrict__ out, unsigned beams, unsigned kv_stride,
                      unsigned chunks) {
  begin_kernel();
  beam_attention<32>(q, kv, offsets, reinterpret_cast<float4*>(partials), counters, out, beams,
                     kv_stride, chunks);
}

extern "C" __global__ void __launch_bounds__(FLASH_THREADS)
    beam_attention_64(const __nv_bfloat16* __restrict__ q, const __nv_bfloat16* __restrict__ kv,
                      const unsigned* __restrict__ offsets, float* partials, unsigned* counters,
                      __nv_bfloat16* __restrict__ out, unsigned beams, unsigned kv_stride,
                      unsigned chunks) {
  begin_kernel();
  beam_attention<64>(q, kv, offsets, reinterpret_cast<float4*>(partials), counters, out, beams,
                     kv_stride, chunks);
}

extern "C" __global__ void __launch_bounds__(FLASH_THREADS)
    beam_attention_128(const __nv_bfloat16* __restrict__ q, const __nv_bfloat16* __restrict__ kv,
                       const unsigned* __restrict__ offsets, float* partials, unsigned* counters,
                       __nv_bfloat16* __restrict__ out, unsigned beams, unsigned kv_stride,
                       unsigned chunks) {
  begin_kernel();
  beam_attention<128>(q, kv, offsets, reinterpret_cast<float4*>(partials), counters, out, beams,
                      kv_stride, chunks);
}
