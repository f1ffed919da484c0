// mbarrier: a barrier in shared memory with phases, which counts arrivals of threads and bytes of
// copies.
#include <algorithm>
#include <cstring>

#include "worker.h"

namespace simt {
namespace {

// The 64 bits in shared memory. Kernels must not look into them; on a GPU they are laid out
// otherwise.
struct State {
  uint64_t pending : 20;  // arrivals that this phase still waits for
  uint64_t count : 20;    // arrivals per phase
  int64_t bytes : 23;     // of copies that this phase still waits for
  uint64_t phase : 1;     // parity of the phase in progress
};
static_assert(sizeof(State) == sizeof(uint64_t));

Mbarrier* find(Worker& worker, const void* state) {
  for (Mbarrier& barrier : worker.mbarriers) {
    if (barrier.state == state) return &barrier;
  }
  return nullptr;
}

State* state_of(uint32_t address, loc_t loc) {
  return static_cast<State*>(from_smem(address, sizeof(State), alignof(State), loc));
}

State& state_of(const Mbarrier& barrier) {
  return *static_cast<State*>(const_cast<void*>(barrier.state));
}

Mbarrier& find_initialised(Worker& worker, uint32_t address, loc_t loc) {
  Mbarrier* barrier = find(worker, state_of(address, loc));
  if (barrier) return *barrier;
  fail(FaultKind::kUninitialised, loc,
       format("no mbarrier has been initialised at shared address %u", address));
}

// Begins the next phase if this one waits for nothing more.
void complete_phase(Worker& worker, Mbarrier& barrier) {
  State& state = state_of(barrier);
  if (state.pending || state.bytes) return;
  state.pending = state.count;
  state.phase ^= 1;
  barrier.landed.insert(barrier.landed.end(), barrier.landing.begin(), barrier.landing.end());
  barrier.landing.clear();
  for (unsigned i = 0; i < worker.threads; i++) {
    Fiber* fiber = worker.fibers[i];
    if (fiber->status == Status::kAtMbarrier && fiber->mbarrier == barrier.state) wake(fiber);
  }
}

// Whether the phase of this parity is complete; if so, what was released to it is ordered before
// what follows.
bool phase_is_complete(Fiber* fiber, uint32_t address, uint32_t parity, loc_t loc) {
  Worker& worker = *fiber->worker;
  fiber->place = loc;
  Mbarrier& barrier = find_initialised(worker, address, loc);
  if (state_of(barrier).phase == (parity & 1)) return false;
  worker.checker.acquire(worker.warps[fiber->warp].clock, barrier.clock);
  for (const Landing& copy : barrier.landed) worker.checker.landed(fiber, copy.to, copy.bytes);
  barrier.landed.clear();
  return true;
}

}  // namespace

void mbar_init(uint32_t address, uint32_t count, loc_t loc) {
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  fiber->place = loc;
  State* state = state_of(address, loc);
  if (count == 0 || count >= 1u << 20) {
    fail(FaultKind::kBarrier, loc, format("an mbarrier cannot expect %u arrivals", count));
  }
  worker.checker.write(fiber, state, sizeof *state, loc);
  *state = State{count, count, 0, 0};
  Mbarrier* known = find(worker, state);
  if (!known) known = &worker.mbarriers.emplace_back();
  *known = Mbarrier{state, {}, fiber, false, {}, {}};
}

void mbar_inval(uint32_t address, loc_t loc) {
  Worker& worker = *current()->worker;
  Mbarrier& barrier = find_initialised(worker, address, loc);
  barrier = worker.mbarriers.back();
  worker.mbarriers.pop_back();
}

uint64_t mbar_arrive(uint32_t address, uint32_t bytes, loc_t loc) {
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  fiber->place = loc;
  Mbarrier& barrier = find_initialised(worker, address, loc);
  State& state = state_of(barrier);
  if (!state.pending) {
    fail(FaultKind::kBarrier, loc,
         format("more arrivals at the mbarrier at %u than its %u", address, unsigned(state.count)));
  }
  uint64_t before;
  memcpy(&before, &state, sizeof before);
  worker.checker.release(worker.warps[fiber->warp].clock, fiber->warp, barrier.clock);
  state.bytes += int64_t(bytes);
  state.pending--;
  complete_phase(worker, barrier);
  return before;
}

void mbar_expect_tx(uint32_t address, uint32_t bytes, loc_t loc) {
  state_of(find_initialised(*current()->worker, address, loc)).bytes += int64_t(bytes);
}

bool mbar_try_wait(uint32_t address, uint32_t parity, loc_t loc) {
  Fiber* fiber = current_fiber();
  if (phase_is_complete(fiber, address, parity, loc)) return true;
  yield(loc);
  return phase_is_complete(fiber, address, parity, loc);
}

void mbar_wait(uint32_t address, uint32_t parity, loc_t loc) {
  Fiber* fiber = current_fiber();
  while (!phase_is_complete(fiber, address, parity, loc)) {
    fiber->mbarrier = state_of(address, loc);
    suspend(Status::kAtMbarrier);
  }
}

void fence_mbarrier_init() {
  Fiber* fiber = current_fiber();
  for (Mbarrier& barrier : fiber->worker->mbarriers) {
    if (barrier.initialiser == fiber) barrier.for_copies = true;
  }
}

Mbarrier& mbarrier_for_copies(Fiber* fiber, uint32_t address, loc_t loc) {
  Mbarrier& barrier = find_initialised(*fiber->worker, address, loc);
  if (!barrier.for_copies) {
    fail(FaultKind::kProxy, loc,
         format("a bulk copy counts on the mbarrier at %u, whose initialisation was not fenced",
                address));
  }
  return barrier;
}

void complete_copy(Worker& worker, const void* state, const Landing& landing,
                   const ReleaseClock& clock) {
  Mbarrier* barrier = find(worker, state);
  if (!barrier) return;  // invalidated meanwhile
  worker.checker.join(barrier->clock, clock);
  barrier->landing.push_back(landing);
  state_of(*barrier).bytes -= int64_t(landing.bytes);
  complete_phase(worker, *barrier);
}

void check_all_copies_waited(Worker& worker) {
  if (!worker.loads.empty()) {
    fail(FaultKind::kInFlight, worker.loads.front().loc,
         "the block ends while a bulk copy to its shared memory is under way");
  }
  for (const Mbarrier& barrier : worker.mbarriers) {
    for (const auto* landings : {&barrier.landing, &barrier.landed}) {
      if (landings->empty()) continue;
      fail(FaultKind::kInFlight, landings->front().loc,
           "the block ends, and no thread has waited for this bulk copy");
    }
  }
}

}  // namespace simt
