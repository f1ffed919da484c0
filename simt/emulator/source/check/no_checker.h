// The plain build's stand-in for the checker: the same interface, which does nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simt/runtime.h"

namespace simt {

struct Fiber;
struct LoadedLibrary;
struct Worker;

struct WarpClock {};
struct ReleaseClock {};

class Checker {
 public:
  static constexpr bool kEnabled = false;
  // Of blocks that run at the same time.
  static constexpr unsigned kMostWarps = 128;

  void begin_launch(Worker&, const LoadedLibrary&) {}
  void end_launch() {}
  void begin_block(Worker&) {}
  void made_progress() {}
  void order_block(Worker&) {}
  void order_warp(WarpClock&, unsigned) {}
  void release(WarpClock&, unsigned, ReleaseClock&) {}
  void acquire(WarpClock&, const ReleaseClock&) {}
  void fence(WarpClock&, unsigned) {}
  void read(Fiber*, const void*, size_t, loc_t) {}
  void write(Fiber*, void*, size_t, loc_t) {}
  void in_flight(Fiber*, void*, size_t) {}
  void landed(Fiber*, void*, size_t) {}
  void join(ReleaseClock&, const ReleaseClock&) {}
  void end_block(Worker&, unsigned) {}
  void acquire_fenced(WarpClock&) {}
  void atomic_read(Fiber*, const void*, size_t, loc_t) {}
  void atomic_update(Fiber*, void*, size_t, loc_t) {}
  void fence_proxy(Fiber*) {}
  uint32_t moment(Fiber*) { return 0; }
  void read_async(Fiber*, const void*, size_t, loc_t) {}
  void write_async(Fiber*, void*, size_t, loc_t) {}
  void unchanged_since(Fiber*, const void*, size_t, uint32_t, loc_t) {}
};

namespace shadow {
inline void allocated(uintptr_t, size_t) {}
inline void freed(uintptr_t, size_t) {}
inline void initialised(uintptr_t, size_t) {}
inline void copied(uintptr_t, uintptr_t, size_t) {}
inline size_t initialised_prefix(uintptr_t, size_t bytes) { return bytes; }
}  // namespace shadow

}  // namespace simt
