// Barriers and fences.
#pragma once

#include "simt/runtime.h"

static inline void __syncthreads(SIMT_LOC) { simt::barrier(0, 0, true, loc); }
static inline int __syncthreads_count(int predicate, SIMT_LOC) {
  return simt::barrier_vote(simt::Vote::kCount, predicate != 0, loc);
}
static inline int __syncthreads_and(int predicate, SIMT_LOC) {
  return simt::barrier_vote(simt::Vote::kAnd, predicate != 0, loc);
}
static inline int __syncthreads_or(int predicate, SIMT_LOC) {
  return simt::barrier_vote(simt::Vote::kOr, predicate != 0, loc);
}
static inline void __syncwarp(unsigned mask = ~0u, SIMT_LOC) {
  simt::collective(simt::Collective::kSyncWarp, mask, nullptr, nullptr, loc);
}

static inline void __threadfence() { simt::fence(); }
static inline void __threadfence_system() { simt::fence(); }
// Orders nothing that the emulator would not order anyhow.
static inline void __threadfence_block() {}

static inline void __nanosleep(unsigned, SIMT_LOC) { simt::yield(loc); }
[[noreturn]] static inline void __trap(SIMT_LOC) { simt::fail_trap(loc); }
