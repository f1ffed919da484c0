// The calls that -fsanitize=undefined puts where C++ leaves the behaviour of a kernel undefined.
// The sanitizer's own library, which would define them, is never linked.
#include "worker.h"

namespace {

// What every call's data begins with.
struct SourceLocation {
  const char* file;
  uint32_t line, column;
};

[[noreturn]] void fail_at(const SourceLocation* location, simt::FaultKind kind, const char* what) {
  simt::fail(kind, simt::Place{location->file, location->line, 0}, what);
}

}  // namespace

extern "C" {

void __ubsan_handle_type_mismatch_v1(const SourceLocation* location, void* pointer) {
  if (!pointer)
    fail_at(location, simt::FaultKind::kOutOfBounds, "an access through a null pointer");
  fail_at(location, simt::FaultKind::kMisaligned,
          "an access through a pointer that is misaligned for its type, or to too small an object");
}

void __ubsan_handle_out_of_bounds(const SourceLocation* location, void*) {
  fail_at(location, simt::FaultKind::kOutOfBounds, "an index outside of its array");
}

#define SIMT_UNDEFINED(NAME, WHAT)                             \
  void __ubsan_handle_##NAME(const SourceLocation* location) { \
    fail_at(location, simt::FaultKind::kUndefined, WHAT);      \
  }
SIMT_UNDEFINED(shift_out_of_bounds, "a shift by a negative number or by too many bits")
SIMT_UNDEFINED(add_overflow, "signed overflow in an addition")
SIMT_UNDEFINED(sub_overflow, "signed overflow in a subtraction")
SIMT_UNDEFINED(mul_overflow, "signed overflow in a product")
SIMT_UNDEFINED(negate_overflow, "signed overflow in a negation")
SIMT_UNDEFINED(divrem_overflow, "a division by zero, or one that overflows")
SIMT_UNDEFINED(pointer_overflow, "a pointer that overflows")
SIMT_UNDEFINED(float_cast_overflow, "a float that does not fit the integer it is cast to")
SIMT_UNDEFINED(load_invalid_value, "a bool or enum of no valid value")
SIMT_UNDEFINED(builtin_unreachable, "what is said to be unreachable is reached")
SIMT_UNDEFINED(missing_return, "the end of a function that should return a value")
SIMT_UNDEFINED(vla_bound_not_positive, "an array of no positive length")
SIMT_UNDEFINED(invalid_builtin, "a count of leading or trailing zeros of zero")
SIMT_UNDEFINED(nonnull_arg, "a null argument where none is allowed")
SIMT_UNDEFINED(nonnull_return_v1, "a null result where none is allowed")

}  // extern "C"
