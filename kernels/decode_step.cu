// One position of the POI decoder in one launch; decode.cuh has the math, the arrays and the order
// of the sums.
//
//   decode_step_cluster_HEAD  grid (blocks of a cluster, requests): a cluster decodes a request by
//                             itself. As many blocks as the launch says, up to 16
//   decode_step_grid_HEAD     a cooperative launch of any number of blocks, all of which decode all
//                             requests together
//
// 256 threads. Shared memory: the most of 128 d (d rounded up to 64) + 32 KiB for normed rows, 48
// KiB for products, and 1,280 HEAD + 8 bytes for attention. HEAD is 32 or 64: one of 128 would spill.
// FLOP as the launches that it replaces; bytes of weights are read from L2 by each cluster, by a
// grid once for every 64 rows.
#include "decode.cuh"

#ifdef HOPPER

template <int HEAD>
PTX_FN void decode_by_cluster(const DecodeStep& step) {
  ClusterTeam team;
  Decode<HEAD, ClusterTeam> decoder(step, team, {blockIdx.y, 1});
  decoder.run_layers(step.newest);
  decoder.finish(step.head, step.states);
  team.leave();
}

template <int HEAD>
PTX_FN void decode_by_grid(const DecodeStep& step) {
  GridTeam team{step.team};
  Decode<HEAD, GridTeam> decoder(step, team, {0, step.requests});
  decoder.run_layers(step.newest);
  decoder.finish(step.head, step.states);
  team.leave();
}

#else

// For other GPUs: the file loads there like any, and stops if it is launched.
template <int HEAD>
PTX_FN void decode_by_cluster(const DecodeStep&) {
  __trap();
}
template <int HEAD>
PTX_FN void decode_by_grid(const DecodeStep&) {
  __trap();
}

#endif  // HOPPER

extern "C" __global__ void __launch_bounds__(DECODE_THREADS, 1)
    decode_step_cluster_32(const __grid_constant__ DecodeStep step) {
  begin_kernel();
  decode_by_cluster<32>(step);
}

extern "C" __global__ void __launch_bounds__(DECODE_THREADS, 1)
    decode_step_cluster_64(const __grid_constant__ DecodeStep step) {
  begin_kernel();
  decode_by_cluster<64>(step);
}

extern "C" __global__ void __launch_bounds__(DECODE_THREADS, 1)
    decode_step_grid_32(const __grid_constant__ DecodeStep step) {
  begin_kernel();
  decode_by_grid<32>(step);
}

extern "C" __global__ void __launch_bounds__(DECODE_THREADS, 1)
    decode_step_grid_64(const __grid_constant__ DecodeStep step) {
  begin_kernel();
  decode_by_grid<64>(step);
}
