// The global memory of the emulated device: one range of addresses that all workers share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>

namespace simt {

class DeviceMemory {
 public:
  static constexpr size_t kCapacity = size_t{1}
                                      << 36;  // of addresses; pages come when they are touched
  static constexpr size_t kAlignment = 256;

  static DeviceMemory& get();

  // The address of `bytes` bytes, all 0xff and not initialised for the checker; 0 if no more can be
  // had.
  uintptr_t allocate(size_t bytes);
  // Faults of the host get a message, success an empty string.
  std::string free(uintptr_t address);
  std::string write(uintptr_t to, const void* from, size_t bytes);
  std::string read(uintptr_t from, void* to, size_t bytes);
  std::string copy(uintptr_t to, uintptr_t from, size_t bytes);
  std::string fill(uintptr_t to, int value, size_t bytes);

  char* begin() const { return begin_; }
  bool contains(uintptr_t address) const {
    return address - reinterpret_cast<uintptr_t>(begin_) < kCapacity;
  }
  // Says where in which allocation an address lies.
  std::string describe(uintptr_t address);

 private:
  struct Slot {  // what has been given out, with the gap behind it
    uintptr_t address;
    size_t bytes;
  };

  DeviceMemory();
  // Null, or what is wrong with a range that the host names.
  std::string check_range(const char* what, uintptr_t address, size_t bytes);
  uintptr_t take_slot(size_t bytes);
  void retire(Slot slot);

  std::mutex mutex_;
  char* begin_;
  size_t top_ = 0;                           // no slot has been cut beyond
  std::map<uintptr_t, size_t> allocations_;  // address to bytes asked for
  std::deque<Slot> quarantine_;  // freed; not given out again yet, so that late uses are seen
  size_t quarantined_ = 0;       // its bytes
  std::multimap<size_t, uintptr_t> free_slots_;  // by size
};

}  // namespace simt
