// What went wrong in a launch, as the host gets it.
#pragma once

#include <string>

#include "simt/runtime.h"
#include "simt/vector_types.h"

namespace simt {

// The same numbers as `FaultKind` in src/fault.rs.
enum class FaultKind : uint32_t {
  kLaunch,
  kDeadlock,
  kEndless,
  kBarrier,
  kCollective,
  kOutOfBounds,
  kUseAfterFree,
  kMisaligned,
  kUninitialised,
  kInFlight,
  kRace,
  kUndefined,
  kTrap,
  kProxy,
  kEarly,
};

// A line of a kernel: either known by name, or an address of instructions in the kernel's library.
struct Place {
  const char* file = nullptr;
  uint32_t line = 0;
  uint64_t instruction = 0;  // offset in the library, 0 if `file` is given

  static Place of(loc_t loc) { return {loc.file_name(), loc.line(), 0}; }
};

struct Fault {
  FaultKind kind = FaultKind::kLaunch;
  std::string message;
  bool has_thread = false;
  uint3 block{}, thread{};
  Place place;        // where it happened
  Place other_place;  // the access that this one is at odds with
};

// Ends the launch: records the fault for the thread that runs and leaves its fiber for good.
[[noreturn]] void fail(FaultKind kind, Place place, std::string message, Place other = {});
[[noreturn]] void fail(FaultKind kind, loc_t loc, std::string message);

// printf into a string.
std::string format(const char* text, ...) __attribute__((format(printf, 1, 2)));

}  // namespace simt
