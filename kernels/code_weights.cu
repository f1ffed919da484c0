// ln of the weights of codes that a search needs again and again, once when it begins: of the
// children of the root, none of their ads used; or for `bid_scope: "code"` of every code of every
// layer over all items of the request.
//
// Tables as in search.cuh. `tally` u64 [R][C][W][4] holds the bids behind each code, as `bids`.
//
// clear_tally  grid (W / 256, C, R), block 256
// tally_codes  grid (any, R), block 256: adds every eligible ad but the excluded one, and every
//              organic item, to the tally of its code in each layer. Integer sums and maxima: the
//              order does not matter. About 40 bytes and 4 C atomic operations an ad.
// weigh_codes  grid (W / 256, C, R), block 256: ln_w from the tally
// weigh_root   grid (W / 256, R), block 256: ln_w of the root's children
// The last two read 32 bytes a code, write 8, and compute some 60 f64 operations; the first two none.
// The first three leave requests alone that do not weigh by code, the last those that do.
//
// nvcc: --fmad=false
#include "search.cuh"

using namespace search;

namespace {

PTX_FN unsigned long long* tally_of(unsigned long long* tally, unsigned request, unsigned layer,
                                    unsigned code, unsigned layers, unsigned codes) {
  return tally + (((size_t)request * layers + layer) * codes + code) * BID_WORDS;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
clear_tally(const unsigned* __restrict__ rules, unsigned long long* tally, unsigned codes) {
  begin_kernel();
  const unsigned code = blockIdx.x * 256 + threadIdx.x;
  if (code >= codes || !rules[blockIdx.z * RULES + BY_CODE]) return;
  unsigned long long* words = tally_of(tally, blockIdx.z, blockIdx.y, code, gridDim.y, codes);
  for (unsigned i = 0; i < BID_WORDS; ++i) words[i] = 0;
}

extern "C" __global__ void __launch_bounds__(256)
tally_codes(const unsigned* __restrict__ nodes, const unsigned* __restrict__ ads,
            const unsigned long long* __restrict__ ad_bids, const unsigned* __restrict__ rules,
            const unsigned* __restrict__ organic, unsigned long long* tally, unsigned layers,
            unsigned codes) {
  begin_kernel();
  const unsigned request = blockIdx.y, stride = gridDim.x * 256;
  rules += request * RULES;
  if (!rules[BY_CODE]) return;
  const unsigned first = blockIdx.x * 256 + threadIdx.x;
  for (unsigned ad = rules[ADS] + first; ad < rules[ADS_END]; ad += stride) {
    const uint64_t bid = ad_bids[ad];
    if (bid == NO_BID || ad == rules[EXCLUDED]) continue;
    unsigned node = ads[(size_t)ad * AD_WORDS + LEAF];
    for (unsigned layer = layers; layer-- > 0;) {
      const unsigned code = nodes[(size_t)node * NODE_WORDS + CODE];
      unsigned long long* words = tally_of(tally, request, layer, code, layers, codes);
      if (rules[MEAN]) {
        atomicAdd(&words[LOW], (unsigned long long)(bid & 0xffffffff));
        atomicAdd(&words[HIGH], (unsigned long long)(bid >> 32));
        atomicAdd(&words[COUNT], 1ull);
      } else {
        atomicMax(&words[MAX], (unsigned long long)bid);
      }
      node = nodes[(size_t)node * NODE_WORDS + PARENT];
    }
  }
  // Organic items count as ads with a bid of 0 would.
  for (unsigned i = first; i < rules[ORGANICS]; i += stride) {
    const unsigned* row = organic + (size_t)(rules[ORGANIC] + i) * (1 + layers);
    for (unsigned layer = 0; layer < layers; ++layer)
      atomicAdd(&tally_of(tally, request, layer, row[1 + layer], layers, codes)[COUNT], 1ull);
  }
}

extern "C" __global__ void __launch_bounds__(256)
weigh_codes(const unsigned* __restrict__ rules, const double* __restrict__ terms,
            const unsigned long long* __restrict__ tally, double* ln_w, unsigned codes) {
  begin_kernel();
  const unsigned request = blockIdx.z, code = blockIdx.x * 256 + threadIdx.x;
  if (code >= codes || !rules[request * RULES + BY_CODE]) return;
  const size_t at = ((size_t)request * gridDim.y + blockIdx.y) * codes + code;
  const Bids bids = load_bids(tally, at);
  const bool mean = rules[request * RULES + MEAN];
  // Of a code with nothing behind it the mean is not defined, and never asked for.
  if (mean && bids.count == 0) return;
  ln_w[at] = ln_weight(bids, 0, mean, terms + request * TERMS);
}

extern "C" __global__ void __launch_bounds__(256)
weigh_root(const unsigned* __restrict__ nodes, const unsigned long long* __restrict__ bids,
           const unsigned* __restrict__ rules, const double* __restrict__ terms, double* ln_w,
           unsigned layers, unsigned codes) {
  begin_kernel();
  const unsigned request = blockIdx.y;
  rules += request * RULES;
  const unsigned first = first_of(nodes, rules[ROOT]);
  const unsigned child = first + blockIdx.x * 256 + threadIdx.x;
  if (rules[BY_CODE] || child >= first_of(nodes, rules[ROOT] + 1)) return;
  const Bids behind = load_bids(bids, child);
  if (behind.count == 0) return;
  ln_w[(size_t)request * layers * codes + (child - first)] =
      ln_weight(behind, 0, rules[MEAN], terms + request * TERMS);
}
