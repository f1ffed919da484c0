// The two parts of a block's shared memory behind one window of 32-bit addresses, and those of the
// other blocks of its cluster.
#include "worker.h"

namespace simt {
namespace {

constexpr uint32_t kOffsetMask = (1u << SharedMemory::kRankShift) - 1;

// The block that an address belongs to, if the thread may use its shared memory.
unsigned block_of(const Fiber* fiber, uint32_t address, loc_t loc) {
  uint32_t field = address >> SharedMemory::kRankShift;
  if (!field || field - 1 == fiber->block) return fiber->block;
  const Worker& worker = *fiber->worker;
  unsigned rank = field - 1 - worker.cluster_first(fiber->block);
  if (rank >= worker.cluster_blocks) {
    fail(FaultKind::kOutOfBounds, loc,
         format("shared memory of block %u in a cluster of %u", rank, worker.cluster_blocks));
  }
  if (!worker.live_in_block[field - 1]) {
    fail(FaultKind::kUseAfterFree, loc,
         format("shared memory of block %u of the cluster, which has ended", rank));
  }
  return field - 1;
}

}  // namespace

void* dyn_smem() {
  const Fiber* fiber = current_fiber();
  return fiber->worker->dynamic_shared(fiber->block);
}

uint32_t to_smem(const void* pointer, loc_t loc) {
  const Fiber* fiber = current_fiber();
  const Worker& worker = *fiber->worker;
  const SharedMemory& shared = worker.shared;
  auto* byte = static_cast<const char*>(pointer);
  // One past the end is an address too.
  for (unsigned block = 0; block < worker.blocks; block++) {
    size_t offset = size_t(byte - worker.dynamic_shared(block));
    if (offset > shared.dynamic_bytes) continue;
    uint32_t field = block == fiber->block ? 0 : (block + 1) << SharedMemory::kRankShift;
    return field | (shared.dynamic_base + uint32_t(offset));
  }
  size_t static_offset = size_t(byte - shared.static_begin);
  if (static_offset <= shared.static_bytes && worker.blocks == 1)
    return SharedMemory::kStaticBase + uint32_t(static_offset);
  fail(FaultKind::kOutOfBounds, loc,
       worker.blocks == 1 ? format("%p does not point to shared memory", pointer)
                          : format("%p does not point to dynamic shared memory, the only one that "
                                   "the emulator gives to blocks that run at the same time",
                                   pointer));
}

void* from_smem(uint32_t address, uint32_t bytes, uint32_t alignment, loc_t loc) {
  const Fiber* fiber = current_fiber();
  const SharedMemory& shared = fiber->worker->shared;
  if (address & (alignment - 1)) {
    fail(FaultKind::kMisaligned, loc,
         format("shared address %u is not aligned to %u bytes", address, alignment));
  }
  unsigned block = block_of(fiber, address, loc);
  address &= kOffsetMask;
  uint32_t dynamic_offset = address - shared.dynamic_base;
  if (address >= shared.dynamic_base && uint64_t(dynamic_offset) + bytes <= shared.dynamic_bytes) {
    return fiber->worker->dynamic_shared(block) + dynamic_offset;
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
