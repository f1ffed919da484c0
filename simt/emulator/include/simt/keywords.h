// The keywords that CUDA adds to C++.
#pragma once

#ifdef SIMT_SCAN
// The build script reads the names of the kernels off preprocessed source: this marks them there.
#define __global__ simt_global_function
#else
#define __global__
#endif
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))

// The blocks of a launch run one after another on one thread of the operating system, so that a
// thread-local variable is shared by exactly the threads of a block. Each launch on another thread
// has its own copy. It starts without a value, as on a GPU: without constinit GCC would guard an
// array of a class by a flag in the same memory.
#define __shared__ constinit thread_local

// Not instrumented in the check build: for code that is part of the emulator although kernels
// inline it.
#define SIMT_UNCHECKED \
  __attribute__((no_sanitize("thread", "undefined", "float-cast-overflow"), no_sanitize_coverage))
