// Cooperative launches: what every block writes reaches every other behind a grid barrier.
#include "../../../kernels/team.cuh"

#ifdef HOPPER

// In each round block b replaces its row of x [blocks][threads] by its next block's row of the round
// before, backwards, plus 1. `other` is as large, and holds the result after an odd number of
// rounds.
extern "C" __global__ void grid_rounds(float* x, float* other, unsigned* counter, unsigned rounds) {
  const unsigned t = threadIdx.x, threads = blockDim.x, blocks = gridDim.x;
  const unsigned next = (blockIdx.x + 1) % blocks;
  for (unsigned round = 0; round < rounds; round++) {
    const float* from = round % 2 ? other : x;
    float* to = round % 2 ? x : other;
    to[blockIdx.x * threads + t] = from[next * threads + threads - 1 - t] + 1;
    grid_barrier(counter, round);
  }
}

// The same barrier as kernels for any GPU write it: a fence and an atomic, polls, and a fence.
// y [blocks][64] = x of the next block [blocks][64], doubled.
extern "C" __global__ void grid_fences(const float* x, float* doubled, float* y,
                                       unsigned* counter) {
  const unsigned t = threadIdx.x, next = (blockIdx.x + 1) % gridDim.x;
  doubled[blockIdx.x * 64 + t] = 2 * x[blockIdx.x * 64 + t];
  __syncthreads();
  if (t == 0) {
    __threadfence();
    atomicAdd(counter, 1u);
    while (atomicAdd(counter, 0u) < gridDim.x) __nanosleep(20);
    __threadfence();
  }
  __syncthreads();
  y[blockIdx.x * 64 + t] = doubled[next * 64 + t];
}

// Clusters in a cooperative launch: a block's row of x [blocks][64] goes to the next block of its
// cluster through shared memory, and from there to the same rank of the next cluster through
// `passed` [blocks][64], and so to y [blocks][64]. 256 bytes of shared memory.
extern "C" __global__ void grid_of_clusters(const float* x, float* passed, float* y,
                                            unsigned* counter) {
  DYN_SMEM(bytes);
  float* row = reinterpret_cast<float*>(bytes);
  const unsigned t = threadIdx.x, rank = cluster_rank(), size = cluster_blocks();
  row[t] = x[blockIdx.x * 64 + t];
  cluster_arrive();
  cluster_wait();
  passed[blockIdx.x * 64 + t] = cluster_pointer(row, (rank + 1) % size)[t];
  cluster_arrive();
  cluster_wait();
  grid_barrier(counter, 0);
  y[blockIdx.x * 64 + t] = passed[(blockIdx.x + size) % gridDim.x * 64 + t];
}

// In each round every unit u of x [units][blockDim.x] becomes unit u + 1 of the round before, plus
// 1, dealt out over the team's blocks. `other` is as large, and holds the result after an odd number
// of rounds. Blocks pass a unit through shared memory, 4 * blockDim.x bytes, in the reverse order.
template <class Team>
PTX_FN void team_rounds(Team team, float* x, float* other, unsigned units, unsigned rounds) {
  DYN_SMEM(bytes);
  float* row = reinterpret_cast<float*>(bytes);
  const unsigned t = threadIdx.x, threads = blockDim.x;
  for (unsigned round = 0; round < rounds; round++) {
    const float* from = round % 2 ? other : x;
    float* to = round % 2 ? x : other;
    share(team, units, [=](unsigned unit) {
      row[threads - 1 - t] = from[(unit + 1) % units * threads + t];
      __syncthreads();
      to[unit * threads + t] = row[t] + 1;
    });
    team.sync();
  }
  team.leave();
}

extern "C" __global__ void team_of_a_grid(float* x, float* other, unsigned* counters,
                                          unsigned units, unsigned rounds) {
  team_rounds(GridTeam{counters}, x, other, units, rounds);
}

extern "C" __global__ void team_of_a_cluster(float* x, float* other, unsigned units,
                                             unsigned rounds) {
  team_rounds(ClusterTeam{}, x, other, units, rounds);
}

#endif  // HOPPER
