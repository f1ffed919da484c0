// The whole search in one launch: every position of the decoder, what follows it and which beams go
// on. decode.cuh, expand.cuh and select.cuh have the work, which is that of the launches of the
// graph in the same order; so both give the same bits.
//
//   for t in 0 .. steps - 1:  decode position t, expand every beam, select
//   decode position `steps`, whose states the creatives of the last slot are chosen by
//
//   persistent_search_cluster_HEAD  grid (blocks of a cluster, requests): a cluster searches for a
//                                   request by itself, and ends when its request is over
//   persistent_search_grid_HEAD     a cooperative launch of any number of blocks, all of which
//                                   search for all requests together
//
// A request is over when its list is full or no beam goes on; the position after that is decoded
// still. Of later ones no list holds a row.
//
// 256 threads, as many beams of a request at most. Shared memory: that of decode_step.cu; expansion
// and selection take less. Two barriers of the team more a position. Bytes and FLOPs: for each
// position those of decode_step.cu, expand.cu and select.cu.
//
// nvcc: --fmad=false
#include "decode.cuh"
#include "expand.cuh"
#include "select.cuh"

// src/cuda/persistent_search.rs has the same fields in the same order.
struct PersistentSearch {
  DecodeStep decode;  // of position 0; its head is that of code layer 0, the others follow
  // Tables of search.cuh, expand.cu and select.cu.
  const unsigned* nodes;
  const unsigned long long* bids;
  const unsigned* ads;
  const unsigned long long *ad_bids, *ad_ids;
  const unsigned* rules;
  const double* terms;
  const unsigned long long* seeds;
  const unsigned* organic;
  const unsigned long long* organic_ids;
  const double* ln_w;
  unsigned *progress, *beams;
  double* sums;
  unsigned *rows, *chosen;
  double *chosen_ln_z, *ln_z;
  unsigned long long* best;
  unsigned *tokens, *position;
  unsigned long long steps;
  unsigned layers, positions, first_code_token, boi;
};

#ifdef HOPPER

static_assert(sizeof(search::SelectBlock) + 32 * DECODE_THREADS <= NORM_RING_BYTES,
              "selection has room in what every decoder needs");

// What may follow each beam, by a block each. This and `select` are calls, so that what they and
// the decoder keep in registers does not add up.
template <class Team>
__device__ __noinline__ void expand(const PersistentSearch& all, Team team, Requests requests) {
  DYN_SMEM(smem);
  auto& block = *reinterpret_cast<search::ExpandBlock*>(smem);
  unsigned* words = reinterpret_cast<unsigned*>(smem + sizeof(search::ExpandBlock));
  const DecodeStep& step = all.decode;
  const unsigned n = step.beams;
  const search::Expansion in{
      all.nodes,  all.bids,   all.ads,  all.ad_bids, all.rules, all.terms,    all.organic,
      all.ln_w,   all.rows,   all.chosen, all.sums,  all.beams, all.progress, all.layers,
      step.codes, all.positions, n,     step.requests};
  const search::Expanded out{all.beams, all.ln_z, all.best};
  share(team, n * requests.count, [&](unsigned unit) {
    const Place place{unit % n, requests.first + unit / n, 0, n, step.requests, 1};
    search::expand_block(place, in, step.logits, out, block, words);
  });
}

// The next beams of each request, by a block each.
template <class Team>
__device__ __noinline__ void select(const PersistentSearch& all, Team team, Requests requests) {
  DYN_SMEM(smem);
  auto& block = *reinterpret_cast<search::SelectBlock*>(smem);
  unsigned char* kept = smem + sizeof(search::SelectBlock);
  const DecodeStep& step = all.decode;
  const search::Selection in{
      all.nodes,    all.ads,         all.ad_bids,  all.ad_ids,     all.rules,
      all.seeds,    all.organic,     all.organic_ids, all.progress, all.beams,
      all.sums,     all.rows,        all.chosen,   all.chosen_ln_z, all.tokens,
      all.position, step.beams,      all.layers,   step.codes,     all.positions,
      all.first_code_token, all.boi, step.requests};
  const search::WaysOn on{step.logits, all.ln_z, all.best};
  share(team, requests.count, [&](unsigned unit) {
    const Place place{0, requests.first + unit, 0, 1, step.requests, 1};
    search::select_block(place, in, on, block, kept);
  });
}

// A cluster may stop with its request; a grid goes on for all. What the loop needs is read again
// where it is needed: registers are short while a position is decoded.
template <int HEAD, bool STOPS, class Team>
PTX_FN void search_by(const PersistentSearch& all, Team& team, Requests requests) {
  const DecodeStep& step = all.decode;
  Decode<HEAD, Team> decoder(step, team, requests);
  for (;;) {
    forget(requests.first);
    const unsigned* progress = all.progress + requests.first * search::PROGRESS;
    decoder.run_layers(progress + search::STEP);

    const unsigned t = progress[search::STEP];
    const unsigned* rules = all.rules + requests.first * search::RULES;
    const bool last = t == all.steps || (STOPS && search::is_over(progress, rules, all.layers));
    const size_t d = step.heads * HEAD;
    const __nv_bfloat16* head = last ? nullptr : step.head + t % all.layers * step.codes * d;
    decoder.finish(head, step.states + t * (step.requests * step.beams * d));
    if (last) break;
    expand(all, team, requests);
    team.sync();
    select(all, team, requests);
    team.sync();
  }
  team.leave();
}

template <int HEAD>
PTX_FN void search_by_cluster(const PersistentSearch& all) {
  ClusterTeam team;
  search_by<HEAD, true>(all, team, {blockIdx.y, 1});
}

template <int HEAD>
PTX_FN void search_by_grid(const PersistentSearch& all) {
  GridTeam team{all.decode.team};
  search_by<HEAD, false>(all, team, {0, all.decode.requests});
}

#else

// For other GPUs: the file loads there like any, and stops if it is launched.
template <int HEAD>
PTX_FN void search_by_cluster(const PersistentSearch&) {
  __trap();
}
template <int HEAD>
PTX_FN void search_by_grid(const PersistentSearch&) {
  __trap();
}

#endif  // HOPPER

extern "C" __global__ void __launch_bounds__(DECODE_THREADS, 1)
    persistent_search_cluster_32(const __grid_constant__ PersistentSearch all) {
  begin_kernel();
  search_by_cluster<32>(all);
}

extern "C" __global__ void __launch_bounds__(DECODE_THREADS, 1)
    persistent_search_cluster_64(const __grid_constant__ PersistentSearch all) {
  begin_kernel();
  search_by_cluster<64>(all);
}

extern "C" __global__ void __launch_bounds__(DECODE_THREADS, 1)
    persistent_search_grid_32(const __grid_constant__ PersistentSearch all) {
  begin_kernel();
  search_by_grid<32>(all);
}

extern "C" __global__ void __launch_bounds__(DECODE_THREADS, 1)
    persistent_search_grid_64(const __grid_constant__ PersistentSearch all) {
  begin_kernel();
  search_by_grid<64>(all);
}
