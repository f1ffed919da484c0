// How fast memory is read: the device's, the L2 cache, and the shared memory of other blocks of a cluster.
//
// All threads read 16 bytes at a time and take the exclusive or of all words, which is compared with that of what was
// written; a pass is a read of everything once. The rate is that of the passes by which two launches differ.

#include <cooperative_groups.h>

#include "probe.h"

namespace probes {
namespace {

namespace cg = cooperative_groups;

constexpr int THREADS = 512;
constexpr int BLOCKS_PER_SM = 4;
constexpr int CLUSTER_SHARED = 64 << 10;

// What lies at place `i` of the shared memory of a block: words whose exclusive or tells the blocks apart.
__host__ __device__ unsigned word(unsigned rank, unsigned i) { return (rank + 1) * (i * 2654435761u + 1); }

__device__ unsigned folded(uint4 v) { return v.x ^ v.y ^ v.z ^ v.w; }

// data [words / 4] is read `passes` times past L1; found [gridDim.x * blockDim.x].
__global__ void read_memory(const uint4* data, size_t vectors, unsigned passes, unsigned* found) {
  unsigned sum = 0;
  size_t thread = blockIdx.x * size_t(blockDim.x) + threadIdx.x, threads = gridDim.x * size_t(blockDim.x);
  for (unsigned pass = 0; pass < passes; pass++) {
#pragma unroll 8
    for (size_t i = thread; i < vectors; i += threads) sum ^= folded(__ldcg(data + i));
    // Else the passes would be seen to cancel out.
    sum = sum * 2 + 1;
  }
  found[thread] = sum;
}

// Each block fills `bytes` of its shared memory, then reads that of the block `distance` on,
// `passes` times; found [gridDim.x * blockDim.x].
__global__ void read_cluster(unsigned bytes, unsigned distance, unsigned passes, unsigned* found) {
  extern __shared__ uint4 own[];
  cg::cluster_group cluster = cg::this_cluster();
  unsigned vectors = bytes / sizeof(uint4), rank = cluster.block_rank();
  for (unsigned i = threadIdx.x; i < vectors; i += blockDim.x) own[i] = {word(rank, i), 0, 0, 0};
  cluster.sync();
  const uint4* other = cluster.map_shared_rank(own, (rank + distance) % cluster.num_blocks());
  unsigned sum = 0;
  for (unsigned pass = 0; pass < passes; pass++) {
#pragma unroll 8
    for (unsigned i = threadIdx.x; i < vectors; i += blockDim.x) sum ^= folded(other[i]);
    sum = sum * 2 + 1;
  }
  found[blockIdx.x * blockDim.x + threadIdx.x] = sum;
  // No block may end while another reads its shared memory.
  cluster.sync();
}

// What a thread finds in `passes` passes over words whose exclusive or is `once`.
unsigned expected(unsigned once, unsigned passes) {
  unsigned sum = 0;
  for (unsigned pass = 0; pass < passes; pass++) sum = (sum ^ once) * 2 + 1;
  return sum;
}

// Rates in GB/s of times per pass in microseconds.
std::vector<double> rates(std::vector<double> microseconds, double bytes) {
  for (double& time : microseconds) time = bytes / time / 1e3;
  return microseconds;
}

Figure memory_read(const char* what, size_t megabytes, int few, int many) {
  size_t vectors = megabytes * 1000 * 1000 / sizeof(uint4);
  int blocks = multiprocessors() * BLOCKS_PER_SM;
  size_t threads = size_t(blocks) * THREADS;
  std::vector<uint4> values(vectors);
  std::vector<unsigned> once(threads, 0);
  for (size_t i = 0; i < vectors; i++) {
    unsigned word = unsigned(i) * 2654435761u;
    values[i] = {word, word >> 7, 0, 5};
    once[i % threads] ^= word ^ word >> 7 ^ 5;
  }
  Memory<uint4> data(vectors);
  Memory<unsigned> found(threads);
  data.upload(values);
  Timer timer;
  auto passes = [&](int count) {
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = THREADS;
    config.stream = timer.stream();
    CHECK(cudaLaunchKernelEx(&config, read_memory, (const uint4*)data.data(), vectors, unsigned(count), found.data()));
  };
  auto costs = timer.per_step(passes, few, many);
  auto sums = found.download();
  for (size_t thread = 0; thread < threads; thread++) {
    require(sums[thread] == expected(once[thread], many), std::string(what) + ": another sum than was written");
  }
  double bytes = double(vectors) * sizeof(uint4);
  return {what, "GB/s", rates(costs, bytes), {{"bytes", bytes}, {"blocks", double(blocks)}, {"threads", THREADS}}};
}

Figure cluster_read(int cluster, int distance, bool full) {
  constexpr int FEW = 20, MANY = 220;
  Timer timer;
  ClusterLaunch launch(read_cluster, cluster, THREADS, CLUSTER_SHARED);
  int clusters = full ? launch.resident() : 1;
  require(clusters > 0, "no cluster of " + std::to_string(cluster) + " blocks fits");
  int blocks = clusters * cluster;
  Memory<unsigned> found(size_t(blocks) * THREADS);
  auto passes = [&](int count) {
    launch.launch(read_cluster, clusters, timer.stream(), CLUSTER_SHARED, distance, count, found.data());
  };
  auto costs = timer.per_step(passes, FEW, MANY);
  std::string what = "shared memory of the block " + std::to_string(distance) + " on, clusters of " +
                     std::to_string(cluster) + (full ? ", all resident" : ", one");
  auto sums = found.download();
  for (int block = 0; block < blocks; block++) {
    unsigned rank = (block % cluster + distance) % cluster;
    for (unsigned thread = 0; thread < THREADS; thread++) {
      unsigned once = 0;
      for (unsigned i = thread; i < CLUSTER_SHARED / sizeof(uint4); i += THREADS) once ^= word(rank, i);
      require(sums[block * THREADS + thread] == expected(once, MANY), what + ": another sum than was written");
    }
  }
  double bytes = double(blocks) * CLUSTER_SHARED;
  return {what, "GB/s", rates(costs, bytes), {{"bytes", bytes}, {"clusters", double(clusters)}, {"threads", THREADS}}};
}

}  // namespace

std::vector<Figure> memory_reads() {
  return {
      memory_read("L2, 8 MB", 8, 20, 220),
      memory_read("L2, 24 MB", 24, 10, 110),
      memory_read("L2, 40 MB", 40, 10, 110),
      memory_read("device memory, 1 GB", 1000, 1, 5),
  };
}

std::vector<Figure> cluster_reads() {
  std::vector<Figure> found;
  for (int cluster : {4, 8, 16}) {
    for (int distance : {0, 1, cluster / 2}) {
      for (bool full : {false, true}) found.push_back(cluster_read(cluster, distance, full));
    }
  }
  return found;
}

}  // namespace probes
