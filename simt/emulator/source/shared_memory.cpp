// The two parts of a block's shared memory behind one window of 32-bit addresses.
#include "worker.h"

namespace simt {

void* dyn_smem() { return current()->worker->shared.dynamic_begin; }

uint32_t to_smem(const void* pointer, loc_t loc) {
  const SharedMemory& shared = current()->worker->shared;
  auto* byte = static_cast<const char*>(pointer);
  // One past the end is an address too.
  size_t dynamic_offset = size_t(byte - shared.dynamic_begin);
  if (dynamic_offset <= shared.dynamic_bytes) return shared.dynamic_base + uint32_t(dynamic_offset);
  size_t static_offset = size_t(byte - shared.static_begin);
  if (static_offset <= shared.static_bytes)
    return SharedMemory::kStaticBase + uint32_t(static_offset);
  fail(FaultKind::kOutOfBounds, loc, format("%p does not point to shared memory", pointer));
}

void* from_smem(uint32_t address, uint32_t bytes, uint32_t alignment, loc_t loc) {
  const SharedMemory& shared = current()->worker->shared;
  if (address & (alignment - 1)) {
    fail(FaultKind::kMisaligned, loc,
         format("shared address %u is not aligned to %u bytes", address, alignment));
  }
  uint32_t dynamic_offset = address - shared.dynamic_base;
  if (address >= shared.dynamic_base && uint64_t(dynamic_offset) + bytes <= shared.dynamic_bytes) {
    return shared.dynamic_begin + dynamic_offset;
  }
  uint32_t static_offset = address - SharedMemory::kStaticBase;
  if (address >= SharedMemory::kStaticBase &&
      uint64_t(static_offset) + bytes <= shared.static_bytes) {
    return shared.static_begin + static_offset;
  }
  if (address >= shared.dynamic_base) {
    fail(FaultKind::kOutOfBounds, loc,
         format("%u bytes at offset %u of dynamic shared memory, of which the block has %u bytes",
                bytes, dynamic_offset, shared.dynamic_bytes));
  }
  fail(FaultKind::kOutOfBounds, loc,
       format("%u bytes at shared address %u, where nothing lies", bytes, address));
}

}  // namespace simt
