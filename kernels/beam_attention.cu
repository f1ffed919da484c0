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
#include "beam_attention.cuh"
#include "place.cuh"

template <int HEAD>
PTX_FN void beam_attention_block(const BeamAttention& all) {
  DYN_SMEM(smem);
  __shared__ unsigned last;
  const Place place = own_place();
  const BeamUnit unit{place.z, place.y, place.x / all.chunks, place.x % all.chunks};
  beam_attention<HEAD>(WholeBlock{}, smem_u32(smem), &last, all, unit);
}

extern "C" __global__ void __launch_bounds__(FLASH_THREADS)
    beam_attention_32(const __nv_bfloat16* __restrict__ q, const __nv_bfloat16* __restrict__ kv,
                      const unsigned* __restrict__ offsets, float* partials, unsigned* counters,
                      __nv_bfloat16* __restrict__ out, unsigned beams, unsigned kv_stride,
                      unsigned chunks) {
  begin_kernel();
  beam_attention_block<32>({q, kv, offsets, reinterpret_cast<float4*>(partials), counters, out,
                            beams, gridDim.y, kv_stride, chunks});
}

extern "C" __global__ void __launch_bounds__(FLASH_THREADS)
    beam_attention_64(const __nv_bfloat16* __restrict__ q, const __nv_bfloat16* __restrict__ kv,
                      const unsigned* __restrict__ offsets, float* partials, unsigned* counters,
                      __nv_bfloat16* __restrict__ out, unsigned beams, unsigned kv_stride,
                      unsigned chunks) {
  begin_kernel();
  beam_attention_block<64>({q, kv, offsets, reinterpret_cast<float4*>(partials), counters, out,
                            beams, gridDim.y, kv_stride, chunks});
}

extern "C" __global__ void __launch_bounds__(FLASH_THREADS)
    beam_attention_128(const __nv_bfloat16* __restrict__ q, const __nv_bfloat16* __restrict__ kv,
                       const unsigned* __restrict__ offsets, float* partials, unsigned* counters,
                       __nv_bfloat16* __restrict__ out, unsigned beams, unsigned kv_stride,
                       unsigned chunks) {
  begin_kernel();
  beam_attention_block<128>({q, kv, offsets, reinterpret_cast<float4*>(partials), counters, out,
                            beams, gridDim.y, kv_stride, chunks});
}
