#include "device_memory.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "check/checker.h"
#include "fault.h"

namespace simt {
namespace {

// Freed memory is kept out of use up to these amounts.
constexpr size_t kQuarantineBytes = size_t{256} << 20;
constexpr size_t kQuarantineSlots = 1 << 14;
constexpr size_t kPage = 4096;

size_t slot_bytes(size_t bytes) {
  // A gap of at least kAlignment separates neighbours. Twice the alignment gives the checker's
  // cells whole pages.
  size_t unit = 2 * DeviceMemory::kAlignment;
  return (bytes + DeviceMemory::kAlignment + unit - 1) / unit * unit;
}

}  // namespace

DeviceMemory& DeviceMemory::get() {
  static DeviceMemory* memory = new DeviceMemory;  // never destroyed: threads may outlive main
  return *memory;
}

DeviceMemory::DeviceMemory() {
  void* range = mmap(nullptr, kCapacity, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) throw std::bad_alloc();
  begin_ = static_cast<char*>(range);
}

uintptr_t DeviceMemory::take_slot(size_t bytes) {
  if (auto slot = free_slots_.find(bytes); slot != free_slots_.end()) {
    uintptr_t address = slot->second;
    free_slots_.erase(slot);
    return address;
  }
  if (bytes > kCapacity - kPage - top_) return 0;
  if (top_ == 0) top_ = kPage;
  uintptr_t address = reinterpret_cast<uintptr_t>(begin_) + top_;
  top_ += bytes;
  return address;
}

uintptr_t DeviceMemory::allocate(size_t bytes) {
  std::lock_guard lock(mutex_);
  if (bytes > kCapacity / 2) return 0;
  uintptr_t address = take_slot(slot_bytes(bytes));
  if (!address) return 0;
  allocations_[address] = bytes;
  memset(reinterpret_cast<void*>(address), 0xff, bytes);
  shadow::allocated(address, bytes);
  return address;
}

std::string DeviceMemory::free(uintptr_t address) {
  std::lock_guard lock(mutex_);
  auto allocation = allocations_.find(address);
  if (allocation == allocations_.end()) {
    return format("0x%zx is not the address of an allocation", size_t(address));
  }
  shadow::freed(address, allocation->second);
  retire({address, slot_bytes(allocation->second)});
  allocations_.erase(allocation);
  return {};
}

void DeviceMemory::retire(Slot slot) {
  uintptr_t first_page = (slot.address + kPage - 1) / kPage * kPage;
  uintptr_t last_page = (slot.address + slot.bytes) / kPage * kPage;
  if (first_page < last_page) {
    madvise(reinterpret_cast<void*>(first_page), last_page - first_page, MADV_DONTNEED);
  }
  quarantine_.push_back(slot);
  quarantined_ += slot.bytes;
  while (quarantined_ > kQuarantineBytes || quarantine_.size() > kQuarantineSlots) {
    Slot oldest = quarantine_.front();
    quarantine_.pop_front();
    quarantined_ -= oldest.bytes;
    free_slots_.emplace(oldest.bytes, oldest.address);
  }
}

std::string DeviceMemory::check_range(const char* what, uintptr_t address, size_t bytes) {
  auto after = allocations_.upper_bound(address);
  if (after != allocations_.begin()) {
    auto [start, size] = *std::prev(after);
    size_t offset = address - start;
    if (offset <= size && bytes <= size - offset) return {};
    if (offset <= size) {
      return format("%s of %zu bytes at offset %zu of an allocation of %zu bytes", what, bytes,
                    offset, size);
    }
  }
  return format("%s of %zu bytes at 0x%zx, which is not allocated", what, bytes, size_t(address));
}

std::string DeviceMemory::write(uintptr_t to, const void* from, size_t bytes) {
  std::lock_guard lock(mutex_);
  std::string error = check_range("a write", to, bytes);
  if (!error.empty() || bytes == 0) return error;
  memcpy(reinterpret_cast<void*>(to), from, bytes);
  shadow::initialised(to, bytes);
  return {};
}

std::string DeviceMemory::read(uintptr_t from, void* to, size_t bytes) {
  std::lock_guard lock(mutex_);
  std::string error = check_range("a read", from, bytes);
  if (!error.empty() || bytes == 0) return error;
  size_t known = shadow::initialised_prefix(from, bytes);
  if (known < bytes) {
    return format("a read of %zu bytes, of which byte %zu was never written", bytes, known);
  }
  memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return {};
}

std::string DeviceMemory::copy(uintptr_t to, uintptr_t from, size_t bytes) {
  std::lock_guard lock(mutex_);
  std::string error = check_range("a copy", from, bytes);
  if (error.empty()) error = check_range("a copy", to, bytes);
  if (!error.empty() || bytes == 0) return error;
  memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
  shadow::copied(to, from, bytes);
  return {};
}

std::string DeviceMemory::fill(uintptr_t to, int value, size_t bytes) {
  std::lock_guard lock(mutex_);
  std::string error = check_range("a fill", to, bytes);
  if (!error.empty() || bytes == 0) return error;
  memset(reinterpret_cast<void*>(to), value, bytes);
  shadow::initialised(to, bytes);
  return {};
}

std::string DeviceMemory::describe(uintptr_t address) {
  std::lock_guard lock(mutex_);
  auto after = allocations_.upper_bound(address);
  // What lies shortly behind an allocation most likely was meant to be in it.
  if (after != allocations_.begin()) {
    auto [start, size] = *std::prev(after);
    if (address - start < slot_bytes(size) + kPage) {
      return format("offset %zu of a device buffer of %zu bytes", size_t(address - start), size);
    }
  }
  if (after != allocations_.end() && after->first - address < kPage) {
    return format("%zu bytes before a device buffer of %zu bytes", size_t(after->first - address),
                  after->second);
  }
  return format("device address 0x%zx", size_t(address));
}

}  // namespace simt
