// Shadow memory: for every byte whether it may be read, for every word who accessed it last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace simt {

enum class ByteState : uint8_t {
  kUnallocated,  // what fresh pages hold
  kUninitialised,
  kInitialised,
  kInFlight,  // the destination of an asynchronous copy
  kFreed,
};

// A point in the order of accesses; see access_checker.h.
using Time = uint32_t;

// A line of a kernel in 32 bits: with the highest bit the index of a known place, else an offset in
// the library.
using PlaceId = uint32_t;

inline constexpr size_t kWordBytes = 4;

// The last write to a word and the reads since. Accesses to different bytes of a word share it: the
// record then is of the later one, so that a race may go unseen but none is made up.
struct Cell {
  Time write_time;
  PlaceId write_place;
  uint16_t writer : 10;  // thread of the block
  uint16_t write_is_atomic : 1;
  uint16_t write_bytes : 4;  // of the word, a bit each
  uint16_t write_is_async : 1;
  uint16_t reader_warp_0 : 5;
  uint16_t reader_warp_1 : 5;
  uint16_t read_bytes : 4;
  uint16_t other_block_read : 1;  // another block of the launch did before the readers below
  PlaceId read_place;
  Time read_time[2];       // of the two warps that read it last
  uint32_t read_lanes[2];  // of each
};
static_assert(sizeof(Cell) == 32);

// Shadow of one range of memory.
struct Shadow {
  uintptr_t begin = 0;
  size_t bytes = 0;
  uint8_t* states = nullptr;
  Cell* cells = nullptr;

  // Reserves shadow for `capacity` bytes; `begin` and `bytes` are set apart.
  void reserve(size_t capacity);
  void release_cells(size_t first_byte, size_t byte_count);
  bool contains(uintptr_t address) const { return address - begin < bytes; }
  size_t offset(uintptr_t address) const { return address - begin; }
  void set(size_t offset, size_t count, ByteState state);
  // Whether all of 1, 2, 4, 8 or 16 bytes at a multiple of their number are initialised; false for
  // other counts.
  bool all_initialised(size_t offset, size_t count) const;
  // The first of `count` bytes whose state is not `state`, or `count`.
  size_t first_other(size_t offset, size_t count, ByteState state) const;
};

inline bool Shadow::all_initialised(size_t offset, size_t count) const {
  constexpr uint64_t kEight = 0x0101010101010101u * uint64_t(ByteState::kInitialised);
  auto holds = [&](auto part, size_t at) {
    memcpy(&part, states + offset + at, sizeof part);
    return part == decltype(part)(kEight);
  };
  switch (count) {
    case 1:
      return holds(uint8_t{}, 0);
    case 2:
      return holds(uint16_t{}, 0);
    case 4:
      return holds(uint32_t{}, 0);
    case 8:
      return holds(uint64_t{}, 0);
    case 16:
      return holds(uint64_t{}, 0) && holds(uint64_t{}, 8);
    default:
      return false;
  }
}

// Device memory's shadow, shared by all workers.
namespace shadow {
Shadow& device();
void allocated(uintptr_t address, size_t bytes);
void freed(uintptr_t address, size_t bytes);
void initialised(uintptr_t address, size_t bytes);
void copied(uintptr_t to, uintptr_t from, size_t bytes);
size_t initialised_prefix(uintptr_t address, size_t bytes);
}  // namespace shadow

}  // namespace simt
