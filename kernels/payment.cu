// Rates of the payment network (Eq. 25): `payment` for the slots of each request's winning list,
// `payment_misreports` for single slots whose ads have misreported:
//
//   rate_i = sigmoid(MLP([ f_i ; ln(1 + b_m) of the other K - 1 slots ; z_i pctr_poi_i ]))
//
// The others come in slot order; b is in bid units, 0 for organic and empty slots. The MLP is
// d_r + K -> 128 -> 32 -> 10 -> 1 with ReLU between layers. In f32, the sums in the order of the
// CPU; ln and exp in f64, then rounded.
//
// Row l * slots + i is slot i of list l.
//
//   winner    u32 [requests]            the winning list; 0xffffffff: none, the rates are 0
//   features  f32 [lists * slots, d_r]
//   pctr_poi  f32 [lists * slots]
//   ln_z      f64 [lists * slots]
//   bids      u64 [lists * slots]       of each filled slot in micros, 0 for organic items
//   lengths   i32 [lists]               filled slots
//   first     f32 [d_r + K, 128]        weights of the first layer, transposed
//   bias      f32 [128]
//   tail      f32 [4480]                the other layers, as for reward_towers
//   rates     f32 [requests, slots]     out: of ads and organic items, 0 past the length
//
// Launch: 128 threads, one block a request, shared memory 8 (d_r + K) * 4 bytes; slots <= 32.
// Thread o has output o of the first layer for eight slots at once; then each warp takes two of
// them.
// FLOPs: 2 * 128 (d_r + K) + 8,852 a slot. Bytes: the weights, 512 (d_r + K) and 18 KB, from L2.
// Bound by latency: there are at most 32 rows.
//
// An ad that misreports changes one input of its own slot, z_i pctr_poi_i: its own bid is not among
// the bids that the network reads there, and f_i does not depend on bids. That input comes last, so
// the sum over the others is the beginning of the sum over all, to the bit: it is computed once for
// all misreports of a slot and stays in a register, and each misreport adds one product.
//
//   rows      u32 [groups]              the slot of each group of misreports, list * slots + slot
//   offsets   u32 [groups + 1]          first misreport of each group
//   ln_z      f64 [misreports]          under each misreport
//   rates     f32 [misreports]          out
//
// Launch: 128 threads, one block a group, shared memory (d_r + K) * 4 bytes; slots <= 32.
// FLOPs: 2 * 128 (d_r + K) a group, 9,108 a misreport. Bytes: the weights for each group, from L2.
#include "mlp.cuh"

constexpr int THREADS = MLP_IN;
constexpr int WARPS = THREADS / 32;
constexpr int SLOTS_AT_ONCE = 8;
constexpr int MAX_SLOTS = 32;
constexpr unsigned NO_LIST = 0xffffffffu;

// What the network reads of a list besides its features: of each slot, or z_pctr of misreports.
struct Inputs {
  float ln_bid[MAX_SLOTS];
  float z_pctr[MAX_SLOTS];
};

PTX_FN float ln_one_plus(unsigned long long micros, double unit) {
  return (float)log1p((double)micros / unit);
}

PTX_FN float z_pctr(double ln_z, float pctr) { return (float)(exp(ln_z) * (double)pctr); }

// Element `k` of the input of slot `slot`.
PTX_FN float input(const Inputs& inputs, const float* features, int slot, int count, unsigned k,
                   unsigned d, unsigned width) {
  if (k < d) return features[(size_t)slot * d + k];
  if (k == width - 1) return inputs.z_pctr[slot];
  int other = (int)(k - d);
  other += other >= slot;
  return other < count ? inputs.ln_bid[other] : 0.f;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    payment(const unsigned* __restrict__ winner, const float* __restrict__ features,
            const float* __restrict__ pctr_poi, const double* __restrict__ ln_z,
            const unsigned long long* __restrict__ bids, const int* __restrict__ lengths,
            const float* __restrict__ first, const float* __restrict__ bias,
            const float* __restrict__ tail, double unit, unsigned slots, unsigned d,
            unsigned list_len, float* __restrict__ rates) {
  begin_kernel();
  DYN_SMEM(shared);
  __shared__ MlpShared mlp;
  __shared__ Inputs inputs;
  __shared__ float hidden[SLOTS_AT_ONCE][MLP_IN];
  float* x = reinterpret_cast<float*>(shared);  // [width][SLOTS_AT_ONCE]
  unsigned list = winner[blockIdx.x], width = d + list_len;
  int count = list == NO_LIST ? 0 : lengths[list];
  size_t first_row = list == NO_LIST ? 0 : (size_t)list * slots;
  if ((int)threadIdx.x < count) {
    size_t row = first_row + threadIdx.x;
    inputs.ln_bid[threadIdx.x] = ln_one_plus(bids[row], unit);
    inputs.z_pctr[threadIdx.x] = z_pctr(ln_z[row], pctr_poi[row]);
  }
  mlp.load(tail);
  for (unsigned i = max(count, 0) + threadIdx.x; i < slots; i += THREADS) {
    rates[(size_t)blockIdx.x * slots + i] = 0.f;
  }
  __syncthreads();

  unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int start = 0; start < count; start += SLOTS_AT_ONCE) {
    int here = min(SLOTS_AT_ONCE, count - start);
    for (unsigned i = threadIdx.x; i < width * SLOTS_AT_ONCE; i += THREADS) {
      int slot = i / width;
      unsigned k = i % width;
      x[k * SLOTS_AT_ONCE + slot] =
          slot < here
              ? input(inputs, features + first_row * d, start + slot, count, k, d, width)
              : 0.f;
    }
    __syncthreads();
    float sums[SLOTS_AT_ONCE] = {};
    for (unsigned k = 0; k < width; k++) {
      float weight = first[(size_t)k * MLP_IN + threadIdx.x];
#pragma unroll
      for (int s = 0; s < SLOTS_AT_ONCE; s++) {
        sums[s] = fmaf(x[k * SLOTS_AT_ONCE + s], weight, sums[s]);
      }
    }
#pragma unroll
    for (int s = 0; s < SLOTS_AT_ONCE; s++) {
      hidden[s][threadIdx.x] = relu_f32(sums[s] + bias[threadIdx.x]);
    }
    __syncthreads();
    for (int s = warp; s < here; s += WARPS) {
      float rate = mlp.run(hidden[s]);
      if (lane == 0) rates[(size_t)blockIdx.x * slots + start + s] = rate;
    }
    // The next slots' inputs may be written at once: who reads `hidden` still has that barrier to
    // pass.
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    payment_misreports(const unsigned* __restrict__ rows, const unsigned* __restrict__ offsets,
                       const double* __restrict__ ln_z, const float* __restrict__ features,
                       const float* __restrict__ pctr_poi,
                       const unsigned long long* __restrict__ bids,
                       const int* __restrict__ lengths, const float* __restrict__ first,
                       const float* __restrict__ bias, const float* __restrict__ tail, double unit,
                       unsigned slots, unsigned d, unsigned list_len, float* __restrict__ rates) {
  begin_kernel();
  DYN_SMEM(shared);
  __shared__ MlpShared mlp;
  __shared__ Inputs inputs;
  __shared__ float hidden[SLOTS_AT_ONCE][MLP_IN];
  float* x = reinterpret_cast<float*>(shared);  // [last]
  unsigned row = rows[blockIdx.x], list = row / slots, slot = row % slots;
  unsigned width = d + list_len, last = width - 1;
  size_t first_row = (size_t)list * slots;
  int count = lengths[list];
  if ((int)threadIdx.x < count) {
    inputs.ln_bid[threadIdx.x] = ln_one_plus(bids[first_row + threadIdx.x], unit);
  }
  mlp.load(tail);
  __syncthreads();
  for (unsigned k = threadIdx.x; k < last; k += THREADS) {
    x[k] = input(inputs, features + first_row * d, slot, count, k, d, width);
  }
  __syncthreads();
  float others = 0.f;
  for (unsigned k = 0; k < last; k++) {
    others = fmaf(x[k], first[(size_t)k * MLP_IN + threadIdx.x], others);
  }
  float weight = first[(size_t)last * MLP_IN + threadIdx.x], shift = bias[threadIdx.x];

  unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, end = offsets[blockIdx.x + 1];
  for (unsigned start = offsets[blockIdx.x]; start < end; start += SLOTS_AT_ONCE) {
    unsigned here = min((unsigned)SLOTS_AT_ONCE, end - start);
    if (threadIdx.x < here) {
      inputs.z_pctr[threadIdx.x] = z_pctr(ln_z[start + threadIdx.x], pctr_poi[row]);
    }
    // Past it the hidden layers of the misreports before have been read too.
    __syncthreads();
    for (unsigned m = 0; m < here; m++) {
      hidden[m][threadIdx.x] = relu_f32(fmaf(inputs.z_pctr[m], weight, others) + shift);
    }
    __syncthreads();
    for (unsigned m = warp; m < here; m += WARPS) {
      float rate = mlp.run(hidden[m]);
      if (lane == 0) rates[start + m] = rate;
    }
  }
}
