// The table of kernels of a shared library. The build script appends it to each `.cu` file:
//
//   SIMT_KERNELS("kernels/softmax.cu", SIMT_KERNEL(softmax), SIMT_KERNEL(top_k))
//
// It is made of constants: loading the library runs no code of it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <type_traits>
#include <typeinfo>
#include <utility>

#include "simt/keywords.h"

namespace simt {

struct Parameter {
  uint32_t size;
  bool is_pointer;
  const std::type_info* type;
};

struct Kernel {
  const char* name;
  const Parameter* parameters;
  uint32_t parameter_count;
  // Calls the kernel with the values that `arguments` point to.
  void (*invoke)(void* const* arguments);
  // The address of its code.
  uintptr_t (*entry)();
};

// What a kernel's library tells the emulator.
struct Library {
  const char* file;
  const Kernel* kernels;
  uint32_t kernel_count;
  // An address in the calling thread's copy of the library's static shared memory.
  void* (*static_shared)();
};

template <class... Parameters>
inline constexpr Parameter kParameters[sizeof...(Parameters) + 1] = {
    {sizeof(Parameters), std::is_pointer_v<Parameters>, &typeid(Parameters)}..., {}};

template <auto kFunction, class... Parameters, size_t... kIndex>
SIMT_UNCHECKED void invoke_with(void* const* arguments, std::index_sequence<kIndex...>) {
  kFunction(*static_cast<Parameters*>(arguments[kIndex])...);
}

template <auto kFunction, class... Parameters>
SIMT_UNCHECKED void invoke(void* const* arguments) {
  invoke_with<kFunction, Parameters...>(arguments, std::index_sequence_for<Parameters...>{});
}

template <auto kFunction>
SIMT_UNCHECKED uintptr_t entry() {
  return reinterpret_cast<uintptr_t>(kFunction);
}

template <auto kFunction, class... Parameters>
constexpr Kernel describe(const char* name, void (*)(Parameters...)) {
  return {name, kParameters<Parameters...>, sizeof...(Parameters),
          &invoke<kFunction, Parameters...>, &entry<kFunction>};
}

}  // namespace simt

#define SIMT_KERNEL(NAME) ::simt::describe<&NAME>(#NAME, &NAME)
#define SIMT_KERNELS(FILE, ...)                                                         \
  static thread_local char simt_static_shared_mark;                                     \
  SIMT_UNCHECKED static void* simt_static_shared() { return &simt_static_shared_mark; } \
  static constexpr ::simt::Kernel simt_kernels[] = {__VA_ARGS__};                       \
  extern "C" __attribute__((visibility("default"))) const ::simt::Library simt_library; \
  constexpr ::simt::Library simt_library = {                                            \
      FILE, simt_kernels, sizeof simt_kernels / sizeof *simt_kernels, &simt_static_shared};
