// Slot vectors of the reward model (Eq. 18), in f32:
// [ sum_j embed(p_j) ; sum_j embed(c_j) ; mean of S_e ; e_poi ], width 3 d + d_item.
//
// Row l * slots + i is slot i of list l; rows past the list's length are zeros.
//
//   items           u32 [lists * slots]          item of each filled slot
//   creatives       u32 [lists * slots]          its creative
//   lengths         i32 [lists]                  filled slots; -1 and 0: none
//   requests        u32 [lists]                  request of each list
//   embed           bf16 [V, d]                  token embeddings
//   poi_codes       u16 [items, poi_layers]
//   creative_codes  u16 [creatives, creative_layers]
//   mean            f32 [requests, d]
//   embedding       f32 [items, d_item]
//   x               f32 [lists * slots, 3 d + d_item]
//
// The token of code k in layer j of a POI is 8 + j codebook + k; creatives come after all POI
// layers.
//
// Launch: 256 threads, one block a row. Sums in f32 from layer 0 up, as on the CPU.
// Bytes: 2 d (poi_layers + creative_layers) + 4 (d + d_item) read, 4 (3 d + d_item) written a row.
// FLOPs: d (poi_layers + creative_layers) a row. Bound by memory; the embeddings of popular codes
// come from L2.
#include "ptx.cuh"

constexpr int THREADS = 256;
constexpr unsigned SPECIAL_TOKENS = 8;

// Sum over the layers of the embeddings of `codes`, of which the first layer starts at `token`.
PTX_FN float embedded(const __nv_bfloat16* embed, const unsigned short* codes, unsigned layers,
                      unsigned token, unsigned codebook, unsigned d, unsigned column) {
  float sum = 0.f;
  for (unsigned j = 0; j < layers; j++) {
    size_t row = token + j * codebook + codes[j];
    sum += __bfloat162float(embed[row * d + column]);
  }
  return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    reward_input(const unsigned* __restrict__ items, const unsigned* __restrict__ creatives,
                 const int* __restrict__ lengths, const unsigned* __restrict__ requests,
                 const __nv_bfloat16* __restrict__ embed,
                 const unsigned short* __restrict__ poi_codes,
                 const unsigned short* __restrict__ creative_codes, const float* __restrict__ mean,
                 const float* __restrict__ embedding, unsigned poi_layers, unsigned creative_layers,
                 unsigned codebook, unsigned slots, unsigned d, unsigned d_item,
                 float* __restrict__ x) {
  begin_kernel();
  unsigned row = blockIdx.x, list = row / slots;
  unsigned width = 3 * d + d_item;
  float* to = x + (size_t)row * width;
  if ((int)(row % slots) >= lengths[list]) {
    for (unsigned i = threadIdx.x; i < width; i += THREADS) to[i] = 0.f;
    return;
  }
  unsigned item = items[row];
  const unsigned short* poi = poi_codes + (size_t)item * poi_layers;
  const unsigned short* creative = creative_codes + (size_t)creatives[row] * creative_layers;
  const float* state = mean + (size_t)requests[list] * d;
  const float* own = embedding + (size_t)item * d_item;
  unsigned creative_token = SPECIAL_TOKENS + poi_layers * codebook;
  for (unsigned i = threadIdx.x; i < d; i += THREADS) {
    to[i] = embedded(embed, poi, poi_layers, SPECIAL_TOKENS, codebook, d, i);
    to[d + i] = embedded(embed, creative, creative_layers, creative_token, codebook, d, i);
    to[2 * d + i] = state[i];
  }
  for (unsigned i = threadIdx.x; i < d_item; i += THREADS) to[3 * d + i] = own[i];
}
