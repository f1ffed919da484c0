// Dependent launches: a kernel that may begin while those before it in its stream still run.
//
// Each thread must wait for them before it reaches device memory, which the checker sees to, and
// before it ends: the wait of the next kernel is for this one alone, so that what came before this
// one must have ended too. Here the kernels run one after another, and the wait returns at once.
#include "library.h"
#include "worker.h"

namespace simt {

void wait_for_grids(loc_t loc) {
  Fiber* fiber = current_fiber();
  fiber->place = loc;
  fiber->after_grids = true;
}

void check_waited_for_grids(Fiber* fiber) {
  if (fiber->after_grids) return;
  const Worker& worker = *fiber->worker;
  // Where the kernel begins: there the wait belongs.
  Place entry{nullptr, 0, worker.kernel->entry() - worker.library->begin};
  fail(FaultKind::kEarly, entry,
       fiber->describe() + " exits and has not waited for the kernels before this one");
}

}  // namespace simt
