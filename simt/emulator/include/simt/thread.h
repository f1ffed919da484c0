// Which CUDA thread runs: threadIdx and its siblings.
//
// A CUDA thread is a fiber with a stack of its own. Stacks are aligned to their size, and each
// thread's record lies at the top of its stack: the stack pointer alone tells who runs, without a
// thread-local variable.
#pragma once

#include <stdint.h>

#include "simt/vector_types.h"

namespace simt {

struct Worker;

// The special registers of a CUDA thread. The emulator keeps more behind it, in `Fiber`.
struct Thread {
  uint3 thread_index;
  uint3 block_index;
  dim3 block_size;
  dim3 grid_size;
  unsigned linear;  // index of the thread in its block
  unsigned warp;    // linear / 32
  unsigned lane;    // linear % 32
  Worker* worker;
};

inline constexpr uintptr_t kStackBytes = 128 * 1024;  // a power of two
inline constexpr uintptr_t kRecordBytes = 256;

// Neighbouring stacks start at different offsets: the same frame of 32 lanes, which is touched in
// turn all the time, would otherwise lie in the same few sets of the cache.
inline uintptr_t stack_colour(uintptr_t stack) { return (stack / kStackBytes % 64) * 192; }

inline uintptr_t record_address(uintptr_t stack) {
  return stack + kStackBytes - kRecordBytes - stack_colour(stack);
}

// The thread that runs. Only to be called on a fiber.
__attribute__((always_inline)) inline Thread* current() {
  uintptr_t frame = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  return reinterpret_cast<Thread*>(record_address(frame & ~(kStackBytes - 1)));
}

}  // namespace simt

#define threadIdx (::simt::current()->thread_index)
#define blockIdx (::simt::current()->block_index)
#define blockDim (::simt::current()->block_size)
#define gridDim (::simt::current()->grid_size)
static constexpr int warpSize = 32;
