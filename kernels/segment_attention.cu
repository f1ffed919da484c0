// Full attention inside each of many short segments of rows, in f32: the lists of the reward model.
//
// Segment s is the rows s * slots .. s * slots + lengths[s]; its other rows get zeros. For each head
//
//   out[r] = sum over i of w[r, i] v[i],  w[r, .] = softmax over i of (q[r] . k[i] / sqrt(head))
//
//   qkv      f32 [segments * slots, 3 d]   queries, keys, values; d = heads * head
//   lengths  i32 [segments]                filled rows, at most `slots` <= 32; -1 and 0: none
//   scale    log2(e) / sqrt(head)          the softmax is one of powers of two
//   out      f32 [segments * slots, d]
//
// The sums run as on the CPU (src/cpu/row_attention.rs), to the bit: products of q and k in sixteen
// lanes, the sum of the weights by the same tree, and one fused multiply-add per value in the order
// of the rows.
//
// Launch: 128 threads, grid (segments, heads), shared memory 2 * slots * (head + 1) * 4 bytes for
// the keys and values of one head; a warp takes every fourth query, its lane i the key i.
// FLOPs: 4 slots^2 d a segment. Bytes: 16 d a row. Any head size whose keys and values fit.
#include "lanes.cuh"
#include "math_f32.cuh"

constexpr int THREADS = 128;
constexpr int WARPS = THREADS / 32;

// The CPU's tree over sixteen numbers, in one thread: halves onto halves.
template <int WIDTH = LANES / 2>
PTX_FN float joined(float (&lanes)[LANES]) {
#pragma unroll
  for (int i = 0; i < WIDTH; i++) lanes[i] = __fadd_rn(lanes[i], lanes[i + WIDTH]);
  if constexpr (WIDTH > 1) return joined<WIDTH / 2>(lanes);
  return lanes[0];
}

// q . k over `head` numbers.
PTX_FN float dot(const float* q, const float* k, unsigned head) {
  float lanes[LANES] = {};
  unsigned whole = head / LANES * LANES;
  for (unsigned start = 0; start < whole; start += LANES) {
#pragma unroll
    for (int l = 0; l < LANES; l++) lanes[l] = fmaf(q[start + l], k[start + l], lanes[l]);
  }
#pragma unroll
  for (int l = 0; l < LANES; l++) {
    if (whole + l < head) lanes[l] = fmaf(q[whole + l], k[whole + l], lanes[l]);
  }
  return joined(lanes);
}

// The weights' sum: keys i and i + 16 share a lane. Warp-wide.
PTX_FN float weight_sum(float weight) {
  float lane = __fadd_rn(weight, __shfl_xor_sync(~0u, weight, LANES));
  return lanes_sum(lane);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    segment_attention(const float* __restrict__ qkv, const int* __restrict__ lengths, float scale,
                      unsigned slots, unsigned head, float* __restrict__ out) {
  begin_kernel();
  DYN_SMEM(shared);
  unsigned stride = head + 1;  // Odd for even heads: the lanes' keys lie in different banks.
  float* keys = reinterpret_cast<float*>(shared);
  float* values = keys + slots * stride;
  unsigned d = gridDim.y * head;
  const float* from = qkv + (size_t)blockIdx.x * slots * 3 * d + blockIdx.y * head;
  float* to = out + (size_t)blockIdx.x * slots * d + blockIdx.y * head;
  unsigned count = max(lengths[blockIdx.x], 0);
  for (unsigned i = threadIdx.x; i < count * head; i += THREADS) {
    unsigned row = i / head, column = i % head;
    keys[row * stride + column] = from[(size_t)row * 3 * d + d + column];
    values[row * stride + column] = from[(size_t)row * 3 * d + 2 * d + column];
  }
  __syncthreads();

  unsigned lane = threadIdx.x % 32;
  for (unsigned row = threadIdx.x / 32; row < slots; row += WARPS) {
    if (row >= count) {
      for (unsigned c = lane; c < head; c += 32) to[(size_t)row * d + c] = 0.f;
      continue;
    }
    const float* q = from + (size_t)row * 3 * d;
    float score = lane < count ? __fmul_rn(dot(q, keys + lane * stride, head), scale) : -INFINITY;
    float largest = score;
#pragma unroll
    for (int width = 16; width > 0; width /= 2) {
      // Passes over NaN, as the CPU does; the weights carry it on.
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, width));
    }
    float weight = exp2_nonpositive(__fsub_rn(score, largest));
    float share = __fdiv_rn(1.f, weight_sum(weight));
    // All lanes go through every turn: the weights are passed on by shuffles.
    for (unsigned start = 0; start < head; start += 32) {
      unsigned column = min(start + lane, head - 1);
      float sum = 0.f;
      for (unsigned i = 0; i < count; i++) {
        sum = fmaf(__shfl_sync(~0u, weight, i), values[i * stride + column], sum);
      }
      if (start + lane < head) to[(size_t)row * d + column] = __fmul_rn(sum, share);
    }
  }
}
