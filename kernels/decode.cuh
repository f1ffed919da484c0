// A position of the POI decoder by a team of blocks: the launches of src/cuda/decoder.rs as phases
// of one launch, with the same code for each, so that both give the same bits.
//
//   x       = embed(tokens)
//   of each layer
//     qkv      = rotary(rms_norm(x) qkv^T)        attended = attention over the row's own past
//     x       += attended out^T
//     q        = rms_norm(x) cross_q^T            attended = attention over the request's keys
//     x       += attended cross_out^T
//     hidden   = swiglu(rms_norm(x))
//     x       += hidden down^T
//   states  = rms_norm(x), logits = states head^T
//
// A barrier of the team follows each of these 8 layers + 2 lines. A team has the rows of whole
// requests: one in a cluster, all in a grid. The sums of a row do not depend on which rows share
// its tile, nor on how many blocks there are.
//
// 256 threads; `decode_bytes` of dynamic shared memory, the most that a phase needs.
#pragma once

#include "beam_attention.cuh"
#include "beam_self_attention.cuh"
#include "embed.cuh"
#include "linear.cuh"
#include "norm_linear.cuh"
#include "swiglu.cuh"
#include "team.cuh"

constexpr unsigned DECODE_THREADS = 256, DECODE_WARPS = DECODE_THREADS / 32;
constexpr unsigned MOST_DECODER_LAYERS = 8;
// Of the products that are added to x: narrow tiles, since d / 32 of them are few already.
constexpr int DECODE_COLUMNS = 32, DECODE_STAGES = 4;

// Weights of a layer, and its keys and values; see the kernels for their shapes.
struct DecoderLayer {
  const float* norm;
  const __nv_bfloat16 *qkv, *out;
  const float* cross_norm;
  const __nv_bfloat16 *cross_q, *cross_out;
  const float* ffn_norm;
  const __nv_bfloat16 *gate_up, *down;
  float *keys, *values;       // [positions][rows][d]
  const __nv_bfloat16* cross;  // keys and values of the encoder's rows
};

// src/cuda/decode_step.rs has the same fields in the same order.
struct DecodeStep {
  DecoderLayer layers[MOST_DECODER_LAYERS];
  const __nv_bfloat16* table;  // [V, d]
  const float* angles;         // [positions, HEAD]
  const float* norm;           // [d]
  const __nv_bfloat16* head;   // [codes, d], or null: no logits are asked for
  const unsigned *tokens, *ancestors, *newest;  // [rows], [rows, positions], [1]
  const unsigned* offsets;                      // of the requests' encoder rows
  float *x, *qkv;                               // [rows, d], [rows, 3 d]
  __nv_bfloat16 *q, *attended, *hidden;         // [rows, d] twice, [rows, ffn]
  float4* partials;                             // of beam_attention
  unsigned* counters;
  float *states, *logits;  // [rows, d], [rows, codes]
  unsigned* team;          // [2], of a GridTeam
  unsigned layer_count, requests, beams, heads, ffn, codes, positions, cross_stride, chunks;
  float eps;
};

#ifdef HOPPER

// The requests that a team decodes.
struct Requests {
  unsigned first, count;
};

template <int HEAD, class Team>
class Decode {
 public:
  PTX_FN Decode(const DecodeStep& step, Team& team, Requests requests)
      : step_(step),
        team_(team),
        requests_(requests),
        d_(step.heads * HEAD) {}

  // Runs the position that `newest` holds through all layers.
  PTX_FN void run_layers(const unsigned* newest) {
    embed();
    for (unsigned l = 0; l < step_.layer_count; l++) {
      const DecoderLayer& layer = step_.layers[l];
      project(layer, newest);
      attend_self(layer, newest);
      add(step_.attended, layer.out, d_);
      query(layer);
      attend_cross(layer);
      add(step_.attended, layer.cross_out, d_);
      feed(layer);
      add(step_.hidden, layer.down, step_.ffn);
    }
  }

  // The position's states to `states` and, unless `head` is null, its logits to step.logits.
  // Without a head there are no products: what is left is the norm.
  PTX_FN void finish(const __nv_bfloat16* head, float* states) {
    const unsigned codes = head ? step_.codes : 0;
    share_normed(codes, [&](Place place, unsigned each) {
      norm_linear<64>(place, normed(step_.norm, states + (size_t)first_row() * d_), head,
                      StoreF32{step_.logits + (size_t)first_row() * step_.codes}, codes, Rotary{},
                      each);
    });
  }

 private:
  const DecodeStep& step_;
  Team& team_;
  Requests requests_;
  unsigned d_;

  // A phase keeps nothing in registers for a later one, so that each has all of them.
  PTX_FN void next_phase() {
    team_.sync();
    forget(requests_.first), forget(d_);
  }

  // Of the batch, the first that the team has, and how many.
  PTX_FN unsigned first_row() const { return requests_.first * step_.beams; }
  PTX_FN unsigned rows() const { return requests_.count * step_.beams; }

  PTX_FN NormedRows normed(const float* weight, float* to) const {
    return {step_.x + (size_t)first_row() * d_, weight, to, rows(), d_, step_.eps};
  }

  PTX_FN void embed() {
    const unsigned warp = threadIdx.x >> 5;
    for (unsigned row = team_.rank() * DECODE_WARPS + warp; row < rows();
         row += team_.blocks() * DECODE_WARPS) {
      const size_t at = first_row() + row;
      embed_token(step_.table, step_.tokens[at], step_.x + at * d_, d_);
    }
    next_phase();
  }

  // Deals out a product with normed rows in tiles of 64: `product(place, tiles_per_block)`. Norms
  // are computed once for all tiles that a block gets in a row.
  template <class Product>
  PTX_FN void share_normed(unsigned n, Product product) {
    const unsigned down = (rows() + NORM_ROWS - 1) / NORM_ROWS, tiles = max((n + 63) / 64, 1u);
    const unsigned each = min((down * tiles + team_.blocks() - 1) / team_.blocks(), tiles);
    const unsigned across = (tiles + each - 1) / each;
    share(team_, across * down, [&](unsigned unit) {
      product(Place{unit % across, unit / across, 0, across, down, 1}, each);
    });
    next_phase();
  }

  PTX_FN void project(const DecoderLayer& layer, const unsigned* newest) {
    const Rotary rotary{step_.angles, newest, 0, 2 * d_, HEAD / 64};
    const StoreF32 to{step_.qkv + (size_t)first_row() * 3 * d_};
    share_normed(3 * d_, [&](Place place, unsigned each) {
      norm_linear<64>(place, normed(layer.norm, nullptr), layer.qkv, to, 3 * d_, rotary, each);
    });
  }

  PTX_FN void attend_self(const DecoderLayer& layer, const unsigned* newest) {
    DYN_SMEM(smem);
    const unsigned warp = threadIdx.x >> 5, begin = (size_t)first_row() * step_.heads;
    const unsigned end = begin + rows() * step_.heads, warps = team_.blocks() * DECODE_WARPS;
    float4* query = reinterpret_cast<float4*>(smem) + warp * (HEAD / 4);
    for (unsigned unit = begin + team_.rank() * DECODE_WARPS + warp; unit < end; unit += warps) {
      beam_self_attention<HEAD>(unit, query, step_.qkv, layer.keys, layer.values, step_.ancestors,
                                newest, step_.attended, step_.requests * step_.beams,
                                step_.heads, step_.beams, step_.positions);
      __syncwarp();  // the next unit writes another query
    }
    next_phase();
  }

  // x += from w^T, from [rows, k].
  PTX_FN void add(const __nv_bfloat16* from, const __nv_bfloat16* w, unsigned k) {
    const unsigned across = (d_ + DECODE_COLUMNS - 1) / DECODE_COLUMNS;
    const unsigned down = (rows() + ROWS - 1) / ROWS;
    share(team_, across * down, [&](unsigned unit) {
      linear<DECODE_COLUMNS, DECODE_THREADS, DECODE_STAGES, 1>(
          Place{unit % across, unit / across, 0, across, down, 1}, from + (size_t)first_row() * k,
          w, rows(), d_, k, AddF32{step_.x + (size_t)first_row() * d_});
    });
    next_phase();
  }

  PTX_FN void query(const DecoderLayer& layer) {
    share_normed(d_, [&](Place place, unsigned each) {
      norm_linear<64>(place, normed(layer.cross_norm, nullptr), layer.cross_q,
                      StoreBf16{step_.q + (size_t)first_row() * d_}, d_, Rotary{}, each);
    });
  }

  // Each half of a block has a unit of its own; blocks get a second one when all have one.
  PTX_FN void attend_cross(const DecoderLayer& layer) {
    DYN_SMEM(smem);
    const HalfBlock warps;
    const unsigned half = threadIdx.x / FLASH_THREADS, heads = step_.heads, chunks = step_.chunks;
    const uint32_t own = smem_u32(smem) + half * FLASH_BYTES<HEAD>;
    unsigned* last = reinterpret_cast<unsigned*>(smem + 2 * FLASH_BYTES<HEAD>) + half;
    const BeamAttention all{step_.q,        layer.cross,    step_.offsets,
                            step_.partials, step_.counters, step_.attended,
                            step_.beams,    heads,          step_.cross_stride,
                            chunks};
    const unsigned per_head = (step_.beams + FLASH_ROWS - 1) / FLASH_ROWS * chunks;
    const unsigned per_request = per_head * heads, units = per_request * requests_.count;
    const unsigned blocks = team_.blocks();
    for (unsigned unit = team_.rank() + half * blocks; unit < units; unit += 2 * blocks) {
      const unsigned part = unit % per_head;
      const BeamUnit at{requests_.first + unit / per_request, unit / per_head % heads,
                        part / chunks, part % chunks};
      beam_attention<HEAD>(warps, own, last, all, at);
      warps.sync();  // the next unit writes to the same shared memory
    }
    next_phase();
  }

  PTX_FN void feed(const DecoderLayer& layer) {
    share_normed(2 * step_.ffn, [&](Place place, unsigned each) {
      swiglu<64>(place, normed(layer.ffn_norm, nullptr), layer.gate_up,
                 step_.hidden + (size_t)first_row() * step_.ffn, step_.ffn, each);
    });
  }
};

#endif  // HOPPER
