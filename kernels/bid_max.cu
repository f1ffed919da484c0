// Keeps the bids of the forest's nodes up to date: new bids are scattered to their ads, then every
// node above one of them is added up anew from its children, one layer after the other from the
// last to the first.
//
// Tables as in search.cuh; `touched` u32 [count] are ads in ascending order, none twice.
//
// scatter_bids  ad_bids[touched[i]] = new_bids[i].
//               grid (count / 256), block 256. 20 bytes an ad.
// sum_nodes     the bids of nodes `first` .. first + count - 1, all of one layer, from their children
//               (ads where `of_ads` is 1).
//               grid (count / 8), block 256: a warp for each node. 32 bytes a child (8 an ad).
// sum_touched   the same for the nodes `hops` > 0 levels above the touched ads, each once.
//               grid (count / 8), block 256: a warp for each touched ad.
// Sums are of integers: their order does not matter, and there are no FLOPs. An update of u ads costs
// at most u C runs over the children of one node; where a node has very many (a leaf shared by 10^5
// ads) one warp reads them all.
//
// nvcc: --fmad=false
#include "search.cuh"

using namespace search;

namespace {

PTX_FN void sum_node(const unsigned* nodes, const unsigned long long* ad_bids,
                     unsigned long long* bids, size_t node, bool of_ads, unsigned lane) {
  Bids total{0, 0, 0, 0};
  const unsigned end = nodes[(node + 1) * NODE_WORDS + FIRST];
  for (unsigned at = nodes[node * NODE_WORDS + FIRST] + lane; at < end; at += 32) {
    if (of_ads) {
      if (ad_bids[at] != NO_BID) total.add(ad_bids[at]);
    } else {
      const Bids child = load_bids(bids, at);
      total.max = child.max > total.max ? child.max : total.max;
      total.low += child.low;
      total.high += child.high;
      total.count += child.count;
    }
  }
  total = {warp_max(total.max), warp_sum(total.low), warp_sum(total.high), warp_sum(total.count)};
  if (lane == 0) store_bids(bids, node, total);
}

// The node `hops` levels above an ad.
PTX_FN unsigned above(const unsigned* nodes, const unsigned* ads, unsigned ad, unsigned hops) {
  unsigned node = ads[(size_t)ad * AD_WORDS + LEAF];
  for (unsigned i = 1; i < hops; ++i) node = nodes[(size_t)node * NODE_WORDS + PARENT];
  return node;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
scatter_bids(const unsigned* __restrict__ touched, const unsigned long long* __restrict__ new_bids,
             unsigned long long* ad_bids, unsigned count) {
  begin_kernel();
  const unsigned i = blockIdx.x * 256 + threadIdx.x;
  if (i < count) ad_bids[touched[i]] = new_bids[i];
}

extern "C" __global__ void __launch_bounds__(256)
sum_nodes(const unsigned* __restrict__ nodes, const unsigned long long* __restrict__ ad_bids,
          unsigned long long* bids, unsigned first, unsigned count, unsigned of_ads) {
  begin_kernel();
  const unsigned i = blockIdx.x * 8 + threadIdx.x / 32;
  if (i < count) sum_node(nodes, ad_bids, bids, first + i, of_ads, threadIdx.x % 32);
}

extern "C" __global__ void __launch_bounds__(256)
sum_touched(const unsigned* __restrict__ nodes, const unsigned* __restrict__ ads,
            const unsigned long long* __restrict__ ad_bids, unsigned long long* bids,
            const unsigned* __restrict__ touched, unsigned count, unsigned hops) {
  begin_kernel();
  const unsigned i = blockIdx.x * 8 + threadIdx.x / 32;
  if (i >= count) return;
  const unsigned node = above(nodes, ads, touched[i], hops);
  if (i > 0 && above(nodes, ads, touched[i - 1], hops) == node) return;
  sum_node(nodes, ad_bids, bids, node, hops == 1, threadIdx.x % 32);
}
