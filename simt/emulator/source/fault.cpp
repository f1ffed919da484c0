#include "fault.h"

#include <cstdarg>
#include <cstdio>

#include "worker.h"

namespace simt {

std::string format(const char* text, ...) {
  char buffer[1024];
  va_list arguments;
  va_start(arguments, text);
  vsnprintf(buffer, sizeof buffer, text, arguments);
  va_end(arguments);
  return buffer;
}

void fail(FaultKind kind, Place place, std::string message, Place other) {
  Fiber* fiber = current_fiber();
  fiber->worker->fault =
      Fault{kind, std::move(message), true, fiber->block_index, fiber->thread_index, place, other};
  abandon_block();
}

void fail(FaultKind kind, loc_t loc, std::string message) {
  fail(kind, Place::of(loc), std::move(message));
}

void fail_trap(loc_t loc) { fail(FaultKind::kTrap, loc, "__trap()"); }

void fail_assertion(const char* condition, loc_t loc) {
  fail(FaultKind::kTrap, loc, format("assertion failed: %s", condition));
}

}  // namespace simt
