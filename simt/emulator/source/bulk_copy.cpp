// cp.async.bulk and cp.async.bulk.tensor.
//
// Loads complete on an mbarrier. They land when they are issued, or else when no thread can go on
// without them or by chance. In the check build their destination counts as in flight until a
// thread has waited for the mbarrier. Stores land when they are issued or when they are waited for,
// whichever form of the wait it is; until then their source must not change.
#include <algorithm>
#include <cstring>

#include "simt/hopper.h"
#include "worker.h"

namespace simt {
namespace {

constexpr uint32_t kChunkBytes = 16;
constexpr uint32_t kTensorAlignment = 128;
constexpr uint32_t kMaxRowBytes = 256 * 16;

bool lands_at_once(Worker& worker) {
  if (worker.copies != Copies::kRandom) return worker.copies == Copies::kEager;
  return worker.copy_random.next() & 1;
}

// ---- Boxes of a tensor

uint32_t row_bytes(const TensorMap& map) { return map.box[0] * map.element_bytes; }

uint32_t box_bytes(const TensorMap& map) {
  uint32_t bytes = map.element_bytes;
  for (uint32_t i = 0; i < map.rank; i++) bytes *= map.box[i];
  return bytes;
}

// A row of a box: its place in global memory, and which of its bytes lie inside of the tensor.
struct BoxRow {
  char* global;
  uint32_t first, end;  // bytes of the row; first == end if none
};

BoxRow box_row(const BulkCopy& copy, uint32_t index) {
  const TensorMap& map = copy.map;
  uint64_t address = map.base;
  bool inside = true;
  for (uint32_t i = 1; i < map.rank; i++) {
    int64_t at = copy.coordinates[i] + int64_t(index % map.box[i]);
    index /= map.box[i];
    inside = inside && at >= 0 && at < int64_t(map.sizes[i]);
    address += uint64_t(at) * map.strides[i - 1];
  }
  int64_t start = copy.coordinates[0], columns = map.box[0];
  address += uint64_t(start) * map.element_bytes;
  int64_t first = std::clamp<int64_t>(-start, 0, columns);
  int64_t end = std::clamp<int64_t>(int64_t(map.sizes[0]) - start, first, columns);
  if (!inside) end = first;
  return {reinterpret_cast<char*>(address), uint32_t(first) * map.element_bytes,
          uint32_t(end) * map.element_bytes};
}

// The place of the 16 bytes at `offset` of the box, row after row.
char* chunk(const BulkCopy& copy, uint32_t offset) {
  uint32_t address = copy.address + offset;  // of which the bits of a rank are not crossed in
  return copy.shared + (swizzled(address, copy.map.swizzle_bytes) - copy.address);
}

// ---- Landing

void read_global(const BulkCopy& copy) {
  Checker& checker = copy.fiber->worker->checker;
  if (!copy.is_tensor) {
    checker.read(copy.fiber, copy.global, copy.bytes, copy.loc);
    return;
  }
  uint32_t bytes = row_bytes(copy.map);
  for (uint32_t row = 0; row * bytes < copy.bytes; row++) {
    BoxRow part = box_row(copy, row);
    checker.read(copy.fiber, part.global + part.first, part.end - part.first, copy.loc);
  }
}

void copy_to_shared(const BulkCopy& copy) {
  if (!copy.is_tensor) {
    memcpy(copy.shared, copy.global, copy.bytes);
    return;
  }
  uint32_t bytes = row_bytes(copy.map);
  for (uint32_t row = 0; row * bytes < copy.bytes; row++) {
    char values[kMaxRowBytes] = {};
    BoxRow part = box_row(copy, row);
    memcpy(values + part.first, part.global + part.first, part.end - part.first);
    for (uint32_t at = 0; at < bytes; at += kChunkBytes) {
      memcpy(chunk(copy, row * bytes + at), values + at, kChunkBytes);
    }
  }
}

void land_load(Worker& worker, const BulkCopy& copy) {
  read_global(copy);
  copy_to_shared(copy);
  complete_copy(worker, copy.barrier, {copy.shared, copy.bytes, copy.loc}, copy.clock);
}

void copy_to_global(const BulkCopy& copy) {
  Checker& checker = copy.fiber->worker->checker;
  if (!copy.is_tensor) {
    checker.write_async(copy.fiber, copy.global, copy.bytes, copy.loc);
    memcpy(copy.global, copy.shared, copy.bytes);
    return;
  }
  uint32_t bytes = row_bytes(copy.map);
  for (uint32_t row = 0; row * bytes < copy.bytes; row++) {
    char values[kMaxRowBytes];
    for (uint32_t at = 0; at < bytes; at += kChunkBytes) {
      memcpy(values + at, chunk(copy, row * bytes + at), kChunkBytes);
    }
    BoxRow part = box_row(copy, row);
    checker.write_async(copy.fiber, part.global + part.first, part.end - part.first, copy.loc);
    memcpy(part.global + part.first, values + part.first, part.end - part.first);
  }
}

void check_source(const BulkCopy& copy) {
  Checker& checker = copy.fiber->worker->checker;
  checker.unchanged_since(copy.fiber, copy.shared, copy.bytes, copy.since, copy.loc);
  checker.read_async(copy.fiber, copy.shared, copy.bytes, copy.loc);
}

// ---- Issue

void check_aligned(const char* what, uint64_t value, uint32_t alignment, loc_t loc) {
  if (value % alignment == 0) return;
  fail(FaultKind::kMisaligned, loc,
       format("the %s of a bulk copy is not aligned to %u bytes", what, alignment));
}

BulkCopy plain_copy(uint32_t shared, const void* global, uint32_t bytes, loc_t loc) {
  check_aligned("global address", reinterpret_cast<uintptr_t>(global), kChunkBytes, loc);
  check_aligned("size", bytes, kChunkBytes, loc);
  BulkCopy copy{};
  copy.fiber = current_fiber();
  copy.loc = copy.fiber->place = loc;
  copy.address = shared;
  copy.bytes = bytes;
  copy.shared = static_cast<char*>(from_smem(shared, bytes, kChunkBytes, loc));
  copy.global = static_cast<char*>(const_cast<void*>(global));
  return copy;
}

BulkCopy tensor_copy(uint32_t shared, const void* map, int rank, const int* coordinates,
                     loc_t loc) {
  BulkCopy copy{};
  copy.fiber = current_fiber();
  copy.loc = copy.fiber->place = loc;
  check_aligned("tensor map", reinterpret_cast<uintptr_t>(map), alignof(TensorMap), loc);
  memcpy(&copy.map, map, sizeof copy.map);
  if (copy.map.magic != TensorMap::kMagic) {
    fail(FaultKind::kOutOfBounds, loc, "a bulk copy's tensor map is none");
  }
  if (copy.map.rank != uint32_t(rank)) {
    fail(FaultKind::kOutOfBounds, loc,
         format("a copy of rank %d by a tensor map of rank %u", rank, copy.map.rank));
  }
  memcpy(copy.coordinates, coordinates, uint32_t(rank) * sizeof *coordinates);
  copy.is_tensor = true;
  copy.address = shared;
  copy.bytes = box_bytes(copy.map);
  copy.shared = static_cast<char*>(from_smem(shared, copy.bytes, kTensorAlignment, loc));
  return copy;
}

void issue_load(BulkCopy copy, uint32_t barrier) {
  Fiber* fiber = copy.fiber;
  Worker& worker = *fiber->worker;
  copy.barrier = mbarrier_for_copies(fiber, barrier, copy.loc).state;
  read_global(copy);
  worker.checker.write_async(fiber, copy.shared, copy.bytes, copy.loc);
  worker.checker.in_flight(fiber, copy.shared, copy.bytes);
  worker.checker.release(worker.warps[fiber->warp].clock, fiber->warp, copy.clock);
  if (lands_at_once(worker)) {
    land_load(worker, copy);
  } else {
    memset(copy.shared, 0xff, copy.bytes);
    worker.loads.push_back(copy);
  }
}

void issue_store(BulkCopy copy) {
  Worker& worker = *copy.fiber->worker;
  copy.group = copy.fiber->bulk_group;
  worker.checker.read_async(copy.fiber, copy.shared, copy.bytes, copy.loc);
  copy.since = worker.checker.moment(copy.fiber);
  if (lands_at_once(worker)) copy_to_global(copy);
  worker.stores.push_back(copy);
}

}  // namespace

void fence_proxy_async() {
  Fiber* fiber = current_fiber();
  fiber->worker->checker.fence_proxy(fiber);
  fence_mbarrier_init();
}

void bulk_load(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier, loc_t loc) {
  issue_load(plain_copy(to, from, bytes, loc), barrier);
}

void tensor_load(uint32_t to, const void* map, int rank, const int* coordinates, uint32_t barrier,
                 loc_t loc) {
  issue_load(tensor_copy(to, map, rank, coordinates, loc), barrier);
}

void tensor_load_multicast(uint32_t to, const void* map, int rank, const int* coordinates,
                           uint32_t barrier, uint32_t ranks, loc_t loc) {
  if (!ranks || ranks >> cluster_blocks()) {
    fail(FaultKind::kOutOfBounds, loc,
         format("a multicast to blocks 0x%x of a cluster of %u", ranks, cluster_blocks()));
  }
  for (; ranks; ranks &= ranks - 1) {
    unsigned block = unsigned(__builtin_ctz(ranks));
    BulkCopy copy = tensor_copy(map_shared(to, block, loc), map, rank, coordinates, loc);
    issue_load(copy, map_shared(barrier, block, loc));
  }
}

void bulk_store(void* to, uint32_t from, uint32_t bytes, loc_t loc) {
  issue_store(plain_copy(from, to, bytes, loc));
}

void tensor_store(const void* map, int rank, const int* coordinates, uint32_t from, loc_t loc) {
  issue_store(tensor_copy(from, map, rank, coordinates, loc));
}

void bulk_commit() { current_fiber()->bulk_group++; }

void bulk_wait(int pending, loc_t loc) {
  Fiber* fiber = current_fiber();
  std::vector<BulkCopy>& stores = fiber->worker->stores;
  fiber->place = loc;
  auto done = [=](const BulkCopy& copy) {
    return copy.fiber == fiber && int(fiber->bulk_group - copy.group) > pending;
  };
  for (const BulkCopy& copy : stores) {
    if (!done(copy)) continue;
    check_source(copy);
    copy_to_global(copy);  // again if it landed at once: the source has not changed
  }
  std::erase_if(stores, done);
}

bool land_a_load(Worker& worker) {
  std::vector<BulkCopy>& loads = worker.loads;
  if (loads.empty()) return false;
  size_t index = worker.copies == Copies::kRandom ? worker.copy_random.below(loads.size()) : 0;
  BulkCopy copy = loads[index];
  loads.erase(loads.begin() + long(index));
  land_load(worker, copy);
  return true;
}

void check_stores_waited(Fiber* fiber) {
  for (const BulkCopy& copy : fiber->worker->stores) {
    if (copy.fiber != fiber) continue;
    fail(FaultKind::kInFlight, copy.loc,
         fiber->describe() + " exits while its bulk store still reads shared memory");
  }
}

}  // namespace simt
