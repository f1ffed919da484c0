// A worker runs the blocks of one launch at a time, one after another, on the thread of the host
// that called it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "bulk_copy.h"
#include "check/checker.h"
#include "fault.h"
#include "fiber.h"
#include "simt/kernel.h"
#include "wgmma.h"

namespace simt {

struct LoadedLibrary;

inline constexpr unsigned kWarpLanes = 32;
inline constexpr unsigned kMaxThreads = 1024;  // of a block
// Of all blocks that run at the same time.
inline constexpr unsigned kMaxWarps = Checker::kMostWarps;
// A set of them, bit by bit.
__extension__ typedef unsigned __int128 Warps;
static_assert(kMaxWarps <= sizeof(Warps) * 8);
inline Warps set_of(unsigned warp) { return Warps{1} << warp; }
inline constexpr unsigned kBarriers = 16;
// What a block of sm_90 may have at most: 227 KiB.
inline constexpr uint32_t kMaxDynamicShared = 232448;
// What the dynamic parts of blocks that run at the same time lie apart.
inline constexpr uint32_t kDynamicStride = 256 << 10;
// Blocks that run at the same time, in one cluster or several.
inline constexpr unsigned kMaxBlocks = 16;

// The order in which ready threads run. The same numbers as in src/schedule.rs, as for `Copies`.
enum class Schedule : uint32_t { kForward, kReverse, kRandom };
// When an asynchronous copy lands: at once, when it is waited for, or either by chance.
enum class Copies : uint32_t { kEager, kLazy, kRandom };

class Random {
 public:
  void seed(uint64_t seed) { state_ = seed * 0x9e3779b97f4a7c15u | 1; }
  uint32_t next() {  // xorshift64*
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return uint32_t(state_ * 0x2545f4914f6cdd1du >> 32);
  }
  uint32_t below(uint32_t bound) { return uint32_t(uint64_t(next()) * bound >> 32); }

 private:
  uint64_t state_ = 1;
};

struct Warp {
  uint32_t live;     // lanes that have not exited
  uint32_t ready;    // lanes that can run
  uint32_t arrived;  // lanes that wait in a collective
  // What each of those lanes has come with. Here and not in the fibers: the last to arrive reads
  // all of it.
  Collective collectives[kWarpLanes];
  uint32_t masks[kWarpLanes];
  void* payloads[kWarpLanes];
  WarpClock clock;
  WarpProducts products;  // wgmma
};

// A hardware barrier, 0 to 15.
struct Barrier {
  unsigned arrived;
  unsigned expected;            // threads; 0 for all that are alive (__syncthreads)
  uint32_t generation;          // completed uses
  uint32_t waiting[kMaxWarps];  // lanes that wait
  Warps syncing_warps;          // that wait with an explicit count, and so take part in `clock`
  unsigned count;               // of true predicates, for __syncthreads_count and its siblings
  unsigned last_count, last_arrived;
  ReleaseClock clock;
};

// An mbarrier's part that is not in its 64 bits of shared memory.
struct Mbarrier {
  const void* state;  // those bits
  ReleaseClock clock;
  Fiber* initialiser;
  bool for_copies;  // fenced since, so that bulk copies may count on it
  // What bulk copies have written: in the phase in progress, and in those before it, which no
  // thread has waited for yet.
  std::vector<Landing> landing, landed;
};

// The barrier of all threads of a cluster.
struct ClusterBarrier {
  unsigned arrived;
  uint32_t completed;          // uses
  ReleaseClock clock;          // of the use in progress
  ReleaseClock released;       // of the last completed one
  uint32_t waiting[kMaxWarps];  // lanes that wait
};

// Where shared memory lies. The 32-bit window of shared addresses holds the static part, then the
// dynamic. Blocks that run at the same time have their dynamic parts kDynamicStride apart, and no
// static part; in an address the bits from kRankShift on are 0 for the thread's own block, or the
// index among them of a block of its cluster, and 1.
struct SharedMemory {
  static constexpr unsigned kRankShift = 24;
  static constexpr uint32_t kStaticBase = 1024;  // so that 0 is not a shared address
  char* static_begin;
  uint32_t static_bytes;
  char* dynamic_begin;
  uint32_t dynamic_bytes;
  uint32_t dynamic_base;
};

struct Stats {
  uint64_t blocks, switches, collectives, accesses;
};

struct Worker {
  Stacks fibers;
  void* host_stack_pointer;  // of the caller of the launch, while fibers run

  // The launch
  const LoadedLibrary* library;
  const Kernel* kernel;
  void* const* arguments;
  Schedule schedule;
  Copies copies;
  bool dependent;  // threads must wait for earlier kernels
  Random schedule_random, copy_random;
  Stats stats;
  std::optional<Fault> fault;

  // The blocks that run at the same time: one, a cluster, or the whole grid of a cooperative launch.
  // Their warps are numbered on: what is said of threads and warps below is said of all of them.
  unsigned blocks, cluster_blocks, block_threads, block_warps;
  unsigned threads, warp_count, live;
  unsigned live_in_block[kMaxBlocks];
  Warps ready_warps;
  uint64_t idle_yields;  // since something other than a yield happened
  Warp warps[kMaxWarps];
  Barrier barriers[kMaxBlocks][kBarriers];
  ClusterBarrier cluster_barriers[kMaxBlocks];  // of each cluster
  unsigned block_waits;  // threads that wait in a barrier of all threads
  SharedMemory shared;
  std::vector<Mbarrier> mbarriers;
  std::vector<BulkCopy> loads, stores;  // that have not landed

  Checker checker;

  Fiber* fiber(unsigned warp, unsigned lane) const { return fibers[warp * kWarpLanes + lane]; }
  char* dynamic_shared(unsigned block) const {
    return shared.dynamic_begin + size_t{block} * kDynamicStride;
  }
  // The first block of the cluster that a block is in.
  unsigned cluster_first(unsigned block) const { return block - block % cluster_blocks; }
};

// ---- scheduler.cpp

// Sets up the fibers of `worker.blocks` blocks from block `first` of the grid on, counted along x,
// then y, then z, and runs them to their end, or to a fault.
void run_blocks(Worker& worker, uint64_t first, dim3 block_size, dim3 grid_size);
// Makes a waiting fiber ready.
void wake(Fiber* fiber);
// Waits with this status until woken. The caller has noted what it waits for.
void suspend(Status status);
// Leaves the block for good, with a fault set.
[[noreturn]] void abandon_block();

// ---- dependent.cpp

// Faults if a thread that exits had to wait for earlier kernels, and has not.
void check_waited_for_grids(Fiber* fiber);

// ---- mbarrier.cpp

// The initialised mbarrier at a shared address, checked for its use by bulk copies.
Mbarrier& mbarrier_for_copies(Fiber* fiber, uint32_t address, loc_t loc);
// `landing` has been written by a copy whose issuer released `clock`: complete_tx.
void complete_copy(Worker& worker, const void* state, const Landing& landing,
                   const ReleaseClock& clock);
// Faults if a copy that counts on an mbarrier is under way or was never waited for.
void check_all_copies_waited(Worker& worker);

// ---- bulk_copy.cpp

// Lands a bulk load that is under way, if there is one.
bool land_a_load(Worker& worker);
// Faults if bulk stores of a thread that exits have not been waited for.
void check_stores_waited(Fiber* fiber);

// ---- wgmma.cpp

// Faults if products of a thread that exits have not been waited for.
void check_products_waited(Fiber* fiber);
// Faults if an access to a thread's own stack meets an accumulator of a product under way.
void wgmma_touched(Fiber* fiber, uintptr_t address, size_t bytes, bool writes,
                   uint64_t instruction);
// Faults if the warps of a warpgroup have not issued the same products.
void check_warpgroups_agree(Worker& worker);

// ---- barrier.cpp

// A thread of this block has exited: a barrier of all threads may be complete.
void release_after_exit(Worker& worker, unsigned block);

// ---- cluster.cpp

// Likewise, for the barrier of this block's cluster.
void release_cluster_after_exit(Worker& worker, unsigned block);

// ---- warp.cpp

// Faults if lanes of this fiber's warp wait for it in a collective, for it exits.
void check_no_lane_waits_for(Fiber* fiber);

}  // namespace simt
