// The groups that the probes use, of blocks that are threads of the host.
#pragma once

#include "cuda_runtime.h"

namespace cooperative_groups {

struct grid_group {
  void sync() { ::grid_group->meeting.arrive_and_wait(); }
};

struct cluster_group {
  void sync() { ::cluster_group->meeting.arrive_and_wait(); }
  unsigned block_rank() const { return cluster_rank; }
  unsigned num_blocks() const { return ::cluster_group->anchors.size(); }

  // The same variable of another block: as far from its anchor as here from this one.
  template <typename T>
  T* map_shared_rank(T* own, unsigned rank) const {
    return reinterpret_cast<T*>(::cluster_group->anchors[rank] + (reinterpret_cast<char*>(own) - &anchor));
  }
};

inline grid_group this_grid() { return {}; }
inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
