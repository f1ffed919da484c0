// Clusters: blocks that run at the same time and see each other's shared memory.
#include <numeric>

#include "simt/hopper.h"
#include "worker.h"

namespace simt {
namespace {

ClusterBarrier& barrier_of(Worker& worker, unsigned block) {
  return worker.cluster_barriers[block / worker.cluster_blocks];
}

unsigned live_in_cluster(const Worker& worker, unsigned block) {
  const unsigned* first = worker.live_in_block + worker.cluster_first(block);
  return std::accumulate(first, first + worker.cluster_blocks, 0u);
}

void complete(Worker& worker, ClusterBarrier& barrier) {
  barrier.released = barrier.clock;
  barrier.clock = {};
  barrier.arrived = 0;
  barrier.completed++;
  for (unsigned w = 0; w < worker.warp_count; w++) {
    for (uint32_t lanes = barrier.waiting[w]; lanes; lanes &= lanes - 1) {
      wake(worker.fiber(w, unsigned(__builtin_ctz(lanes))));
    }
    barrier.waiting[w] = 0;
  }
}

}  // namespace

unsigned cluster_rank() { return current_fiber()->block % cluster_blocks(); }

unsigned cluster_blocks() { return current()->worker->cluster_blocks; }

void cluster_arrive(loc_t loc) {
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  ClusterBarrier& barrier = barrier_of(worker, fiber->block);
  fiber->place = loc;
  if (fiber->cluster_arrived) {
    fail(FaultKind::kBarrier, loc, "a second arrival at the cluster's barrier without a wait");
  }
  fiber->cluster_arrived = true;
  worker.checker.release(worker.warps[fiber->warp].clock, fiber->warp, barrier.clock);
  if (++barrier.arrived == live_in_cluster(worker, fiber->block)) complete(worker, barrier);
}

void cluster_wait(loc_t loc) {
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  ClusterBarrier& barrier = barrier_of(worker, fiber->block);
  fiber->place = loc;
  if (!fiber->cluster_arrived) {
    fail(FaultKind::kBarrier, loc, "a wait at the cluster's barrier without an arrival");
  }
  while (barrier.completed == fiber->cluster_waits) {
    barrier.waiting[fiber->warp] |= 1u << fiber->lane;
    suspend(Status::kAtBarrier);
  }
  fiber->cluster_arrived = false;
  fiber->cluster_waits++;
  worker.checker.acquire(worker.warps[fiber->warp].clock, barrier.released);
}

uint32_t map_shared(uint32_t address, uint32_t rank, loc_t loc) {
  if (rank >= cluster_blocks()) {
    fail(FaultKind::kOutOfBounds, loc,
         format("block %u of a cluster of %u", rank, cluster_blocks()));
  }
  uint32_t offset = address & ((1u << SharedMemory::kRankShift) - 1);
  const Fiber* fiber = current_fiber();
  uint32_t block = fiber->worker->cluster_first(fiber->block) + rank;
  return offset | (block + 1) << SharedMemory::kRankShift;
}

void* map_pointer(const void* pointer, uint32_t rank, loc_t loc) {
  uint32_t address = map_shared(to_smem(pointer, loc), rank, loc);
  return from_smem(address, 0, 1, loc);
}

void release_cluster_after_exit(Worker& worker, unsigned block) {
  ClusterBarrier& barrier = barrier_of(worker, block);
  if (barrier.arrived && barrier.arrived == live_in_cluster(worker, block)) {
    complete(worker, barrier);
  }
}

}  // namespace simt
