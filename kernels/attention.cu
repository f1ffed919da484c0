// Self-attention of ragged requests, without a mask: row r of a request attends to all rows of the
// request.
//
//   qkv      bf16 [T, 3 d], d = heads * HEAD: queries, keys, values side by side; aligned to 16
//            bytes
//   offsets  u32 [requests + 1], from 0 up to T: request i has rows [offsets[i], offsets[i + 1])
//   out      bf16 [T, d], aligned to 4 bytes: sum over keys of softmax(q . k / sqrt(HEAD)) v, head
//            after head
//
// Grid (ceil(longest request / 64), heads, requests), 128 threads, 5 * 128 * HEAD bytes of dynamic
// shared memory. A block has 64 rows of a head of a request; blocks past a request's rows return at
// once. The kernel's name ends in HEAD.
//
// FLOP 4 n^2 d per request of n rows. Bytes from L2: 4 n d ceil(n / 64), so 64 FLOP a byte. The
// answer for a request does not depend on what else is in the batch. On sm_90 wgmma with
// exponentials overlapped has up to twice the rate.
#include "flash.cuh"

template <int HEAD>
PTX_FN void attention(const __nv_bfloat16* qkv, const unsigned* offsets, __nv_bfloat16* out) {
  const unsigned first = offsets[blockIdx.z], rows = offsets[blockIdx.z + 1] - first;
  const unsigned row0 = blockIdx.x * FLASH_ROWS;
  if (row0 >= rows) return;
  const size_t d = gridDim.y * HEAD, head = blockIdx.y * HEAD, stride = 3 * d;
  const __nv_bfloat16* q = qkv + first * stride + head;
  DYN_SMEM(smem);
  Flash<HEAD> flash;
  flash.run(WholeBlock{}, smem_u32(smem), q, stride, row0, rows, q + d, q + 2 * d, stride, rows);
  flash.join_sums();
  flash.store(out + first * d + head, d, row0, rows);
}

extern "C" __global__ void __launch_bounds__(FLASH_THREADS)
    attention_32(const __nv_bfloat16* __restrict__ qkv, const unsigned* __restrict__ offsets,
                 __nv_bfloat16* __restrict__ out) {
  begin_kernel();
  attention<32>(qkv, offsets, out);
}

extern "C" __global__ void __launch_bounds__(FLASH_THREADS)
    attention_64(const __nv_bfloat16* __restrict__ qkv, const unsigned* __restrict__ offsets,
                 __nv_bfloat16* __restrict__ out) {
  begin_kernel();
  attention<64>(qkv, offsets, out);
}

extern "C" __global__ void __launch_bounds__(FLASH_THREADS)
    attention_128(const __nv_bfloat16* __restrict__ qkv, const unsigned* __restrict__ offsets,
                  __nv_bfloat16* __restrict__ out) {
  begin_kernel();
  attention<128>(qkv, offsets, out);
}
