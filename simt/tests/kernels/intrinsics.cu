// Intrinsics whose results are compared with those of Rust. One thread per element.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// bf16 and half of each float as bits, and the bits of those as floats again.
extern "C" __global__ void intrinsics_halves(const float* x, unsigned n, unsigned short* bf16,
                                             unsigned short* half_, float* back) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  bf16[i] = __bfloat16_as_ushort(__float2bfloat16_rn(x[i]));
  half_[i] = __half_as_ushort(__float2half_rn(x[i]));
  back[2 * i] = __bfloat162float(__ushort_as_bfloat16(bf16[i]));
  back[2 * i + 1] = __half2float(__ushort_as_half(half_[i]));
}

// Doubles to integers: down to i64, to nearest even i64, to u32 and to i32 towards zero.
extern "C" __global__ void intrinsics_doubles(const double* x, unsigned n, long long* to_i64,
                                              unsigned* to_u32, int* to_i32) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  to_i64[2 * i] = __double2ll_rd(x[i]);
  to_i64[2 * i + 1] = __double2ll_rn(x[i]);
  to_u32[i] = __double2uint_rz(x[i]);
  to_i32[i] = __double2int_rz(x[i]);
}

// Bits of 64-bit integers: ones, leading zeros, first one from 1, reversed, product's high half.
extern "C" __global__ void intrinsics_bits(const unsigned long long* x, unsigned n,
                                           unsigned long long* out) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[5 * i] = __popcll(x[i]);
  out[5 * i + 1] = __clzll((long long)x[i]);
  out[5 * i + 2] = __ffsll((long long)x[i]);
  out[5 * i + 3] = __brevll(x[i]);
  out[5 * i + 4] = __umul64hi(x[i], 0x9e3779b97f4a7c15ull);
}
