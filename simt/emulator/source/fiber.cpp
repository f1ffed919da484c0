#include "fiber.h"

#include <sys/mman.h>

#include <cstdio>
#include <new>
#include <stdexcept>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {

namespace {
constexpr size_t kGuardBytes = 4096;
constexpr unsigned kStacksPerMapping = 128;
}  // namespace

Stacks::~Stacks() {
  for (Fiber* fiber : fibers_) fiber->~Fiber();
  for (void* mapping : mappings_) munmap(mapping, (kStacksPerMapping + 1) * kStackBytes);
}

void Stacks::grow(unsigned count) {
  while (fibers_.size() < count) {
    // One stack more than needed, to align them to their size.
    void* mapping = mmap(nullptr, (kStacksPerMapping + 1) * kStackBytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    mappings_.push_back(mapping);
    uintptr_t first = (reinterpret_cast<uintptr_t>(mapping) + kStackBytes - 1) & ~(kStackBytes - 1);
    for (unsigned i = 0; i < kStacksPerMapping; i++) {
      uintptr_t stack = first + i * kStackBytes;
      mprotect(reinterpret_cast<void*>(stack), kGuardBytes, PROT_NONE);
      fibers_.push_back(new (reinterpret_cast<void*>(record_address(stack))) Fiber{});
    }
  }
}

Fiber* Stacks::owner(uintptr_t address) const {
  for (Fiber* fiber : fibers_) {
    if (fiber->owns(address)) return fiber;
  }
  return nullptr;
}

std::string Fiber::describe() const {
  char text[96];
  snprintf(text, sizeof text, "thread (%u, %u, %u), lane %u of warp %u", thread_index.x,
           thread_index.y, thread_index.z, lane, warp);
  return text;
}

#if defined(__x86_64__)

// The registers that a call must keep go onto the stack of the one that leaves. The control words
// of the floating-point units are never changed by kernels, and so not saved.
asm(R"(
  .text
  .globl simt_switch
  .hidden simt_switch
  .type simt_switch, @function
simt_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
  .size simt_switch, . - simt_switch
)");

void prepare(Fiber* fiber, void (*entry)()) {
  void** top = reinterpret_cast<void**>(fiber);  // the record lies above the stack, aligned to 64
  *--top = nullptr;  // where `entry`, which never returns, would return to
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; i++) *--top = nullptr;  // the registers that simt_switch pops
  fiber->stack_pointer = top;
}

#else  // any machine with ucontext, several times slower

void prepare(Fiber* fiber, void (*entry)()) {
  uintptr_t top = reinterpret_cast<uintptr_t>(fiber) - sizeof(ucontext_t);
  auto* context = new (reinterpret_cast<void*>(top & ~uintptr_t{63})) ucontext_t;
  getcontext(context);
  uintptr_t bottom = fiber->stack() + kGuardBytes;
  context->uc_stack.ss_sp = reinterpret_cast<void*>(bottom);
  context->uc_stack.ss_size = reinterpret_cast<uintptr_t>(context) - bottom;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  fiber->stack_pointer = context;
}

extern "C" void simt_switch(void** save, void* to) {
  ucontext_t here;
  *save = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to));
}

#endif

}  // namespace simt
