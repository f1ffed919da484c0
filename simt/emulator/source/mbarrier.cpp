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

Mbarrier* find(Worker& worker, uint32_t address) {
  for (Mbarrier& barrier : worker.mbarriers) {
    if (barrier.address == address) return &barrier;
  }
  return nullptr;
}

Mbarrier& find_initialised(Worker& worker, uint32_t address, loc_t loc) {
  Mbarrier* barrier = find(worker, address);
  if (barrier) return *barrier;
  fail(FaultKind::kUninitialised, loc,
       format("no mbarrier has been initialised at shared address %u", address));
}

State* state_of(uint32_t address, loc_t loc) {
  return static_cast<State*>(from_smem(address, sizeof(State), alignof(State), loc));
}

// Begins the next phase if this one waits for nothing more.
void complete_phase(Worker& worker, uint32_t address, State& state) {
  if (state.pending || state.bytes) return;
  state.pending = state.count;
  state.phase ^= 1;
  for (unsigned i = 0; i < worker.threads; i++) {
    Fiber* fiber = worker.fibers[i];
    if (fiber->status == Status::kAtMbarrier && fiber->mbarrier == address) wake(fiber);
  }
}

// Whether the phase of this parity is complete; if so, what was released to it is ordered before
// what follows.
bool phase_is_complete(Fiber* fiber, uint32_t address, uint32_t parity, loc_t loc) {
  Worker& worker = *fiber->worker;
  fiber->place = loc;
  Mbarrier& barrier = find_initialised(worker, address, loc);
  if (state_of(address, loc)->phase == (parity & 1)) return false;
  worker.checker.acquire(worker.warps[fiber->warp].clock, barrier.clock);
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
  if (Mbarrier* known = find(worker, address)) {
    known->clock = {};
  } else {
    worker.mbarriers.push_back({address, {}});
  }
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
  State* state = state_of(address, loc);
  if (!state->pending) {
    fail(
        FaultKind::kBarrier, loc,
        format("more arrivals at the mbarrier at %u than its %u", address, unsigned(state->count)));
  }
  uint64_t before;
  memcpy(&before, state, sizeof before);
  worker.checker.release(worker.warps[fiber->warp].clock, fiber->warp, barrier.clock);
  state->bytes += int64_t(bytes);
  state->pending--;
  complete_phase(worker, address, *state);
  return before;
}

void mbar_expect_tx(uint32_t address, uint32_t bytes, loc_t loc) {
  find_initialised(*current()->worker, address, loc);
  state_of(address, loc)->bytes += int64_t(bytes);
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
    fiber->mbarrier = address;
    suspend(Status::kAtMbarrier);
  }
}

}  // namespace simt
