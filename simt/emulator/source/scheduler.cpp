// Which fiber runs next, and what happens when none can.
#include <algorithm>
#include <cstring>
#include <map>

#include "worker.h"

namespace simt {
namespace {

// So many turns in a row in which threads only yield: what they wait for will not come.
constexpr uint64_t kMaxIdleYields = 1 << 20;

// Of a set of lanes or of warps that is not empty: the lowest, the highest, and how many.
unsigned lowest(uint32_t lanes) { return unsigned(__builtin_ctz(lanes)); }
unsigned lowest(Warps warps) {
  auto low = uint64_t(warps);
  return unsigned(low ? __builtin_ctzll(low) : 64 + __builtin_ctzll(uint64_t(warps >> 64)));
}
unsigned highest(uint32_t lanes) { return 31 - unsigned(__builtin_clz(lanes)); }
unsigned highest(Warps warps) {
  auto high = uint64_t(warps >> 64);
  return unsigned(high ? 127 - __builtin_clzll(high) : 63 - __builtin_clzll(uint64_t(warps)));
}
unsigned count(uint32_t lanes) { return unsigned(__builtin_popcount(lanes)); }
unsigned count(Warps warps) {
  return unsigned(__builtin_popcountll(uint64_t(warps)) + __builtin_popcountll(uint64_t(warps >> 64)));
}

// The first of `set` after `from`, going up and round.
template <class Set>
unsigned next_above(Set set, unsigned from) {
  Set above = set & (~Set{1} << from);
  return lowest(above ? above : set);
}

// The first before `from`, going down and round.
template <class Set>
unsigned next_below(Set set, unsigned from) {
  Set below = set & ((Set{1} << from) - 1);
  return highest(below ? below : set);
}

template <class Set>
unsigned any_of(Set set, Random& random) {
  for (uint32_t skip = random.below(count(set)); skip; skip--) set &= set - 1;
  return lowest(set);
}

// The ready fiber that runs after lane `lane` of warp `warp`, or null.
Fiber* pick(Worker& worker, unsigned warp, unsigned lane) {
  if (!worker.ready_warps) return nullptr;
  switch (worker.schedule) {
    case Schedule::kForward:
      if (!worker.warps[warp].ready) warp = next_above(worker.ready_warps, warp);
      return worker.fiber(warp, next_above(worker.warps[warp].ready, lane));
    case Schedule::kReverse:
      if (!worker.warps[warp].ready) warp = next_below(worker.ready_warps, warp);
      return worker.fiber(warp, next_below(worker.warps[warp].ready, lane));
    case Schedule::kRandom:
      break;
  }
  warp = any_of(worker.ready_warps, worker.schedule_random);
  return worker.fiber(warp, any_of(worker.warps[warp].ready, worker.schedule_random));
}

// The fiber that runs when `fiber` yields: as `pick`, but a warp whose lanes all poll does not keep
// the others waiting.
Fiber* pick_fairly(Worker& worker, const Fiber* fiber) {
  unsigned warp = fiber->warp;
  uint32_t ready = worker.warps[warp].ready, own = 1u << fiber->lane;
  switch (worker.schedule) {
    case Schedule::kForward:
      if (ready & ~(own | (own - 1))) return pick(worker, warp, fiber->lane);
      warp = next_above(worker.ready_warps, warp);
      return worker.fiber(warp, next_above(worker.warps[warp].ready, kWarpLanes - 1));
    case Schedule::kReverse:
      if (ready & (own - 1)) return pick(worker, warp, fiber->lane);
      warp = next_below(worker.ready_warps, warp);
      return worker.fiber(warp, next_below(worker.warps[warp].ready, 0));
    case Schedule::kRandom:
      return pick(worker, warp, fiber->lane);
  }
  __builtin_unreachable();
}

// The fiber of a fresh block that runs first.
Fiber* first_of_block(Worker& worker) {
  switch (worker.schedule) {
    case Schedule::kForward:
      return worker.fibers[0];
    case Schedule::kReverse:
      return worker.fibers[worker.threads - 1];
    case Schedule::kRandom:
      return pick(worker, 0, 0);
  }
  __builtin_unreachable();
}

void make_unready(Fiber* fiber, Status status) {
  fiber->status = status;
  Worker& worker = *fiber->worker;
  Warp& warp = worker.warps[fiber->warp];
  warp.ready &= ~(1u << fiber->lane);
  if (!warp.ready) worker.ready_warps &= ~set_of(fiber->warp);
}

void switch_to(Fiber* from, Fiber* to) {
  from->worker->stats.switches++;
  from->worker->checker.made_progress();
  simt_switch(&from->stack_pointer, to->stack_pointer);
}

[[noreturn]] void leave_for_host(Fiber* fiber) {
  simt_switch(&fiber->stack_pointer, fiber->worker->host_stack_pointer);
  __builtin_unreachable();
}

const char* verb(Status status) {
  switch (status) {
    case Status::kAtBarrier:
      return "wait in the barrier";
    case Status::kAtCollective:
      return "wait in the warp collective";
    case Status::kAtMbarrier:
      return "wait for the mbarrier";
    default:
      return "can run, last seen";
  }
}

// What every thread of the block waits for, grouped by place.
std::string describe_waiting(const Worker& worker) {
  struct Group {
    unsigned threads = 0;
    const Fiber* first = nullptr;
  };
  std::map<std::string, Group> groups;
  for (unsigned i = 0; i < worker.threads; i++) {
    const Fiber* fiber = worker.fibers[i];
    if (fiber->status == Status::kDone) continue;
    bool ready = worker.warps[fiber->warp].ready >> fiber->lane & 1;
    Status status = ready ? Status::kRunning : fiber->status;
    std::string what = format("%s at %s:%u", verb(status), fiber->place.file_name(),
                              unsigned(fiber->place.line()));
    if (status == Status::kAtCollective) {
      const Warp& warp = worker.warps[fiber->warp];
      what += format(" with mask 0x%08x (arrived 0x%08x)", warp.masks[fiber->lane], warp.arrived);
    }
    Group& group = groups[what];
    if (!group.threads++) group.first = fiber;
  }
  std::string text;
  for (const auto& [what, group] : groups) {
    text += format("; %u %s, the first of them %s", group.threads, what.c_str(),
                   group.first->describe().c_str());
  }
  if (worker.live < worker.threads)
    text += format("; %u have exited", worker.threads - worker.live);
  return text;
}

// Names the first thread that waits, not the one that happened to stop last.
[[noreturn]] void fail_deadlock(Worker& worker) {
  unsigned index = 0;
  while (worker.fibers[index]->status == Status::kDone) index++;
  const Fiber* first = worker.fibers[index];
  std::string message = "no thread of the block can run" + describe_waiting(worker);
  worker.fault = Fault{FaultKind::kDeadlock, std::move(message),      true, first->block_index,
                       first->thread_index,  Place::of(first->place), {}};
  abandon_block();
}

// Runs the next ready fiber. `fiber` itself is not ready, unless a copy that lands meanwhile wakes
// it.
void run_next(Fiber* fiber) {
  Worker& worker = *fiber->worker;
  Fiber* next = pick(worker, fiber->warp, fiber->lane);
  while (!next && land_a_load(worker)) next = pick(worker, fiber->warp, fiber->lane);
  if (!next) fail_deadlock(worker);
  if (next != fiber) switch_to(fiber, next);
}

[[noreturn]] void exit_thread(Fiber* fiber) {
  Worker& worker = *fiber->worker;
  check_no_lane_waits_for(fiber);
  check_waited_for_grids(fiber);
  check_stores_waited(fiber);
  check_products_waited(fiber);
  worker.idle_yields = 0;
  worker.live--;
  if (--worker.live_in_block[fiber->block] == 0 && worker.blocks > 1) {
    worker.checker.end_block(worker, fiber->block);
  }
  worker.warps[fiber->warp].live &= ~(1u << fiber->lane);
  make_unready(fiber, Status::kDone);
  if (!worker.live) {
    check_all_copies_waited(worker);
    check_warpgroups_agree(worker);
    leave_for_host(fiber);
  }
  if (worker.block_waits) release_after_exit(worker, fiber->block);
  release_cluster_after_exit(worker, fiber->block);
  run_next(fiber);
  __builtin_unreachable();
}

void fiber_main() {
  Fiber* fiber = current_fiber();
  fiber->worker->kernel->invoke(fiber->worker->arguments);
  exit_thread(fiber);
}

// `first` is the first of the blocks that run at the same time.
void prepare_fiber(Worker& worker, unsigned index, uint64_t first, dim3 block_size,
                   dim3 grid_size) {
  Fiber* fiber = worker.fibers[index];
  unsigned thread = index % worker.block_threads;
  fiber->thread_index = {thread % block_size.x, thread / block_size.x % block_size.y,
                         thread / (block_size.x * block_size.y)};
  fiber->block = index / worker.block_threads;
  uint64_t block = first + fiber->block;
  fiber->block_index = {unsigned(block % grid_size.x), unsigned(block / grid_size.x % grid_size.y),
                        unsigned(block / grid_size.x / grid_size.y)};
  fiber->block_size = block_size;
  fiber->grid_size = grid_size;
  fiber->linear = index;
  fiber->warp = index / kWarpLanes;
  fiber->lane = index % kWarpLanes;
  fiber->worker = &worker;
  fiber->fenced = fiber->wgmma_fenced = false;
  fiber->after_grids = !worker.dependent;
  fiber->copy_group = fiber->bulk_group = fiber->proxy_fenced = 0;
  fiber->cluster_waits = 0;
  fiber->cluster_arrived = false;
  fiber->copies.clear();
  fiber->place = loc_t();
  fiber->status = Status::kRunning;
  prepare(fiber, fiber_main);
}

void reset_blocks(Worker& worker) {
  worker.warp_count = (worker.threads + kWarpLanes - 1) / kWarpLanes;
  worker.live = worker.threads;
  worker.ready_warps = ~Warps{0} >> (128 - worker.warp_count);
  worker.idle_yields = 0;
  worker.block_waits = 0;
  worker.mbarriers.clear();
  worker.loads.clear();
  worker.stores.clear();
  for (unsigned w = 0; w < worker.warp_count; w++) {
    unsigned lanes = std::min(kWarpLanes, worker.threads - w * kWarpLanes);
    worker.warps[w] = Warp{};
    worker.warps[w].live = worker.warps[w].ready = uint32_t((uint64_t{1} << lanes) - 1);
  }
  for (unsigned block = 0; block < worker.blocks; block++) {
    worker.live_in_block[block] = worker.block_threads;
    worker.cluster_barriers[block] = {};
    for (Barrier& barrier : worker.barriers[block]) barrier = Barrier{};
    // All ones is NaN in every float format: what was never written shows, in the plain build too.
    memset(worker.dynamic_shared(block), 0xff, worker.shared.dynamic_bytes);
  }
  memset(worker.shared.static_begin, 0xff, worker.shared.static_bytes);
}

}  // namespace

void run_blocks(Worker& worker, uint64_t first, dim3 block_size, dim3 grid_size) {
  worker.block_threads = block_size.x * block_size.y * block_size.z;
  worker.block_warps = (worker.block_threads + kWarpLanes - 1) / kWarpLanes;
  worker.threads = worker.block_threads * worker.blocks;
  reset_blocks(worker);
  for (unsigned i = 0; i < worker.threads; i++) {
    prepare_fiber(worker, i, first, block_size, grid_size);
  }
  worker.checker.begin_block(worker);
  worker.stats.blocks += worker.blocks;
  simt_switch(&worker.host_stack_pointer, first_of_block(worker)->stack_pointer);
}

void wake(Fiber* fiber) {
  Worker& worker = *fiber->worker;
  worker.warps[fiber->warp].ready |= 1u << fiber->lane;
  worker.ready_warps |= set_of(fiber->warp);
  worker.idle_yields = 0;
}

void suspend(Status status) {
  Fiber* fiber = current_fiber();
  make_unready(fiber, status);
  Worker& worker = *fiber->worker;
  if (worker.copies == Copies::kRandom && worker.copy_random.below(4) == 0) land_a_load(worker);
  run_next(fiber);
  fiber->status = Status::kRunning;
}

void yield(loc_t loc) {
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  fiber->place = loc;
  if (worker.idle_yields > worker.threads && land_a_load(worker)) worker.idle_yields = 0;
  if (++worker.idle_yields > kMaxIdleYields) {
    fail(FaultKind::kEndless, loc,
         "waits in a loop for what does not come" + describe_waiting(worker));
  }
  Fiber* next = pick_fairly(worker, fiber);
  if (next != fiber) switch_to(fiber, next);
}

void abandon_block() { leave_for_host(current_fiber()); }

}  // namespace simt
