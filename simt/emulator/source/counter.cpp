// Counters in device memory by which blocks that run at the same time wait for each other.
#include "simt/hopper.h"
#include "worker.h"

namespace simt {

void counter_add(uint32_t* counter, uint32_t value, loc_t loc) {
  Fiber* fiber = current_fiber();
  fiber->place = loc;
  fence();
  fiber->worker->checker.atomic_update(fiber, counter, sizeof *counter, loc);
  __atomic_fetch_add(counter, value, __ATOMIC_SEQ_CST);
}

void counter_wait(const uint32_t* counter, uint32_t least, loc_t loc) {
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  for (;;) {
    worker.checker.atomic_read(fiber, counter, sizeof *counter, loc);
    if (int32_t(__atomic_load_n(counter, __ATOMIC_SEQ_CST) - least) >= 0) break;
    yield(loc);
  }
  worker.checker.acquire_fenced(worker.warps[fiber->warp].clock);
}

}  // namespace simt
