// __syncthreads and the hardware's named barriers.
#include <algorithm>

#include "worker.h"

namespace simt {
namespace {

// All warps of a block have met that runs beside others. A block by itself settles everything
// instead.
void order_one_of_blocks(Worker& worker, unsigned block) {
  ReleaseClock clock{};
  unsigned first = block * worker.block_warps, end = first + worker.block_warps;
  for (unsigned w = first; w < end; w++) worker.checker.release(worker.warps[w].clock, w, clock);
  for (unsigned w = first; w < end; w++) worker.checker.acquire(worker.warps[w].clock, clock);
}

void release(Worker& worker, Barrier& barrier, unsigned block) {
  if (barrier.expected == 0) {
    worker.block_waits -= barrier.arrived;
    if (worker.blocks == 1) {
      worker.checker.order_block(worker);
    } else {
      order_one_of_blocks(worker, block);
    }
  } else {
    for (unsigned w = 0; w < worker.warp_count; w++) {
      if (barrier.syncing_warps >> w & 1)
        worker.checker.acquire(worker.warps[w].clock, barrier.clock);
    }
  }
  for (unsigned w = 0; w < worker.warp_count; w++) {
    for (uint32_t lanes = barrier.waiting[w]; lanes; lanes &= lanes - 1) {
      wake(worker.fiber(w, unsigned(__builtin_ctz(lanes))));
    }
  }
  Barrier next{};
  next.generation = barrier.generation + 1;
  next.last_count = barrier.count;
  next.last_arrived = barrier.arrived;
  barrier = next;
}

// All threads of the block must come to the same __syncthreads: two that meet at different ones are
// a mistake even if their number comes out right.
void check_same_place(Worker& worker, const Barrier& barrier, loc_t loc) {
  for (unsigned w = 0; w < worker.warp_count; w++) {
    if (!barrier.waiting[w]) continue;
    const Fiber* other = worker.fiber(w, unsigned(__builtin_ctz(barrier.waiting[w])));
    if (other->place.line() != loc.line() || other->place.column() != loc.column()) {
      fail(FaultKind::kBarrier, Place::of(loc),
           "__syncthreads in divergent code: " + other->describe() + " waits at another one",
           Place::of(other->place));
    }
    return;
  }
}

void wait_for_block(Barrier& barrier, loc_t loc) {
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  if (barrier.arrived) check_same_place(worker, barrier, loc);
  fiber->place = loc;
  if (barrier.arrived && barrier.expected) {
    fail(FaultKind::kBarrier, loc, "barrier 0 is in use with an explicit number of threads");
  }
  barrier.arrived++;
  worker.block_waits++;
  if (barrier.arrived < worker.live_in_block[fiber->block]) {
    barrier.waiting[fiber->warp] |= 1u << fiber->lane;
    suspend(Status::kAtBarrier);
    return;
  }
  release(worker, barrier, fiber->block);
  if (worker.schedule == Schedule::kRandom)
    yield(loc);  // the last to come shall not always go first
}

// What a lane brings to a barrier with a number of threads.
struct Arrival {
  unsigned id, threads;
  bool wait;
  loc_t loc;
  uint32_t generation;  // out: the use of the barrier that this arrival belongs to
};

// Warps arrive at such barriers as a whole.
void arrive_warp(void* const* payloads, unsigned lanes) {
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  const Arrival& arrival = *static_cast<Arrival*>(payloads[fiber->lane]);
  Barrier& barrier = worker.barriers[fiber->block][arrival.id];
  if (barrier.arrived && barrier.expected != arrival.threads) {
    fail(FaultKind::kBarrier, arrival.loc,
         format("barrier %u is used with %u threads here, with %u elsewhere", arrival.id,
                arrival.threads, barrier.expected));
  }
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    static_cast<Arrival*>(payloads[__builtin_ctz(rest)])->generation = barrier.generation;
  }
  barrier.expected = arrival.threads;
  barrier.arrived += kWarpLanes;
  if (arrival.wait) barrier.syncing_warps |= set_of(fiber->warp);
  worker.checker.release(worker.warps[fiber->warp].clock, fiber->warp, barrier.clock);
  if (barrier.arrived > barrier.expected) {
    fail(FaultKind::kBarrier, arrival.loc,
         format("more arrivals at barrier %u than its %u threads", arrival.id, arrival.threads));
  }
  if (barrier.arrived == barrier.expected) release(worker, barrier, fiber->block);
}

void meet_at_named(unsigned id, unsigned threads, bool wait, loc_t loc) {
  if (threads % kWarpLanes) {
    fail(FaultKind::kBarrier, loc, format("%u threads at a barrier are not whole warps", threads));
  }
  Fiber* fiber = current_fiber();
  Barrier& barrier = fiber->worker->barriers[fiber->block][id];
  Arrival arrival{id, threads, wait, loc, 0};
  collective(Collective::kBarrier, ~0u, &arrival, arrive_warp, loc);
  while (wait && barrier.generation == arrival.generation) {
    barrier.waiting[fiber->warp] |= 1u << fiber->lane;
    fiber->place = loc;
    suspend(Status::kAtBarrier);
  }
}

}  // namespace

void barrier(int id, int threads, bool wait, loc_t loc) {
  if (id < 0 || id >= int(kBarriers)) {
    fail(FaultKind::kBarrier, loc, format("barrier %d does not exist: there are 0 to 15", id));
  }
  if (threads) {
    meet_at_named(unsigned(id), unsigned(threads), wait, loc);
  } else {
    Fiber* fiber = current_fiber();
    wait_for_block(fiber->worker->barriers[fiber->block][id], loc);
  }
}

int barrier_vote(Vote vote, bool predicate, loc_t loc) {
  Fiber* fiber = current_fiber();
  Barrier& barrier = fiber->worker->barriers[fiber->block][0];
  barrier.count += predicate;
  wait_for_block(barrier, loc);
  switch (vote) {
    case Vote::kCount:
      return int(barrier.last_count);
    case Vote::kAnd:
      return barrier.last_count == barrier.last_arrived;
    case Vote::kOr:
      return barrier.last_count != 0;
  }
  __builtin_unreachable();
}

void fence() {
  Fiber* fiber = current_fiber();
  fiber->fenced = true;
  fiber->worker->checker.fence(fiber->worker->warps[fiber->warp].clock, fiber->warp);
}

void release_after_exit(Worker& worker, unsigned block) {
  for (Barrier& barrier : worker.barriers[block]) {
    if (barrier.arrived && barrier.expected == 0 &&
        barrier.arrived == worker.live_in_block[block]) {
      release(worker, barrier, block);
    }
  }
}

}  // namespace simt
