// cp.async: copies from global to shared memory that land when they are waited for, or at once.
//
// In the check build the destination counts as in flight until then in either case. A lazy copy
// leaves NaN there.
#include <cstring>

#include "worker.h"

namespace simt {
namespace {

bool lands_at_once(Worker& worker) {
  switch (worker.copies) {
    case Copies::kEager:
      return true;
    case Copies::kLazy:
      return false;
    case Copies::kRandom:
      return worker.copy_random.next() & 1;
  }
  __builtin_unreachable();
}

void copy_bytes(char* to, const PendingCopy& copy) {
  memcpy(to, copy.source, copy.source_bytes);
  memset(to + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

void land(Fiber* fiber, const PendingCopy& copy, loc_t loc) {
  Checker& checker = fiber->worker->checker;
  auto* to = static_cast<char*>(from_smem(copy.to, copy.bytes, copy.bytes, loc));
  checker.landed(fiber, to, copy.bytes);
  checker.read(fiber, copy.source, copy.source_bytes, loc);
  checker.write(fiber, to, copy.bytes, loc);
  // A copy that landed at once is repeated, for the source may not change meanwhile.
  copy_bytes(to, copy);
}

}  // namespace

void cp_async(uint32_t to, const void* source, uint32_t bytes, uint32_t source_bytes, loc_t loc) {
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  fiber->place = loc;
  auto* target = static_cast<char*>(from_smem(to, bytes, bytes, loc));
  if (source_bytes > bytes) {
    fail(FaultKind::kOutOfBounds, loc,
         format("cp.async of %u bytes takes %u from its source", bytes, source_bytes));
  }
  if (source_bytes && reinterpret_cast<uintptr_t>(source) & (bytes - 1)) {
    fail(FaultKind::kMisaligned, loc,
         format("the source %p of a cp.async is not aligned to %u bytes", source, bytes));
  }
  PendingCopy copy{to, static_cast<const char*>(source), bytes, source_bytes, fiber->copy_group};
  worker.checker.write(fiber, target, bytes, loc);
  worker.checker.read(fiber, source, source_bytes, loc);
  worker.checker.in_flight(fiber, target, bytes);
  if (lands_at_once(worker)) {
    copy_bytes(target, copy);
    if (!Checker::kEnabled) return;  // nothing is left to do when it is waited for
  } else {
    memset(target, 0xff, bytes);
  }
  fiber->copies.push_back(copy);
}

void cp_async_commit() { current_fiber()->copy_group++; }

void cp_async_wait(int pending, loc_t loc) {
  Fiber* fiber = current_fiber();
  fiber->place = loc;
  size_t landed = 0;
  for (; landed < fiber->copies.size(); landed++) {
    const PendingCopy& copy = fiber->copies[landed];
    if (int(fiber->copy_group - copy.group) <= pending) break;
    land(fiber, copy, loc);
  }
  fiber->copies.erase(fiber->copies.begin(), fiber->copies.begin() + long(landed));
}

}  // namespace simt
