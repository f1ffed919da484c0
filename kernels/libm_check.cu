// The functions of libm.cuh and the sum of Bids, one value a thread, to be held against the CPU's.
//
//   x  f64 [n];  exps, logs, log1ps  f64 [n]   (logs and log1ps of |x|)
//   bids  u64 [m][4];  totals  f64 [m]
//
// Launch: grid (n / 256) or (m / 256), block 256.
//
// nvcc: --fmad=false
#include "search.cuh"

extern "C" __global__ void libm_check(const double* __restrict__ x, double* exps, double* logs,
                                      double* log1ps, unsigned n) {
  begin_kernel();
  const unsigned i = blockIdx.x * 256 + threadIdx.x;
  if (i >= n) return;
  exps[i] = libm::exp(x[i]);
  logs[i] = libm::log(fabs(x[i]));
  log1ps[i] = libm::log1p(fabs(x[i]));
}

extern "C" __global__ void bid_sum_check(const unsigned long long* __restrict__ bids,
                                         double* totals, unsigned m) {
  begin_kernel();
  const unsigned i = blockIdx.x * 256 + threadIdx.x;
  if (i < m) totals[i] = search::load_bids(bids, i).sum();
}
