// Rewards of lists (Eq. 24) and the list that wins, in f64 as on the CPU, to the bit.
//
// reward(l) = sum over filled slots i, from slot 0 up, of
//   m_rev b_i pctr_poi_i + m_poi pctr_poi_i + m_cre pctr_creative_i + m_cvr pcvr_i
// with b_i = bid / unit. An empty list has reward 0. The winner of a request has the highest
// reward; ties: higher score, then lower index.
//
//   probabilities  f32 [3, lists * slots]   pctr_poi, pctr_creative, pcvr; row l * slots + i
//   bids           u64 [lists * slots]      of each filled slot in micros, 0 for organic items
//   lengths        i32 [lists]              filled slots; -1: there is no such list, it has
//                                           reward 0 and cannot win
//   scores         f64 [lists]              sum of ln z
//   objective      f64 [requests, 4]        m_rev, m_poi, m_cre, m_cvr
//   offsets        u32 [requests + 1]       lists of each request
//   rewards        f64 [lists]              out
//   winner         u32 [requests]           out: index into `lists`; 0xffffffff where there is none
//
// Launch: 256 threads, one block a request. FLOPs: 10 a slot. Bytes: 24 a slot. Bound by latency.
// The products are rounded before they are added:
// nvcc: --fmad=false
#include "ptx.cuh"

constexpr int THREADS = 256;
constexpr unsigned NO_LIST = 0xffffffffu;

struct Contender {
  double reward, score;
  unsigned list;
};

// Whether `a` wins over `b`; NO_LIST never does.
PTX_FN bool beats(const Contender& a, const Contender& b) {
  if (a.list == NO_LIST || b.list == NO_LIST) return a.list != NO_LIST;
  if (a.reward != b.reward) return a.reward > b.reward;
  if (a.score != b.score) return a.score > b.score;
  return a.list < b.list;
}

// The best of the block's contenders, for thread 0. By all threads.
PTX_FN Contender best_of_block(Contender best) {
  __shared__ Contender warps[THREADS / 32];
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    Contender other = {__shfl_xor_sync(~0u, best.reward, step),
                       __shfl_xor_sync(~0u, best.score, step),
                       __shfl_xor_sync(~0u, best.list, step)};
    if (beats(other, best)) best = other;
  }
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < THREADS / 32; w++) {
      if (beats(warps[w], best)) best = warps[w];
    }
  }
  return best;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    reward_choice(const float* __restrict__ probabilities,
                  const unsigned long long* __restrict__ bids, const int* __restrict__ lengths,
                  const double* __restrict__ scores, const double* __restrict__ objective,
                  const unsigned* __restrict__ offsets, double unit, unsigned slots, unsigned rows,
                  double* __restrict__ rewards, unsigned* __restrict__ winner) {
  begin_kernel();
  const double* weight = objective + 4 * blockIdx.x;
  double revenue = weight[0], ctr_poi = weight[1], ctr_creative = weight[2], cvr = weight[3];
  const float* pctr_poi = probabilities;
  const float* pctr_creative = probabilities + rows;
  const float* pcvr = probabilities + (size_t)2 * rows;
  Contender best = {0.0, 0.0, NO_LIST};
  for (unsigned list = offsets[blockIdx.x] + threadIdx.x; list < offsets[blockIdx.x + 1];
       list += THREADS) {
    double reward = 0.0;
    for (int i = 0; i < lengths[list]; i++) {
      size_t row = (size_t)list * slots + i;
      double bid = (double)bids[row] / unit;
      double poi = pctr_poi[row];
      reward += revenue * bid * poi + ctr_poi * poi + ctr_creative * (double)pctr_creative[row] +
                cvr * (double)pcvr[row];
    }
    rewards[list] = reward;
    Contender contender = {reward, scores[list], list};
    if (lengths[list] >= 0 && beats(contender, best)) best = contender;
  }
  best = best_of_block(best);
  if (threadIdx.x == 0) winner[blockIdx.x] = best.list;
}
