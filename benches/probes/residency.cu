// How many clusters are on the device at once: by the runtime's word, and as seen.
//
// Twice as many clusters as the runtime says are launched. Each counts itself and stays for a while: those of the first
// wave find as many as there are on the device, since none of them has left.

#include <cooperative_groups.h>

#include <algorithm>

#include "probe.h"

namespace probes {
namespace {

namespace cg = cooperative_groups;

constexpr int THREADS = 384;
// Some milliseconds, in which every cluster that fits has begun.
constexpr long long STAY_CYCLES = 8'000'000;

// begun [1], seen [clusters]: how many clusters had begun when this one left.
__global__ void stay(unsigned* begun, unsigned* seen, long long cycles) {
  cg::cluster_group cluster = cg::this_cluster();
  bool first = cluster.block_rank() == 0 && threadIdx.x == 0;
  long long start = clock64();
  if (first) atomicAdd(begun, 1u);
  while (clock64() - start < cycles) __nanosleep(1000);
  if (first) seen[blockIdx.x / cluster.num_blocks()] = atomicAdd(begun, 0u);
  // The whole cluster stays until its first block has looked.
  cluster.sync();
}

std::vector<Figure> resident(int cluster, int shared_bytes) {
  Timer timer;
  ClusterLaunch launch(stay, cluster, THREADS, shared_bytes);
  std::string what = "resident clusters of " + std::to_string(cluster) + ", " + std::to_string(shared_bytes >> 10) +
                     " KiB of shared memory a block, ";
  Figure told = {what + "by the runtime", "", {double(launch.resident())}, {}};
  int clusters = std::max(2 * launch.resident(), 1);
  Memory<unsigned> begun(1), seen(clusters);
  Figure counted = {what + "as seen", "", {}, {{"launched", double(clusters)}}};
  for (int sample = 0; sample < 5 && launch.resident() > 0; sample++) {
    begun.zero();
    launch.launch(stay, clusters, timer.stream(), begun.data(), seen.data(), STAY_CYCLES);
    CHECK(cudaStreamSynchronize(timer.stream()));
    auto counts = seen.download();
    require(*std::max_element(counts.begin(), counts.end()) == unsigned(clusters), what + "not all have run");
    counted.samples.push_back(*std::min_element(counts.begin(), counts.end()));
  }
  if (counted.samples.empty()) counted.samples.push_back(0);
  return {told, counted};
}

}  // namespace

std::vector<Figure> resident_clusters() {
  std::vector<Figure> found;
  for (int cluster : {4, 8, 16}) {
    for (int shared_bytes : {0, 100 << 10, 200 << 10}) {
      auto both = resident(cluster, shared_bytes);
      found.insert(found.end(), both.begin(), both.end());
    }
  }
  return found;
}

}  // namespace probes
