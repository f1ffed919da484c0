// The shared libraries with the kernels, one per .cu file.
#pragma once

#include <cstdint>

#include "simt/kernel.h"

namespace simt {

struct LoadedLibrary {
  const Library* library;
  uintptr_t begin, end;         // where it is mapped
  size_t static_shared_offset;  // of library->static_shared() in the static shared memory
  size_t static_shared_bytes;   // of all its kernels together

  bool contains(uintptr_t address) const { return address - begin < end - begin; }
  // The calling thread's copy of the static shared memory.
  char* static_shared() const {
    return static_cast<char*>(library->static_shared()) - static_shared_offset;
  }
};

// Null if `library` is not in a loaded library.
const LoadedLibrary* find_loaded(const Library* library);

}  // namespace simt
