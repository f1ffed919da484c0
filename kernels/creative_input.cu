// Input rows of the creative decoder (Eq. 16): x[r] = [ RMSNorm(h) ; RMSNorm(embed(token[r])) ] in
// bf16, with RMSNorm(v) = v / sqrt(mean(v^2) + eps) * weight in f32, rounded once at the end.
//
//   hidden        f32 [., d]       hidden states of the POI decoder, all positions and beams
//   hidden_row    u32 [rows]       row of `hidden`; 0xffffffff: none, the row is zeros
//   embed         bf16 [V, d]      token embeddings
//   token         u32 [rows]       token whose embedding is read
//   hidden_norm, embed_norm        f32 [d]
//   x             bf16 [rows, 2d]  result
//
// Launch: 256 threads, one warp a row, grid ceil(rows / 8). The lower half-warp normalizes the
// hidden state, the upper one the embedding; sums in the order of the CPU.
// Bytes: 4 d + 2 d read and 4 d written a row. FLOPs: about 8 d a row. Bound by memory; a row is
// read twice, the second time from L1. Any d.
#include "lanes.cuh"

constexpr unsigned NO_ROW = 0xffffffffu;
constexpr int ROWS_PER_BLOCK = 8;

// Writes the normalized row to `x` [d]. Warp-wide, each half-warp with a row of its own.
template <class Element>
PTX_FN void normalize(Element element, const float* weight, float eps, unsigned d,
                      __nv_bfloat16* x) {
  float scale = rms_scale(element, d, eps);
  for (unsigned i = threadIdx.x % LANES; i < d; i += LANES) {
    x[i] = __float2bfloat16_rn(element(i) * scale * weight[i]);
  }
}

extern "C" __global__ void __launch_bounds__(32 * ROWS_PER_BLOCK)
    creative_input(const float* __restrict__ hidden, const unsigned* __restrict__ hidden_row,
                   const __nv_bfloat16* __restrict__ embed, const unsigned* __restrict__ token,
                   const float* __restrict__ hidden_norm, const float* __restrict__ embed_norm,
                   float eps, unsigned rows, unsigned d, __nv_bfloat16* __restrict__ x) {
  begin_kernel();
  unsigned row = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / 32;
  if (row >= rows) return;
  bool lower = threadIdx.x % 32 < LANES;
  __nv_bfloat16* to = x + (size_t)row * 2 * d + (lower ? 0 : d);
  if (hidden_row[row] == NO_ROW) {
    for (unsigned i = threadIdx.x % LANES; i < d; i += LANES) to[i] = __float2bfloat16_rn(0.f);
    return;
  }
  const float* h = hidden + (size_t)hidden_row[row] * d;
  const __nv_bfloat16* e = embed + (size_t)token[row] * d;
  auto element = [=](unsigned i) { return lower ? h[i] : __bfloat162float(e[i]); };
  normalize(element, lower ? hidden_norm : embed_norm, eps, d, to);
}
