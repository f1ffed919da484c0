// Greedy choice of one code of the creatives of many items (Eq. 16), layer `layer`.
//
// A row is an item. Its creatives that are left stand in `codes` from begin[r] to end[r], sorted by
// their codes, equals in catalog order. Of the codes that they have in this layer the one with the
// largest logit is chosen, ties to the lowest code; the range shrinks to the creatives with that
// code, and token[r] becomes its token. After the last layer the creative is the first of the range.
//
//   logits   f32 [rows, W]
//   codes    u16 [M, layers]   each below W
//   begin, end  u32 [rows]     in and out; rows of a request lie together, `per_request` each
//   token    u32 [rows]        out: first_token + code; left alone where the range is empty
//   fault    u32 [requests]    becomes 1 where the logit of a code that may follow is not finite
//
// A row whose creatives all have the same codes from this layer on is decided: its logits are not
// looked at. After a fault the request's tokens and ranges are valid, but mean nothing.
//
// Launch: 128 threads, one warp a row, grid ceil(rows / 4).
// Bytes: (2 + 4) per creative left, twice for the codes. No FLOPs, only comparisons;
// items with thousands of creatives take a warp some microseconds.
#include "ptx.cuh"

constexpr int ROWS_PER_BLOCK = 4;

// A code and its logit.
struct Choice {
  float logit;
  unsigned code;
};

PTX_FN Choice better(Choice a, Choice b) {
  bool second = b.logit > a.logit || (b.logit == a.logit && b.code < a.code);
  return second ? b : a;
}

// Whether the first and the last creative of a sorted range agree in the layers from `layer` on.
PTX_FN bool decided(const unsigned short* codes, unsigned begin, unsigned end, unsigned layer,
                    unsigned layers) {
  for (unsigned j = layer; j < layers; j++) {
    if (codes[(size_t)begin * layers + j] != codes[(size_t)(end - 1) * layers + j]) return false;
  }
  return true;
}

extern "C" __global__ void __launch_bounds__(32 * ROWS_PER_BLOCK)
    creative_choose(const float* __restrict__ logits, const unsigned short* __restrict__ codes,
                    unsigned rows, unsigned per_request, unsigned width, unsigned layer,
                    unsigned layers, unsigned first_token, unsigned* __restrict__ begin,
                    unsigned* __restrict__ end, unsigned* __restrict__ token,
                    unsigned* __restrict__ fault) {
  begin_kernel();
  unsigned row = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / 32;
  if (row >= rows) return;
  unsigned lane = threadIdx.x % 32;
  unsigned first = begin[row], behind = end[row];
  if (first >= behind) return;
  if (decided(codes, first, behind, layer, layers)) {
    if (lane == 0) token[row] = first_token + codes[(size_t)first * layers + layer];
    return;
  }

  // Worse than any: a finite logit is larger.
  Choice best = {-INFINITY, 0x10000u};
  bool finite = true;
  for (unsigned c = first + lane; c < behind; c += 32) {
    unsigned code = codes[(size_t)c * layers + layer];
    float logit = logits[(size_t)row * width + code];
    finite = finite && isfinite(logit);
    best = better(best, Choice{logit, code});
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    Choice other = {__shfl_xor_sync(~0u, best.logit, step), __shfl_xor_sync(~0u, best.code, step)};
    best = better(best, other);
  }
  if (!__all_sync(~0u, finite)) {
    if (lane == 0) {
      atomicOr(&fault[row / per_request], 1u);
      token[row] = first_token + codes[(size_t)first * layers + layer];
    }
    return;
  }

  unsigned lower = 0, equal = 0;
  for (unsigned c = first + lane; c < behind; c += 32) {
    unsigned code = codes[(size_t)c * layers + layer];
    lower += code < best.code;
    equal += code == best.code;
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    lower += __shfl_xor_sync(~0u, lower, step);
    equal += __shfl_xor_sync(~0u, equal, step);
  }
  // All lanes have read the range before it changes: shuffles alone do not order memory.
  __syncwarp();
  if (lane == 0) {
    begin[row] = first + lower;
    end[row] = first + lower + equal;
    token[row] = first_token + best.code;
  }
}
