#include "check/shadow.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "device_memory.h"

namespace simt {
namespace {

constexpr size_t kPage = 4096;

void* reserve_pages(size_t bytes) {
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  return pages;
}

}  // namespace

void Shadow::reserve(size_t capacity) {
  states = static_cast<uint8_t*>(reserve_pages(capacity));
  cells = static_cast<Cell*>(reserve_pages(capacity / kWordBytes * sizeof(Cell)));
}

void Shadow::release_cells(size_t first_byte, size_t byte_count) {
  uintptr_t first = reinterpret_cast<uintptr_t>(cells + first_byte / kWordBytes);
  uintptr_t last = reinterpret_cast<uintptr_t>(cells + (first_byte + byte_count) / kWordBytes);
  first = (first + kPage - 1) / kPage * kPage;
  last = last / kPage * kPage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

void Shadow::set(size_t offset, size_t count, ByteState state) {
  memset(states + offset, int(state), count);
}

size_t Shadow::first_other(size_t offset, size_t count, ByteState state) const {
  const uint8_t* byte = states + offset;
  const uint8_t* end = byte + count;
  uint64_t eight_of_it = 0x0101010101010101u * uint64_t(state);
  for (; end - byte >= 8; byte += 8) {
    uint64_t eight;
    memcpy(&eight, byte, sizeof eight);
    if (eight != eight_of_it) break;
  }
  while (byte != end && *byte == uint8_t(state)) byte++;
  return size_t(byte - (states + offset));
}

namespace shadow {

Shadow& device() {
  static Shadow* shadow = [] {
    auto* fresh = new Shadow;
    fresh->reserve(DeviceMemory::kCapacity);
    fresh->begin = reinterpret_cast<uintptr_t>(DeviceMemory::get().begin());
    fresh->bytes = DeviceMemory::kCapacity;
    return fresh;
  }();
  return *shadow;
}

void allocated(uintptr_t address, size_t bytes) {
  Shadow& shadow = device();
  shadow.set(shadow.offset(address), bytes, ByteState::kUninitialised);
}

void freed(uintptr_t address, size_t bytes) {
  Shadow& shadow = device();
  shadow.set(shadow.offset(address), bytes, ByteState::kFreed);
  shadow.release_cells(shadow.offset(address), bytes);
}

void initialised(uintptr_t address, size_t bytes) {
  Shadow& shadow = device();
  shadow.set(shadow.offset(address), bytes, ByteState::kInitialised);
}

void copied(uintptr_t to, uintptr_t from, size_t bytes) {
  Shadow& shadow = device();
  memmove(shadow.states + shadow.offset(to), shadow.states + shadow.offset(from), bytes);
}

size_t initialised_prefix(uintptr_t address, size_t bytes) {
  Shadow& shadow = device();
  return shadow.first_other(shadow.offset(address), bytes, ByteState::kInitialised);
}

}  // namespace shadow
}  // namespace simt
