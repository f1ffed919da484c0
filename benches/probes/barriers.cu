// What a barrier costs: of a whole grid that is resident at once, and of a cluster.
//
// A kernel passes `rounds` barriers and does nothing else; the cost of one is the difference between two launches of
// many and of few, so that the launch itself drops out. Before it is timed, a launch of the same kernel checks the
// barrier: in each round a block leaves the round's number, and after the barrier finds it with another block.

#include <cooperative_groups.h>

#include <cuda/atomic>

#include "probe.h"

namespace probes {
namespace {

namespace cg = cooperative_groups;

constexpr int FEW = 100;
constexpr int MANY = 1100;

// One counter for all blocks: the last of round r brings it to (r + 1) * gridDim.x.
struct CounterBarrier {
  unsigned* arrived;

  __device__ void wait(unsigned round) const {
    __syncthreads();
    if (threadIdx.x == 0) {
      cuda::atomic_ref<unsigned, cuda::thread_scope_device> counter(*arrived);
      counter.fetch_add(1, cuda::memory_order_release);
      while (counter.load(cuda::memory_order_acquire) < (round + 1) * gridDim.x) {
      }
    }
    __syncthreads();
  }
};

struct CooperativeBarrier {
  unsigned* arrived;

  __device__ void wait(unsigned) const { cg::this_grid().sync(); }
};

// marks [2, gridDim.x], faults [1]; all blocks resident. A mark is overwritten two rounds later: whoever had to read it
// has passed the barrier between.
template <typename Barrier, bool CHECKED>
__global__ void grid_rounds(unsigned* arrived, unsigned* marks, unsigned* faults, unsigned rounds) {
  Barrier barrier{arrived};
  unsigned blocks = gridDim.x;
  for (unsigned round = 0; round < rounds; round++) {
    volatile unsigned* marked = marks + round % 2 * blocks;
    if (CHECKED && threadIdx.x == 0) marked[blockIdx.x] = round + 1;
    barrier.wait(round);
    if (CHECKED && threadIdx.x == 0 && marked[(blockIdx.x + 1 + round) % blocks] != round + 1) atomicAdd(faults, 1u);
  }
}

// What was written before it is seen by the cluster after it.
struct OrderedBarrier {
  __device__ static void wait() { cg::this_cluster().sync(); }
};

// Orders nothing but who goes on: for what is not written, or fenced by itself.
struct RelaxedBarrier {
  __device__ static void wait() {
    __cluster_barrier_arrive_relaxed();
    __cluster_barrier_wait();
  }
};

// One cluster or many, each by itself; faults [1].
template <typename Barrier, bool CHECKED>
__global__ void cluster_rounds(unsigned* faults, unsigned rounds) {
  __shared__ unsigned marked[2];
  cg::cluster_group cluster = cg::this_cluster();
  for (unsigned round = 0; round < rounds; round++) {
    if (CHECKED && threadIdx.x == 0) marked[round % 2] = round + 1;
    Barrier::wait();
    if (CHECKED && threadIdx.x == 0) {
      unsigned rank = (cluster.block_rank() + 1 + round) % cluster.num_blocks();
      if (*cluster.map_shared_rank(&marked[round % 2], rank) != round + 1) atomicAdd(faults, 1u);
    }
  }
  // No block may end while another reads its shared memory.
  cluster.sync();
}

template <typename Barrier>
Figure grid_barrier(const char* name, int threads) {
  int blocks = multiprocessors();
  Memory<unsigned> arrived(1), marks(2 * blocks), faults(1);
  faults.zero();
  marks.zero();
  Timer timer;
  auto launch = [&](void (*kernel)(unsigned*, unsigned*, unsigned*, unsigned), int rounds) {
    unsigned *counter = arrived.data(), *mark = marks.data(), *fault = faults.data(), count = rounds;
    void* arguments[] = {&counter, &mark, &fault, &count};
    CHECK(cudaMemsetAsync(counter, 0, sizeof *counter, timer.stream()));
    CHECK(cudaLaunchCooperativeKernel(kernel, dim3(blocks), dim3(threads), arguments, 0, timer.stream()));
  };
  launch(grid_rounds<Barrier, true>, FEW);
  CHECK(cudaStreamSynchronize(timer.stream()));
  require(faults.download()[0] == 0, std::string(name) + " lets blocks pass early");
  auto costs = timer.per_step([&](int rounds) { launch(grid_rounds<Barrier, false>, rounds); }, FEW, MANY);
  return {name, "us", costs, {{"blocks", double(blocks)}, {"threads", double(threads)}}};
}

// The ordered barrier is checked; what the relaxed one leaves open shows in nothing that may be relied on.
void check_cluster_barrier(int cluster, int threads, Timer& timer, Memory<unsigned>& faults) {
  auto kernel = cluster_rounds<OrderedBarrier, true>;
  ClusterLaunch checked(kernel, cluster, threads, 0);
  checked.launch(kernel, 1, timer.stream(), faults.data(), FEW);
  CHECK(cudaStreamSynchronize(timer.stream()));
  require(faults.download()[0] == 0, "the cluster barrier lets blocks pass early");
}

template <typename Barrier>
Figure cluster_barrier(const char* name, int cluster, bool full, int threads) {
  Memory<unsigned> faults(1);
  faults.zero();
  Timer timer;
  check_cluster_barrier(cluster, threads, timer, faults);
  auto kernel = cluster_rounds<Barrier, false>;
  ClusterLaunch timed(kernel, cluster, threads, 0);
  int clusters = full ? timed.resident() : 1;
  require(clusters > 0, "no cluster of " + std::to_string(cluster) + " blocks fits");
  auto rounds = [&](int count) { timed.launch(kernel, clusters, timer.stream(), faults.data(), count); };
  std::string what = std::string(name) + ", " + std::to_string(cluster) + " blocks, " + (full ? "all resident" : "one");
  return {what, "us", timer.per_step(rounds, FEW, MANY), {{"clusters", double(clusters)}, {"threads", double(threads)}}};
}

}  // namespace

std::vector<Figure> grid_barriers() {
  std::vector<Figure> found;
  for (int threads : {128, 384}) {
    found.push_back(grid_barrier<CounterBarrier>("grid barrier, one counter", threads));
    found.push_back(grid_barrier<CooperativeBarrier>("grid barrier, cooperative groups", threads));
  }
  return found;
}

std::vector<Figure> cluster_barriers() {
  std::vector<Figure> found;
  for (int cluster : {4, 8, 16}) {
    for (bool full : {false, true}) {
      found.push_back(cluster_barrier<OrderedBarrier>("cluster barrier", cluster, full, 384));
      found.push_back(cluster_barrier<RelaxedBarrier>("cluster barrier without order", cluster, full, 384));
    }
  }
  return found;
}

}  // namespace probes
