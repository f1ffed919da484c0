// The calls that -fsanitize=thread puts before the memory accesses of kernels. The sanitizer's own
// library, which would define them, is never linked.
#include <cstring>

#include "worker.h"

namespace simt {
namespace {

// The instruction that called the hook; the return address may be in the next line already.
#define SIMT_CALLER (reinterpret_cast<uintptr_t>(__builtin_return_address(0)) - 1)

inline void check(const volatile void* pointer, size_t bytes, Access access,
                  uintptr_t instruction) {
  Fiber* fiber = current_fiber();
  auto address = reinterpret_cast<uintptr_t>(pointer);
  Worker& worker = *fiber->worker;
  if (fiber->owns(address)) {  // a local variable, or threadIdx and its like
    if (fiber->wgmma_fenced) {
      wgmma_touched(fiber, address, bytes, access != Access::kRead, worker.checker.offset(instruction));
    }
    return;
  }
  worker.stats.accesses++;
  worker.checker.access(fiber, address, bytes, access, instruction);
}

}  // namespace
}  // namespace simt

using simt::Access;
using simt::check;

extern "C" {

#define SIMT_ACCESS_HOOKS(BYTES)                                                                \
  void __tsan_read##BYTES(void* p) { check(p, BYTES, Access::kRead, SIMT_CALLER); }             \
  void __tsan_write##BYTES(void* p) { check(p, BYTES, Access::kWrite, SIMT_CALLER); }           \
  void __tsan_unaligned_read##BYTES(void* p) { check(p, BYTES, Access::kRead, SIMT_CALLER); }   \
  void __tsan_unaligned_write##BYTES(void* p) { check(p, BYTES, Access::kWrite, SIMT_CALLER); } \
  void __tsan_volatile_read##BYTES(void* p) { check(p, BYTES, Access::kRead, SIMT_CALLER); }    \
  void __tsan_volatile_write##BYTES(void* p) { check(p, BYTES, Access::kWrite, SIMT_CALLER); }  \
  void __tsan_unaligned_volatile_read##BYTES(void* p) {                                         \
    check(p, BYTES, Access::kRead, SIMT_CALLER);                                                \
  }                                                                                             \
  void __tsan_unaligned_volatile_write##BYTES(void* p) {                                        \
    check(p, BYTES, Access::kWrite, SIMT_CALLER);                                               \
  }
SIMT_ACCESS_HOOKS(1)
SIMT_ACCESS_HOOKS(2)
SIMT_ACCESS_HOOKS(4)
SIMT_ACCESS_HOOKS(8)
SIMT_ACCESS_HOOKS(16)

void __tsan_read_range(void* p, size_t bytes) { check(p, bytes, Access::kRead, SIMT_CALLER); }
void __tsan_write_range(void* p, size_t bytes) { check(p, bytes, Access::kWrite, SIMT_CALLER); }

#define SIMT_ATOMIC_HOOKS(BITS, TYPE)                                                             \
  TYPE __tsan_atomic##BITS##_load(const volatile TYPE* p, int) {                                  \
    check(p, sizeof(TYPE), Access::kAtomicRead, SIMT_CALLER);                                     \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                  \
  }                                                                                               \
  void __tsan_atomic##BITS##_store(volatile TYPE* p, TYPE value, int) {                           \
    check(p, sizeof(TYPE), Access::kAtomicStore, SIMT_CALLER);                                    \
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                                                 \
  }                                                                                               \
  TYPE __tsan_atomic##BITS##_exchange(volatile TYPE* p, TYPE value, int) {                        \
    check(p, sizeof(TYPE), Access::kAtomicUpdate, SIMT_CALLER);                                   \
    return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);                                       \
  }                                                                                               \
  TYPE __tsan_atomic##BITS##_fetch_add(volatile TYPE* p, TYPE value, int) {                       \
    check(p, sizeof(TYPE), Access::kAtomicUpdate, SIMT_CALLER);                                   \
    return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);                                        \
  }                                                                                               \
  int __tsan_atomic##BITS##_compare_exchange_strong(volatile TYPE* p, TYPE* expected, TYPE value, \
                                                    int, int) {                                   \
    check(p, sizeof(TYPE), Access::kAtomicUpdate, SIMT_CALLER);                                   \
    return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST,               \
                                       __ATOMIC_SEQ_CST);                                         \
  }                                                                                               \
  TYPE __tsan_atomic##BITS##_compare_exchange_val(volatile TYPE* p, TYPE expected, TYPE value,    \
                                                  int, int) {                                     \
    check(p, sizeof(TYPE), Access::kAtomicUpdate, SIMT_CALLER);                                   \
    __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);  \
    return expected;                                                                              \
  }
SIMT_ATOMIC_HOOKS(8, uint8_t)
SIMT_ATOMIC_HOOKS(16, uint16_t)
SIMT_ATOMIC_HOOKS(32, uint32_t)
SIMT_ATOMIC_HOOKS(64, uint64_t)

// Calls that the sanitizer expects to exist but that say nothing here.
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

// -Wl,--wrap sends the kernels' calls of these functions here.
void* __wrap_memcpy(void* to, const void* from, size_t bytes) {
  if (bytes) {
    check(from, bytes, Access::kRead, SIMT_CALLER);
    check(to, bytes, Access::kWrite, SIMT_CALLER);
  }
  return memcpy(to, from, bytes);
}
void* __wrap_memmove(void* to, const void* from, size_t bytes) {
  if (bytes) {
    check(from, bytes, Access::kRead, SIMT_CALLER);
    check(to, bytes, Access::kWrite, SIMT_CALLER);
  }
  return memmove(to, from, bytes);
}
void* __wrap_memset(void* to, int value, size_t bytes) {
  if (bytes) check(to, bytes, Access::kWrite, SIMT_CALLER);
  return memset(to, value, bytes);
}

// -fsanitize-coverage=trace-pc calls this in every basic block, also of the code that GCC makes to
// run when a library is loaded. All libraries are loaded before the first launch.
void __sanitizer_cov_trace_pc() {
  if (!simt::Checker::has_launched()) return;
  simt::Fiber* fiber = simt::current_fiber();
  fiber->worker->checker.step(fiber, SIMT_CALLER);
}

}  // extern "C"
