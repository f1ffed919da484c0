// Cross-attention of a decoder by units of 64 beams, one head and 256 keys: the core of
// beam_attention.cu, which says what the arrays are, and of the persistent decoder.
//
// Units of the same beams and head leave their running maximum, sum and values; the one that ends
// last joins them from the first chunk up. So the split and the order depend on the request's
// number of keys alone.
#pragma once

#include "flash.cuh"

constexpr unsigned CHUNK_KEYS = 256;

// What one thread has of a block's rows: out[0 ..], then max and sum.
template <int HEAD>
constexpr int PARTIAL_WORDS = HEAD / 8 + 1;

template <int HEAD>
PTX_FN float4* partial_at(float4* partials, size_t unit, unsigned chunks, unsigned chunk) {
  return partials + (unit * chunks + chunk) * PARTIAL_WORDS<HEAD> * FLASH_THREADS + flash_thread();
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

// Whether these warps are the last of `count` to arrive at `counter`; then they see what the others
// wrote. `last` is a word of their shared memory.
template <class Warps>
PTX_FN bool arrives_last(Warps warps, unsigned* last, unsigned* counter, unsigned count) {
  warps.sync();
  if (flash_thread() == 0) {
    __threadfence();  // after the barrier: it speaks for all that the warps wrote
    *last = atomicAdd(counter, 1) == count - 1;
    if (*last) atomicExch(counter, 0);
    __threadfence();
  }
  warps.sync();
  return *last;
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

struct BeamAttention {
  const __nv_bfloat16 *q, *kv;
  const unsigned* offsets;
  float4* partials;
  unsigned* counters;
  __nv_bfloat16* out;
  unsigned beams, heads, kv_stride, chunks;
};

// Which 64 beams, head and 256 keys.
struct BeamUnit {
  unsigned request, head, tile, chunk;
};

// By four warps, whose `smem` holds FLASH_BYTES<HEAD>, and `last` a word.
template <int HEAD, class Warps>
PTX_FN void beam_attention(Warps warps, uint32_t smem, unsigned* last, const BeamAttention& all,
                           BeamUnit at) {
  const unsigned first = all.offsets[at.request], keys = all.offsets[at.request + 1] - first;
  const unsigned own_chunks = (keys + CHUNK_KEYS - 1) / CHUNK_KEYS;
  if (at.chunk >= own_chunks) return;
  const unsigned row0 = at.tile * FLASH_ROWS, tiles = (all.beams + FLASH_ROWS - 1) / FLASH_ROWS;
  const size_t d = (size_t)all.heads * HEAD;
  const size_t rows = (size_t)at.request * all.beams * d + at.head * HEAD;
  const unsigned start = at.chunk * CHUNK_KEYS;
  const __nv_bfloat16* k = all.kv + (size_t)(first + start) * all.kv_stride + at.head * HEAD;

  Flash<HEAD> flash;
  flash.run(warps, smem, all.q + rows, d, row0, all.beams, k, k + d, all.kv_stride,
            min(keys - start, CHUNK_KEYS));
  flash.join_sums();
  if (own_chunks > 1) {
    const size_t unit = ((size_t)at.request * all.heads + at.head) * tiles + at.tile;
    write_partial(partial_at<HEAD>(all.partials, unit, all.chunks, at.chunk), flash);
    if (!arrives_last(warps, last, all.counters + unit, own_chunks)) return;
    join_partials(partial_at<HEAD>(all.partials, unit, all.chunks, 0), own_chunks, flash);
  }
  flash.store(all.out + rows, d, row0, all.beams);
}
