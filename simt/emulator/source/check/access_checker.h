// Judges every access to memory: bounds, alignment, initialisation, copies in flight, and races.
//
// Races are found by the order of happens-before, not by their effect. Time is one counter for the
// process. Each warp has a `now`, which its accesses are stamped with and which moves on whenever
// it releases something to others, and it knows up to which time of each warp, its own included, it
// has `seen` everything. An access is ordered after an earlier one of warp w at time t if it is by
// the same thread, if seen[w] >= t, or if t <= `settled`, the time of the last barrier of the whole
// block.
//
//   __syncthreads          settles everything
//   __syncwarp             seen[own] = now
//   bar, mbarrier: arrive  the barrier's clock takes over what the warp has seen, and its now
//                  wait    the warp takes over the barrier's clock
//
// Between blocks a fence and then an atomic make order. Each warp also knows up to which time of
// each warp everything is `fenced`, that is ordered before a fence that comes before now:
//
//   __threadfence          fenced = seen, and fenced[own] = now
//   barriers, mbarriers    hand on what is fenced as they do what was seen
//   atomic of a thread     the block publishes what is fenced
//   that has fenced
//
// Once a thread of a later block has executed a fence and then an atomic, its block may access what
// earlier blocks wrote, as far as they have published it.
//
// Within a block and between blocks that run at the same time it is exact, word by word: an atomic that writes leaves
// on its word what is fenced, an atomic that reads has `observed` what lies there, and with the
// next fence the warp has seen what it observed.
//
// Clocks are kept per warp, not per thread: an arrival of one lane vouches for all 32, and so does
// its fence.
//
// Bulk copies and wgmma are the asynchronous proxy. What a thread has written to shared memory by
// ordinary means they may read only after a fence.proxy.async of that very thread, which like the
// write must come before the read.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "check/shadow.h"
#include "fault.h"
#include "simt/runtime.h"

namespace simt {

struct Fiber;
struct LoadedLibrary;
struct Worker;

struct WarpClock {
  Time now;
  Time seen[32];
  Time fenced[32];
  Time observed[32];
};

struct ReleaseClock {
  Time seen[32];
  Time fenced[32];
};

enum class Access { kRead, kWrite, kAtomicRead, kAtomicStore, kAtomicUpdate };

class Checker {
 public:
  static constexpr bool kEnabled = true;
  // Of blocks that run at the same time: as many as a Cell can name.
  static constexpr unsigned kMostWarps = 32;

  Checker();

  // Whether there has been a launch in this process.
  static bool has_launched() { return has_launched_.load(std::memory_order_relaxed); }

  void begin_launch(Worker& worker, const LoadedLibrary& library);
  void end_launch();
  void begin_block(Worker& worker);
  // A block ends while others run, and its shared memory with it.
  void end_block(Worker& worker, unsigned block);
  // Something other than endless computing happened.
  void made_progress() { steps_ = 0; }
  // Counts a step of a thread, that is a basic block.
  void step(Fiber* fiber, uintptr_t instruction);

  void order_block(Worker& worker);
  void order_warp(WarpClock& warp, unsigned index);
  void release(WarpClock& warp, unsigned index, ReleaseClock& clock);
  void acquire(WarpClock& warp, const ReleaseClock& clock);
  // A clock takes over what another was given.
  void join(ReleaseClock& clock, const ReleaseClock& other);
  // A lane of the warp executes __threadfence.
  void fence(WarpClock& warp, unsigned index);
  // Half of a fence: what atomics have read is ordered before what follows.
  void acquire_fenced(WarpClock& warp);
  // fence.proxy.async
  void fence_proxy(Fiber* fiber);
  // A time that lies after all that the warp has done and before all that it will do.
  Time moment(Fiber* fiber);

  // Accesses that the emulator makes on behalf of a thread.
  void read(Fiber* fiber, const void* from, size_t bytes, loc_t loc);
  void write(Fiber* fiber, void* to, size_t bytes, loc_t loc);
  void atomic_read(Fiber* fiber, const void* from, size_t bytes, loc_t loc);
  void atomic_update(Fiber* fiber, void* to, size_t bytes, loc_t loc);
  void in_flight(Fiber* fiber, void* to, size_t bytes);
  void landed(Fiber* fiber, void* to, size_t bytes);
  // What bulk copies and wgmma, the asynchronous proxy, do on behalf of a thread.
  void read_async(Fiber* fiber, const void* from, size_t bytes, loc_t loc);
  void write_async(Fiber* fiber, void* to, size_t bytes, loc_t loc);
  // Faults if shared memory that such an operation reads from `since` on has been written after.
  void unchanged_since(Fiber* fiber, const void* from, size_t bytes, Time since, loc_t loc);
  // An access that an instruction of a kernel makes.
  void access(Fiber* fiber, uintptr_t address, size_t bytes, Access access, uintptr_t instruction);

  Place place(PlaceId id) const;
  // Of an instruction in the kernel's library.
  uint64_t offset(uintptr_t instruction) const;

 private:
  struct Event;  // an access being judged

  // What a block has shown to later ones: the writes of each warp up to these times.
  struct Published {
    Time block_begin;
    Time warps[32];
  };

  void judge(Event event);
  const Shadow* find_shadow(const Event& event);
  void check_states(const Event& event, const Shadow& shadow);
  void judge_cell(const Event& event, Cell& cell, uint16_t bytes);
  void check_after_write(const Event& event, const Cell& cell);
  void check_proxy(const Event& event, const Cell& cell);
  void check_after_reads(const Event& event, const Cell& cell);
  void record_read(const Event& event, Cell& cell, uint16_t bytes);
  void record_write(const Event& event, Cell& cell, uint16_t bytes);
  // Apart from what runs for every access, to keep that short.
  [[noreturn, gnu::cold]] void fail_outside(const Event& event);
  [[noreturn, gnu::cold]] void fail_misaligned(const Event& event);
  [[noreturn, gnu::cold]] void fail_early(const Event& event);
  [[noreturn, gnu::cold]] void fail_state(const Event& event, const Shadow& shadow, size_t offset);
  [[noreturn, gnu::cold]] void fail_race(const Event& event, const char* other, unsigned thread,
                                         PlaceId other_place);
  [[noreturn, gnu::cold]] void fail_race_of_blocks(const Event& event, const char* other,
                                                   PlaceId other_place);
  bool from_other_block(Time time) const { return time > launch_begin_ && time <= block_begin_; }
  bool ordered(const Event& event, unsigned warp, Time time) const;
  void publish(const WarpClock& warp);
  void meet_at_word(const Event& event);
  bool is_published(unsigned warp, Time time) const;
  PlaceId id_of(loc_t loc);
  std::string describe(const Event& event) const;
  std::string describe(uintptr_t address) const;

  static inline std::atomic<bool> has_launched_{false};

  Shadow& device_;
  Shadow dynamic_shared_, static_shared_;
  size_t static_capacity_ = 0;
  const LoadedLibrary* library_ = nullptr;
  Time launch_begin_ = 0, block_begin_ = 0, settled_ = 0;
  uint32_t clock_generation_ = 0;
  Time settled_fenced_[32] = {};  // what was fenced before the last barrier of the whole block
  std::vector<Published> published_;  // by the blocks of the launch so far, in their order
  // What atomics have left on words of device memory for threads that run at the same time.
  std::unordered_map<uintptr_t, ReleaseClock> words_;
  // Set once a thread has executed a fence and then an atomic: it has learned that other blocks are
  // done.
  bool sees_other_blocks_ = false;
  uint64_t steps_ = 0;
  std::vector<loc_t> places_;
};

}  // namespace simt
