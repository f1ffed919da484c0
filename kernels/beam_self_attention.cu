// Self-attention of decoder rows over their own past, all at one position t, in a cache that is
// only appended to.
//
//   qkv        f32 [rows, 3 d], d = heads * HEAD, rows = requests * beams: the newest queries, keys
//              and values
//   keys       f32 [positions][rows][d]: positions 0 .. t - 1 are read, position t is written
//   values     the same
//   ancestors  u32 [rows][positions]: the row of its request, 0 .. beams - 1, that ran this row's
//              prefix at an earlier position; entries from t on are not read. Null: every row is
//              its own ancestor
//   newest     u32 [1]: t, in device memory so that a captured launch can be replayed for every
//              position
//   out        bf16 [rows, d]: sum over positions 0 .. t of softmax(q . k / sqrt(HEAD)) v; all
//              arrays aligned to 16 bytes
//
// Beams that share a prefix share its entries, so nothing is copied when they are reordered. A row
// takes its own newest key and value from qkv and stores them in its own slot of position t: rows
// of one launch do not meet.
//
// Grid (ceil(rows * heads / 4)), 128 threads: a warp a row and head; the kernel's name ends in
// HEAD. Bytes 8 (t + 1) d per row, mostly from L2 as beams share them; FLOP 4 (t + 1) d. Made for
// short pasts: tens of positions. The order of the sums: see beam_self_attention.cuh.
#include "beam_self_attention.cuh"

constexpr int SELF_WARPS = 4;

template <int HEAD>
PTX_FN void self_attention_block(const float* qkv, float* keys, float* values,
                                 const unsigned* ancestors, const unsigned* newest,
                                 __nv_bfloat16* out, unsigned rows, unsigned heads, unsigned beams,
                                 unsigned positions) {
  __shared__ float4 queries[SELF_WARPS][HEAD / 4];
  const unsigned warp = threadIdx.x >> 5;
  beam_self_attention<HEAD>(blockIdx.x * SELF_WARPS + warp, queries[warp], qkv, keys, values,
                            ancestors, newest, out, rows, heads, beams, positions);
}

extern "C" __global__ void __launch_bounds__(SELF_WARPS * 32)
    beam_self_attention_32(const float* __restrict__ qkv, float* keys, float* values,
                           const unsigned* __restrict__ ancestors,
                           const unsigned* __restrict__ newest, __nv_bfloat16* __restrict__ out,
                           unsigned rows, unsigned heads, unsigned beams, unsigned positions) {
  begin_kernel();
  self_attention_block<32>(qkv, keys, values, ancestors, newest, out, rows, heads, beams,
                           positions);
}

extern "C" __global__ void __launch_bounds__(SELF_WARPS * 32)
    beam_self_attention_64(const float* __restrict__ qkv, float* keys, float* values,
                           const unsigned* __restrict__ ancestors,
                           const unsigned* __restrict__ newest, __nv_bfloat16* __restrict__ out,
                           unsigned rows, unsigned heads, unsigned beams, unsigned positions) {
  begin_kernel();
  self_attention_block<64>(qkv, keys, values, ancestors, newest, out, rows, heads, beams,
                           positions);
}

extern "C" __global__ void __launch_bounds__(SELF_WARPS * 32)
    beam_self_attention_128(const float* __restrict__ qkv, float* keys, float* values,
                            const unsigned* __restrict__ ancestors,
                            const unsigned* __restrict__ newest, __nv_bfloat16* __restrict__ out,
                            unsigned rows, unsigned heads, unsigned beams, unsigned positions) {
  begin_kernel();
  self_attention_block<128>(qkv, keys, values, ancestors, newest, out, rows, heads, beams,
                           positions);
}
