// Warp collectives: the lanes of a mask wait for each other, and the last to come acts for all of
// them.
#include "worker.h"

namespace simt {
namespace {

const char* name(Collective collective) {
  switch (collective) {
    case Collective::kSyncWarp:
      return "__syncwarp";
    case Collective::kShuffle:
      return "shuffle";
    case Collective::kBallot:
      return "ballot";
    case Collective::kReduce:
      return "reduction";
    case Collective::kMatch:
      return "match";
    case Collective::kLoadMatrix:
      return "ldmatrix";
    case Collective::kStoreMatrix:
      return "stmatrix";
    case Collective::kMma:
      return "mma";
    case Collective::kBarrier:
      return "named barrier";
    case Collective::kWgmma:
      return "wgmma";
    case Collective::kSetMaxRegisters:
      return "setmaxnreg";
  }
  return "collective";
}

void check_mask(const Fiber* fiber, const Warp& warp, Collective kind, unsigned mask) {
  if (!(mask >> fiber->lane & 1)) {
    fail(FaultKind::kCollective, fiber->place,
         format("lane %u calls a %s with mask 0x%08x, which leaves it out", fiber->lane, name(kind),
                mask));
  }
  if (mask & ~warp.live) {
    fail(FaultKind::kCollective, fiber->place,
         format("%s with mask 0x%08x, of which lanes 0x%08x have exited or never existed",
                name(kind), mask, mask & ~warp.live));
  }
}

[[noreturn]] void fail_disagreement(const Fiber* fiber, const Warp& warp, unsigned other_lane) {
  const Fiber* other = fiber->worker->fiber(fiber->warp, other_lane);
  fail(FaultKind::kCollective, Place::of(fiber->place),
       format("lane %u is at a %s with mask 0x%08x, but lane %u at a %s with mask 0x%08x",
              fiber->lane, name(warp.collectives[fiber->lane]), warp.masks[fiber->lane],
              other->lane, name(warp.collectives[other->lane]), warp.masks[other->lane]),
       Place::of(other->place));
}

void check_agreement(const Fiber* fiber, const Warp& warp, Collective kind, unsigned mask) {
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    unsigned lane = unsigned(__builtin_ctz(rest));
    if (warp.collectives[lane] != kind || warp.masks[lane] != mask)
      fail_disagreement(fiber, warp, lane);
  }
}

struct ShuffleLane {
  uint64_t value;
  unsigned source;
  uint64_t result;
};

void shuffle_lanes(void* const* payloads, unsigned mask) {
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    auto* lane = static_cast<ShuffleLane*>(payloads[__builtin_ctz(rest)]);
    if (!(mask >> lane->source & 1)) {
      fail(FaultKind::kCollective, current_fiber()->place,
           format("a shuffle reads lane %u, which is not in its mask 0x%08x", lane->source, mask));
    }
    lane->result = static_cast<ShuffleLane*>(payloads[lane->source])->value;
  }
}

struct BallotLane {
  bool predicate;
  unsigned result;
};

void ballot_lanes(void* const* payloads, unsigned mask) {
  unsigned result = 0;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    unsigned lane = unsigned(__builtin_ctz(rest));
    if (static_cast<BallotLane*>(payloads[lane])->predicate) result |= 1u << lane;
  }
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    static_cast<BallotLane*>(payloads[__builtin_ctz(rest)])->result = result;
  }
}

struct MatchLane {
  uint64_t value;
  unsigned result;
};

void match_lanes(void* const* payloads, unsigned mask) {
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    auto* lane = static_cast<MatchLane*>(payloads[__builtin_ctz(rest)]);
    lane->result = 0;
    for (uint32_t others = mask; others; others &= others - 1) {
      unsigned other = unsigned(__builtin_ctz(others));
      if (static_cast<MatchLane*>(payloads[other])->value == lane->value)
        lane->result |= 1u << other;
    }
  }
}

}  // namespace

void collective(Collective kind, unsigned mask, void* payload, CollectiveBody body, loc_t loc) {
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  Warp& warp = worker.warps[fiber->warp];
  fiber->place = loc;
  check_mask(fiber, warp, kind, mask);
  warp.collectives[fiber->lane] = kind;
  warp.masks[fiber->lane] = mask;
  warp.payloads[fiber->lane] = payload;
  warp.arrived |= 1u << fiber->lane;
  if ((warp.arrived & mask) != mask) {
    suspend(Status::kAtCollective);
    return;
  }
  check_agreement(fiber, warp, kind, mask);
  worker.stats.collectives++;
  if (body) body(warp.payloads, mask);
  if (kind == Collective::kSyncWarp) worker.checker.order_warp(warp.clock, fiber->warp);
  warp.arrived &= ~mask;
  warp.ready |= mask;
  worker.ready_warps |= set_of(fiber->warp);
  worker.idle_yields = 0;
  if (worker.schedule == Schedule::kRandom)
    yield(loc);  // the last to come shall not always go first
}

uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, loc_t loc) {
  ShuffleLane lane{value, source, 0};
  collective(Collective::kShuffle, mask, &lane, shuffle_lanes, loc);
  return lane.result;
}

unsigned ballot(unsigned mask, bool predicate, loc_t loc) {
  BallotLane lane{predicate, 0};
  collective(Collective::kBallot, mask, &lane, ballot_lanes, loc);
  return lane.result;
}

unsigned match_any(unsigned mask, uint64_t value, loc_t loc) {
  MatchLane lane{value, 0};
  collective(Collective::kMatch, mask, &lane, match_lanes, loc);
  return lane.result;
}

unsigned active_mask() {
  const Thread* thread = current();
  return thread->worker->warps[thread->warp].live;
}

void check_no_lane_waits_for(Fiber* fiber) {
  Worker& worker = *fiber->worker;
  const Warp& warp = worker.warps[fiber->warp];
  for (uint32_t rest = warp.arrived; rest; rest &= rest - 1) {
    unsigned lane = unsigned(__builtin_ctz(rest));
    if (!(warp.masks[lane] >> fiber->lane & 1)) continue;
    fail(FaultKind::kCollective, worker.fiber(fiber->warp, lane)->place,
         format("lane %u exits, but the mask 0x%08x of the %s names it", fiber->lane,
                warp.masks[lane], name(warp.collectives[lane])));
  }
}

}  // namespace simt
