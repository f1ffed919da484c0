#include "check/access_checker.h"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <mutex>

#include "device_memory.h"
#include "library.h"
#include "worker.h"

namespace simt {
namespace {

constexpr size_t kDynamicCapacity = kMaxBlocks * kDynamicStride;
constexpr PlaceId kKnownPlace = 0x80000000;
// Basic blocks that one thread may run on end.
constexpr uint64_t kMaxSteps = uint64_t{1} << 26;

// The process's clock, and what it takes to start it anew before it overflows.
struct Clock {
  std::atomic<Time> now{1};
  std::mutex mutex;
  unsigned launches = 0;    // that are running
  uint32_t generation = 0;  // how often it was started anew
};
Clock process_clock;

Time tick() { return process_clock.now.fetch_add(1, std::memory_order_relaxed) + 1; }

bool reads(Access access) { return access != Access::kWrite && access != Access::kAtomicStore; }
bool writes(Access access) { return access != Access::kRead && access != Access::kAtomicRead; }
bool is_atomic(Access access) { return access != Access::kRead && access != Access::kWrite; }

// Makes each time the later of the two.
void take_over(Time (&times)[kMaxWarps], const Time (&others)[kMaxWarps]) {
  for (unsigned w = 0; w < kMaxWarps; w++) times[w] = std::max(times[w], others[w]);
}

}  // namespace

struct Checker::Event {
  Fiber* fiber;
  uintptr_t address;
  size_t bytes;
  Access access;
  PlaceId place;
  const WarpClock* clock;
  bool in_shared;
  bool async = false;  // by a bulk copy or wgmma
};

Checker::Checker() : device_(shadow::device()) { dynamic_shared_.reserve(kDynamicCapacity); }

void Checker::begin_launch(Worker& worker, const LoadedLibrary& library) {
  {
    std::lock_guard lock(process_clock.mutex);
    if (process_clock.launches++ == 0 && process_clock.now > Time{1} << 31) {
      device_.release_cells(0, DeviceMemory::kCapacity);
      process_clock.now = 1;
      process_clock.generation++;
    }
    if (clock_generation_ != process_clock.generation) {
      dynamic_shared_.release_cells(0, kDynamicCapacity);
      static_shared_.release_cells(0, static_capacity_);
      clock_generation_ = process_clock.generation;
    }
  }
  has_launched_.store(true, std::memory_order_relaxed);
  library_ = &library;
  launch_begin_ = tick();
  places_.clear();
  published_.clear();
  dynamic_shared_.begin = reinterpret_cast<uintptr_t>(worker.shared.dynamic_begin);
  // What lies beyond a block's part is kUnallocated.
  dynamic_shared_.bytes = worker.blocks * size_t{kDynamicStride};
  if (static_capacity_ < worker.shared.static_bytes) {
    static_capacity_ = (worker.shared.static_bytes + 0xffff) & ~size_t{0xffff};
    static_shared_.reserve(static_capacity_);
  }
  static_shared_.begin = reinterpret_cast<uintptr_t>(worker.shared.static_begin);
  static_shared_.bytes = worker.blocks == 1 ? worker.shared.static_bytes : 0;
  dynamic_shared_.set(0, dynamic_shared_.bytes, ByteState::kUnallocated);
}

void Checker::end_launch() {
  std::lock_guard lock(process_clock.mutex);
  process_clock.launches--;
}

void Checker::begin_block(Worker& worker) {
  block_begin_ = tick();
  std::fill_n(settled_fenced_, kMaxWarps, 0);
  order_block(worker);
  for (unsigned w = 0; w < worker.warp_count; w++) {
    std::fill_n(worker.warps[w].clock.seen, kMaxWarps, block_begin_);
  }
  sees_other_blocks_ = false;
  words_.clear();
  steps_ = 0;
  for (unsigned block = 0; block < worker.blocks; block++) {
    size_t begin = size_t{block} * kDynamicStride;
    dynamic_shared_.set(begin, worker.shared.dynamic_bytes, ByteState::kUninitialised);
  }
  static_shared_.set(0, static_shared_.bytes, ByteState::kUninitialised);
}

// What other blocks of the cluster have done in this shared memory must be ordered before the end
// of its block.
void Checker::end_block(Worker& worker, unsigned block) {
  ReleaseClock end{};
  unsigned first = block * worker.block_warps, last = first + worker.block_warps;
  for (unsigned w = first; w < last; w++) release(worker.warps[w].clock, w, end);
  auto check = [&](unsigned warp, Time time, const char* what, size_t offset, PlaceId where) {
    bool own = warp >= first && warp < last;
    if (own || time <= block_begin_ || time <= settled_ || end.seen[warp] >= time) return;
    fail(FaultKind::kRace, Place::of(current_fiber()->place),
         format("block %u of the cluster ends, not ordered after a %s of its offset %zu of dynamic "
                "shared memory by another block",
                block % worker.cluster_blocks, what, offset),
         place(where));
  };
  size_t begin = size_t{block} * kDynamicStride, bytes = worker.shared.dynamic_bytes;
  for (size_t offset = 0; offset < bytes; offset += kWordBytes) {
    const Cell& cell = dynamic_shared_.cells[(begin + offset) / kWordBytes];
    if (cell.write_bytes) {
      check(cell.writer / kWarpLanes, cell.write_time, "write", offset, cell.write_place);
    }
    if (!cell.read_bytes) continue;
    check(cell.reader_warp_0, cell.read_time[0], "read", offset, cell.read_place);
    check(cell.reader_warp_1, cell.read_time[1], "read", offset, cell.read_place);
  }
  dynamic_shared_.set(begin, bytes, ByteState::kFreed);
}

void Checker::step(Fiber* fiber, uintptr_t instruction) {
  if (++steps_ < kMaxSteps) return;
  fail(FaultKind::kEndless, Place{nullptr, 0, instruction - library_->begin},
       fiber->describe() + " runs without an end");
}

void Checker::order_block(Worker& worker) {
  settled_ = tick();
  Time now = tick();
  for (unsigned w = 0; w < worker.warp_count; w++) {
    worker.warps[w].clock.now = now;
    take_over(settled_fenced_, worker.warps[w].clock.fenced);
  }
}

void Checker::order_warp(WarpClock& warp, unsigned index) {
  warp.seen[index] = warp.now;
  warp.now = tick();
}

void Checker::release(WarpClock& warp, unsigned index, ReleaseClock& clock) {
  take_over(clock.seen, warp.seen);
  take_over(clock.fenced, warp.fenced);
  clock.seen[index] = std::max(clock.seen[index], warp.now);
  warp.now = tick();
}

void Checker::acquire(WarpClock& warp, const ReleaseClock& clock) {
  take_over(warp.seen, clock.seen);
  take_over(warp.fenced, clock.fenced);
}

void Checker::join(ReleaseClock& clock, const ReleaseClock& other) {
  take_over(clock.seen, other.seen);
  take_over(clock.fenced, other.fenced);
}

void Checker::fence_proxy(Fiber* fiber) { fiber->proxy_fenced = moment(fiber); }

Time Checker::moment(Fiber* fiber) {
  Time moment = tick();
  fiber->worker->warps[fiber->warp].clock.now = tick();
  return moment;
}

void Checker::acquire_fenced(WarpClock& warp) { take_over(warp.seen, warp.observed); }

void Checker::fence(WarpClock& warp, unsigned index) {
  acquire_fenced(warp);
  take_over(warp.fenced, warp.seen);
  for (Time& time : warp.fenced) time = std::max(time, settled_);
  warp.fenced[index] = warp.now;
  warp.now = tick();  // what the warp writes from here on is not fenced
}

// ---- Places

PlaceId Checker::id_of(loc_t loc) {
  for (size_t i = places_.size(); i-- > 0;) {
    if (places_[i].line() == loc.line() && places_[i].file_name() == loc.file_name()) {
      return kKnownPlace | PlaceId(i);
    }
  }
  places_.push_back(loc);
  return kKnownPlace | PlaceId(places_.size() - 1);
}

Place Checker::place(PlaceId id) const {
  if (id & kKnownPlace) return Place::of(places_[id & ~kKnownPlace]);
  return Place{nullptr, 0, id};
}

uint64_t Checker::offset(uintptr_t instruction) const { return instruction - library_->begin; }

std::string Checker::describe(uintptr_t address) const {
  if (dynamic_shared_.contains(address)) {
    return format("offset %zu of dynamic shared memory", dynamic_shared_.offset(address));
  }
  if (static_shared_.contains(address)) {
    return format("offset %zu of static shared memory", static_shared_.offset(address));
  }
  return DeviceMemory::get().describe(address);
}

std::string Checker::describe(const Event& event) const {
  const char* name = is_atomic(event.access) ? "an atomic"
                     : writes(event.access)  ? "a write"
                                             : "a read";
  return format("%s of %zu bytes at %s", name, event.bytes, describe(event.address).c_str());
}

// ---- Entry points

void Checker::access(Fiber* fiber, uintptr_t address, size_t bytes, Access access,
                     uintptr_t instruction) {
  const WarpClock* clock = &fiber->worker->warps[fiber->warp].clock;
  judge({fiber, address, bytes, access, PlaceId(instruction - library_->begin), clock, false});
}

void Checker::read(Fiber* fiber, const void* from, size_t bytes, loc_t loc) {
  if (bytes == 0) return;
  const WarpClock* clock = &fiber->worker->warps[fiber->warp].clock;
  judge({fiber, reinterpret_cast<uintptr_t>(from), bytes, Access::kRead, id_of(loc), clock, false});
}

void Checker::write(Fiber* fiber, void* to, size_t bytes, loc_t loc) {
  const WarpClock* clock = &fiber->worker->warps[fiber->warp].clock;
  judge({fiber, reinterpret_cast<uintptr_t>(to), bytes, Access::kWrite, id_of(loc), clock, false});
}

void Checker::atomic_read(Fiber* fiber, const void* from, size_t bytes, loc_t loc) {
  const WarpClock* clock = &fiber->worker->warps[fiber->warp].clock;
  auto address = reinterpret_cast<uintptr_t>(from);
  judge({fiber, address, bytes, Access::kAtomicRead, id_of(loc), clock, false});
}

void Checker::atomic_update(Fiber* fiber, void* to, size_t bytes, loc_t loc) {
  const WarpClock* clock = &fiber->worker->warps[fiber->warp].clock;
  auto address = reinterpret_cast<uintptr_t>(to);
  judge({fiber, address, bytes, Access::kAtomicUpdate, id_of(loc), clock, false});
}

void Checker::read_async(Fiber* fiber, const void* from, size_t bytes, loc_t loc) {
  if (bytes == 0) return;
  const WarpClock* clock = &fiber->worker->warps[fiber->warp].clock;
  auto address = reinterpret_cast<uintptr_t>(from);
  judge({fiber, address, bytes, Access::kRead, id_of(loc), clock, false, true});
}

void Checker::write_async(Fiber* fiber, void* to, size_t bytes, loc_t loc) {
  if (bytes == 0) return;
  const WarpClock* clock = &fiber->worker->warps[fiber->warp].clock;
  auto address = reinterpret_cast<uintptr_t>(to);
  judge({fiber, address, bytes, Access::kWrite, id_of(loc), clock, false, true});
}

void Checker::unchanged_since(Fiber* fiber, const void* from, size_t bytes, Time since, loc_t loc) {
  auto address = reinterpret_cast<uintptr_t>(from);
  const Shadow& shadow = dynamic_shared_.contains(address) ? dynamic_shared_ : static_shared_;
  size_t offset = shadow.offset(address);
  for (size_t word = offset / kWordBytes; word * kWordBytes < offset + bytes; word++) {
    const Cell& cell = shadow.cells[word];
    if (cell.write_time <= since) continue;
    fail(FaultKind::kInFlight, Place::of(loc),
         describe(address) + " is being read asynchronously, but is written meanwhile by " +
             fiber->worker->fibers[cell.writer]->describe(),
         place(cell.write_place));
  }
}

void Checker::in_flight(Fiber*, void* to, size_t bytes) {
  auto address = reinterpret_cast<uintptr_t>(to);
  Shadow& shadow = dynamic_shared_.contains(address) ? dynamic_shared_ : static_shared_;
  shadow.set(shadow.offset(address), bytes, ByteState::kInFlight);
}

void Checker::landed(Fiber*, void* to, size_t bytes) {
  auto address = reinterpret_cast<uintptr_t>(to);
  Shadow& shadow = dynamic_shared_.contains(address) ? dynamic_shared_ : static_shared_;
  shadow.set(shadow.offset(address), bytes, ByteState::kInitialised);
}

// ---- The judgement

const Shadow* Checker::find_shadow(const Event& event) {
  if (dynamic_shared_.contains(event.address)) return &dynamic_shared_;
  if (device_.contains(event.address)) return &device_;
  if (static_shared_.contains(event.address)) return &static_shared_;
  if (library_->contains(event.address) && !writes(event.access)) return nullptr;  // constants
  fail_outside(event);
}

void Checker::fail_outside(const Event& event) {
  Place at = place(event.place);
  if (library_->contains(event.address)) {
    fail(FaultKind::kOutOfBounds, at, "a write to constant or static storage");
  }
  if (const Fiber* owner = event.fiber->worker->fibers.owner(event.address)) {
    fail(FaultKind::kOutOfBounds, at, "an access to a local variable of " + owner->describe());
  }
  fail(FaultKind::kOutOfBounds, at,
       format("a %s of %zu bytes at 0x%zx, which is neither device nor shared memory",
              writes(event.access) ? "write" : "read", event.bytes, size_t(event.address)));
}

void Checker::fail_misaligned(const Event& event) {
  fail(FaultKind::kMisaligned, place(event.place), describe(event) + " is misaligned");
}

void Checker::fail_early(const Event& event) {
  fail(FaultKind::kEarly, place(event.place),
       describe(event) + " by a thread that has not waited for the kernels before this one");
}

void Checker::fail_race(const Event& event, const char* other, unsigned thread,
                        PlaceId other_place) {
  fail(FaultKind::kRace, place(event.place),
       describe(event) + " is not ordered after the " + other + " by " +
           event.fiber->worker->fibers[thread]->describe(),
       place(other_place));
}

void Checker::fail_race_of_blocks(const Event& event, const char* other, PlaceId other_place) {
  fail(FaultKind::kRace, place(event.place),
       describe(event) + " is not ordered with a " + other + " by another block",
       place(other_place));
}

void Checker::fail_state(const Event& event, const Shadow& shadow, size_t offset) {
  Place at = place(event.place);
  const Cell& cell = shadow.cells[offset / kWordBytes];
  if (offset >= shadow.bytes)
    fail(FaultKind::kOutOfBounds, at, describe(event) + " goes past its end");
  switch (ByteState(shadow.states[offset])) {
    case ByteState::kUninitialised:
      fail(FaultKind::kUninitialised, at, describe(event) + ", which was never written");
    case ByteState::kInFlight:
      fail(FaultKind::kInFlight, at,
           describe(event) + " while an asynchronous copy to it is in flight, issued by " +
               event.fiber->worker->fibers[cell.writer]->describe(),
           place(cell.write_place));
    case ByteState::kFreed:
      fail(FaultKind::kUseAfterFree, at, describe(event) + ", which has been freed");
    default:
      if (event.in_shared) {
        fail(FaultKind::kOutOfBounds, at,
             describe(event) + format(", of which the block has %u bytes",
                                      event.fiber->worker->shared.dynamic_bytes));
      }
      fail(FaultKind::kOutOfBounds, at, describe(event) + ", which is out of bounds");
  }
}

void Checker::check_states(const Event& event, const Shadow& shadow) {
  size_t offset = shadow.offset(event.address);
  if (shadow.all_initialised(offset, event.bytes)) return;
  size_t inside = std::min(event.bytes, shadow.bytes - offset);
  size_t known = shadow.first_other(offset, inside, ByteState::kInitialised);
  if (known == event.bytes) return;
  if (reads(event.access) || inside < event.bytes) {
    fail_state(event, shadow, offset + known);
  }
  for (size_t i = known; i < event.bytes; i++) {
    uint8_t& state = shadow.states[offset + i];
    if (state == uint8_t(ByteState::kUninitialised)) {
      state = uint8_t(ByteState::kInitialised);
    } else if (state != uint8_t(ByteState::kInitialised)) {
      fail_state(event, shadow, offset + i);
    }
  }
}

void Checker::judge(Event event) {
  const Shadow* shadow = find_shadow(event);
  if (!shadow) return;
  event.in_shared = shadow != &device_;
  bool power_of_two = (event.bytes & (event.bytes - 1)) == 0;
  if (power_of_two && event.bytes <= 16 && event.address & (event.bytes - 1)) {
    fail_misaligned(event);
  }
  if (!event.in_shared && !event.fiber->after_grids) fail_early(event);
  check_states(event, *shadow);
  if (!event.in_shared && is_atomic(event.access) && event.fiber->fenced) {
    sees_other_blocks_ = true;
    publish(*event.clock);
  }
  if (!event.in_shared && is_atomic(event.access)) meet_at_word(event);

  size_t offset = shadow->offset(event.address);
  size_t end = offset + event.bytes;
  for (size_t word = offset / kWordBytes; word * kWordBytes < end; word++) {
    size_t first = std::max(offset, word * kWordBytes) % kWordBytes;
    size_t last = std::min(end, (word + 1) * kWordBytes) - word * kWordBytes;
    judge_cell(event, shadow->cells[word], uint16_t((1u << last) - (1u << first)));
  }
}

bool Checker::ordered(const Event& event, unsigned warp, Time time) const {
  return time <= settled_ || event.clock->seen[warp] >= time;
}

void Checker::publish(const WarpClock& warp) {
  if (published_.empty() || published_.back().block_begin != block_begin_) {
    published_.push_back({block_begin_, {}});
  }
  take_over(published_.back().warps, settled_fenced_);
  take_over(published_.back().warps, warp.fenced);
}

void Checker::meet_at_word(const Event& event) {
  WarpClock& warp = event.fiber->worker->warps[event.fiber->warp].clock;
  ReleaseClock& word = words_[event.address];
  if (reads(event.access)) take_over(warp.observed, word.seen);
  if (event.access == Access::kAtomicStore) word = {};
  if (writes(event.access)) take_over(word.seen, warp.fenced);
}

// Whether an earlier block has published its warp's write at this time. A block that has published
// nothing has no entry: the one found is then of a block before it, and all its times are earlier.
bool Checker::is_published(unsigned warp, Time time) const {
  auto began_before = [time](const Published& block) { return block.block_begin < time; };
  auto next = std::partition_point(published_.begin(), published_.end(), began_before);
  return next != published_.begin() && std::prev(next)->warps[warp] >= time;
}

void Checker::judge_cell(const Event& event, Cell& cell, uint16_t bytes) {
  if (cell.write_bytes & bytes) {
    check_after_write(event, cell);
    if (event.async) check_proxy(event, cell);
  }
  if (writes(event.access)) {
    if (cell.read_bytes & bytes) check_after_reads(event, cell);
    record_write(event, cell, bytes);
  } else if (event.access == Access::kRead) {
    record_read(event, cell, bytes);
  }
}

void Checker::check_after_write(const Event& event, const Cell& cell) {
  if (cell.write_time <= launch_begin_) return;
  if (cell.write_is_atomic && is_atomic(event.access)) return;
  if (from_other_block(cell.write_time)) {
    if (event.in_shared) return;
    if (sees_other_blocks_ && is_published(cell.writer / kWarpLanes, cell.write_time)) return;
    fail_race_of_blocks(event, "write", cell.write_place);
  }
  if (cell.writer == event.fiber->linear) return;
  if (ordered(event, cell.writer / kWarpLanes, cell.write_time)) return;
  fail_race(event, "write", cell.writer, cell.write_place);
}

// Writes of other blocks' lives in this shared memory do not count, nor do device memory's.
void Checker::check_proxy(const Event& event, const Cell& cell) {
  if (!event.in_shared || !reads(event.access)) return;
  if (cell.write_is_async || cell.write_time <= block_begin_) return;
  const Fiber* writer = event.fiber->worker->fibers[cell.writer];
  Time fenced = writer->proxy_fenced;
  if (fenced >= cell.write_time) {
    if (writer == event.fiber || ordered(event, writer->warp, fenced)) return;
  }
  fail(FaultKind::kProxy, place(event.place),
       describe(event) + " by the asynchronous proxy lacks a fence.proxy.async of " +
           writer->describe() + " between its write and the barrier",
       place(cell.write_place));
}

void Checker::check_after_reads(const Event& event, const Cell& cell) {
  bool other_block = from_other_block(std::max(cell.read_time[0], cell.read_time[1])) ||
                     (cell.other_block_read && cell.read_time[0] > launch_begin_);
  if (other_block && !event.in_shared && !sees_other_blocks_) {
    fail_race_of_blocks(event, "read", cell.read_place);
  }
  for (unsigned i = 0; i < 2; i++) {
    if (cell.read_time[i] <= block_begin_) continue;
    unsigned warp = i == 0 ? cell.reader_warp_0 : cell.reader_warp_1;
    uint32_t others = cell.read_lanes[i];
    if (warp == event.fiber->warp) others &= ~(1u << event.fiber->lane);
    if (!others || ordered(event, warp, cell.read_time[i])) continue;
    fail_race(event, "read", warp * kWarpLanes + unsigned(__builtin_ctz(others)), cell.read_place);
  }
}

void Checker::record_write(const Event& event, Cell& cell, uint16_t bytes) {
  cell.write_time = event.clock->now;
  cell.write_place = event.place;
  cell.writer = uint16_t(event.fiber->linear) & 0x3ff;
  cell.write_is_atomic = is_atomic(event.access);
  cell.write_is_async = event.async;
  cell.write_bytes = bytes & 0xf;
  cell.read_bytes = 0;
}

// Slot 0 holds the warp that read last.
void Checker::record_read(const Event& event, Cell& cell, uint16_t bytes) {
  bool fresh = cell.read_bytes == bytes && cell.read_time[0] > block_begin_;
  if (!fresh) {
    bool in_launch = cell.read_bytes && cell.read_time[0] > launch_begin_;
    cell.other_block_read =
        in_launch && (from_other_block(cell.read_time[0]) || cell.other_block_read);
    cell.read_bytes = bytes & 0xf;
    cell.read_time[0] = cell.read_time[1] = 0;
    cell.read_lanes[0] = cell.read_lanes[1] = 0;
  } else if (cell.reader_warp_0 != event.fiber->warp) {
    std::swap(cell.read_time[0], cell.read_time[1]);
    std::swap(cell.read_lanes[0], cell.read_lanes[1]);
    uint16_t previous = cell.reader_warp_0;
    cell.reader_warp_0 = cell.reader_warp_1;
    cell.reader_warp_1 = previous & 0x1f;
  }
  bool same_time = cell.reader_warp_0 == event.fiber->warp && cell.read_time[0] == event.clock->now;
  cell.reader_warp_0 = event.fiber->warp & 0x1f;
  cell.read_time[0] = event.clock->now;
  cell.read_lanes[0] = (same_time ? cell.read_lanes[0] : 0) | 1u << event.fiber->lane;
  cell.read_place = event.place;
}

}  // namespace simt
