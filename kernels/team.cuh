// Blocks that do a piece of work together, phase after phase: what one phase wrote, the next may
// read wherever it runs.
//
// A team has `blocks()` blocks with ranks from 0 up. Every thread of it calls `sync` between two
// phases, and `leave` once after its last. Between them a phase is cut into units that each take a
// block, as a launch of its own would have blocks: `share` deals them out.
//
// What the team writes may be read by the same launch. So no kernel that has a team reads such
// memory past coherence: through a parameter `const T* __restrict__`, load_stream16 or a bulk copy.
#pragma once

#include "grid.cuh"

#ifdef HOPPER

// The blocks of a cluster, in a grid that is one cluster wide. blockIdx and gridDim say what
// cluster_rank and cluster_blocks would, and take no registers in between.
struct ClusterTeam {
  PTX_FN unsigned rank() const { return blockIdx.x; }
  PTX_FN unsigned blocks() const { return gridDim.x; }

  // Release and acquire are of the cluster's scope, which orders device memory too.
  PTX_FN void sync(LOC0) {
    EMU(cluster_arrive(loc), cluster_arrive());
    EMU(cluster_wait(loc), cluster_wait());
  }

  PTX_FN void leave() {}
};

// All blocks of a cooperative launch, in one dimension. `counters` [2] in device memory are zeros
// before the launch, and again after it.
struct GridTeam {
  unsigned* counters;
  unsigned round = 0;

  PTX_FN unsigned rank() const { return blockIdx.x; }
  PTX_FN unsigned blocks() const { return gridDim.x; }

  PTX_FN void sync(LOC0) {
    EMU(grid_barrier(counters, round, loc), grid_barrier(counters, round));
    round++;
  }

  // Who leaves last knows that no block waits at the barrier any more.
  PTX_FN void leave() {
    if (threadIdx.x != 0) return;
    __threadfence();
    if (atomicAdd(counters + 1, 1) != blocks() - 1) return;
    __threadfence();
    atomicExch(counters, 0);
    atomicExch(counters + 1, 0);
  }
};

// Runs `work(unit)` for every unit below `units`, each by one block of the team, which may use all
// of its shared memory and must come back with all its threads. A `sync` must follow before another
// phase reads what was done.
template <class Team, class Work>
PTX_FN void share(const Team& team, unsigned units, Work work) {
  for (unsigned unit = team.rank(); unit < units; unit += team.blocks()) {
    work(unit);
    __syncthreads();  // the next unit writes to the shared memory that this one read
  }
}

#endif  // HOPPER
