// A fiber: a CUDA thread with a stack of its own, which runs until it waits for others.
#pragma once

#include <string>
#include <vector>

#include "simt/runtime.h"
#include "simt/thread.h"

namespace simt {

// What a fiber does, or waited for when it last stopped: `Warp::ready` tells whether it can go on.
enum class Status : uint8_t { kRunning, kAtBarrier, kAtCollective, kAtMbarrier, kDone };

// A cp.async that has not landed.
struct PendingCopy {
  uint32_t to;  // shared address
  const char* source;
  uint32_t bytes, source_bytes;
  uint32_t group;
};

struct alignas(64) Fiber : Thread {
  void* stack_pointer;    // while it does not run
  Status status;
  bool fenced;            // has executed __threadfence in this block
  bool wgmma_fenced;      // has executed wgmma.fence in this block
  bool after_grids;       // has waited for earlier kernels, or need not
  const void* mbarrier;   // that it waits at
  uint32_t copy_group;    // cp.async groups committed so far
  uint32_t bulk_group;    // groups of bulk stores committed so far
  uint32_t block;         // index of its block among those that run at the same time
  uint32_t cluster_waits; // cluster barriers it has passed
  bool cluster_arrived;   // and has arrived at the next
  uint32_t proxy_fenced;  // time of the last fence.proxy.async, for the checker
  loc_t place;            // where it last called the emulator
  std::vector<PendingCopy> copies;

  uintptr_t stack() const { return reinterpret_cast<uintptr_t>(this) & ~(kStackBytes - 1); }
  bool owns(uintptr_t address) const { return address - stack() < kStackBytes; }
  std::string describe() const;
};
static_assert(sizeof(Fiber) <= kRecordBytes);

inline Fiber* current_fiber() { return static_cast<Fiber*>(current()); }

// The stacks of a worker, with a guard page at the low end of each.
class Stacks {
 public:
  Stacks() = default;
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  ~Stacks();

  // Makes room for `count` fibers; those that exist keep their place.
  void grow(unsigned count);
  Fiber* operator[](unsigned index) const { return fibers_[index]; }
  // The fiber whose stack holds `address`, or null.
  Fiber* owner(uintptr_t address) const;

 private:
  std::vector<Fiber*> fibers_;
  std::vector<void*> mappings_;
};

// Makes `fiber` start in `entry` when it is first switched to.
void prepare(Fiber* fiber, void (*entry)());
// Leaves the running context, whose stack pointer goes to *save, for the one whose stack pointer is
// `to`.
extern "C" void simt_switch(void** save, void* to);

}  // namespace simt
