// wgmma.mma_async: products of a warpgroup with operands in shared memory.
//
// Each warp computes its own 16 of the 64 rows, when it issues a product or when it waits for it.
// Until then the accumulators hold NaN; in the check build ordinary code that touches them, or
// changes an operand, is at fault.
#include <cstring>

#include "simt/half.h"
#include "simt/hopper.h"
#include "worker.h"

namespace simt {
namespace {

constexpr int kRows = 16, kDepth = 16, kMaxColumns = 256;
constexpr uint32_t kChunkBytes = 16, kChunkElements = 8;
constexpr unsigned kGroupWarps = 4;

// ---- Operands in shared memory

// The fields of a matrix descriptor, in bytes.
struct Descriptor {
  uint32_t start, leading, stride, swizzle_bytes;

  explicit Descriptor(uint64_t bits)
      : start(uint32_t(bits & 0x3fff) << 4),
        leading(uint32_t(bits >> 16 & 0x3fff) << 4),
        stride(uint32_t(bits >> 32 & 0x3fff) << 4) {
    constexpr uint32_t kSwizzles[] = {0, 128, 64, 32};
    swizzle_bytes = kSwizzles[bits >> 62];
  }

  // The bytes of a row of the pattern that repeats.
  uint32_t pitch() const { return swizzle_bytes ? swizzle_bytes : kChunkBytes; }

  // The address of eight elements of an operand whose rows run along k: row `mn`, depths from `k`.
  uint32_t along_k(uint32_t mn, uint32_t k) const {
    uint32_t address = start + mn / 8 * stride + mn % 8 * pitch();
    address += swizzle_bytes ? k * 2 : k / kChunkElements * leading;
    return swizzled(address, swizzle_bytes);
  }

  // The address of eight elements of an operand whose rows run along m or n: depth `k`, elements
  // from `mn`.
  uint32_t along_mn(uint32_t mn, uint32_t k) const {
    if (!swizzle_bytes) {
      return start + mn / kChunkElements * stride + k / 8 * leading + k % 8 * kChunkBytes;
    }
    uint32_t elements = swizzle_bytes / 2;
    uint32_t address = start + mn / elements * leading + mn % elements * 2;
    return swizzled(address + k / 8 * stride + k % 8 * swizzle_bytes, swizzle_bytes);
  }
};

// The pattern of a swizzle starts where the bits that it crosses in are zero: the base offset of a
// descriptor is not emulated.
void check_descriptor(uint64_t bits, loc_t loc) {
  Descriptor descriptor(bits);
  uint32_t repeat = descriptor.swizzle_bytes * 8;
  bool aligned = !repeat || descriptor.start % repeat < 128;
  if (aligned && !(bits >> 49 & 7)) return;
  fail(FaultKind::kMisaligned, loc,
       format("a wgmma operand at shared address %u does not start its pattern of %u bytes",
              descriptor.start, repeat));
}

// Calls visit(mn, k, pointer) for every eight elements of rows or columns [first, first + count).
template <class Visit>
void visit_chunks(uint64_t bits, bool mn_major, int first, int count, loc_t loc, Visit visit) {
  Descriptor descriptor(bits);
  int across = mn_major ? int(kChunkElements) : 1, deep = mn_major ? 1 : int(kChunkElements);
  for (int mn = first; mn < first + count; mn += across) {
    for (int k = 0; k < kDepth; k += deep) {
      auto [row, depth] = std::pair(uint32_t(mn), uint32_t(k));
      uint32_t at = mn_major ? descriptor.along_mn(row, depth) : descriptor.along_k(row, depth);
      visit(mn, k, static_cast<const uint16_t*>(from_smem(at, kChunkBytes, kChunkBytes, loc)));
    }
  }
}

// element(mn, k) = value, for all of an operand's part.
template <class Element>
void load_operand(uint64_t bits, bool mn_major, int first, int count, loc_t loc, Element element) {
  visit_chunks(bits, mn_major, first, count, loc, [&](int mn, int k, const uint16_t* chunk) {
    for (int i = 0; i < int(kChunkElements); i++) {
      element(mn + (mn_major ? i : 0) - first, k + (mn_major ? 0 : i)) = bf16_to_float(chunk[i]);
    }
  });
}

unsigned warp_in_block(const Fiber* fiber) { return fiber->warp % fiber->worker->block_warps; }

int first_row(const Fiber* fiber) { return int(warp_in_block(fiber) % kGroupWarps) * kRows; }

// Calls visit(pointer) for every eight elements that a warp's part of a product reads.
template <class Visit>
void visit_operands(const Fiber* fiber, const Product& product, Visit visit) {
  auto each = [&](int, int, const uint16_t* chunk) { visit(chunk); };
  if (!product.a_in_registers) {
    visit_chunks(product.a_descriptor, product.a_mn, first_row(fiber), kRows, product.loc, each);
  }
  visit_chunks(product.b_descriptor, product.b_mn, 0, product.n, product.loc, each);
}

// ---- The product

void a_of_registers(const Product& product, float (&a)[kRows][kDepth]) {
  for (unsigned lane = 0; lane < kWarpLanes; lane++) {
    unsigned g = lane / 4, t = lane % 4 * 2;
    for (unsigned i = 0; i < 4; i++) {
      float* pair = &a[g + i % 2 * 8][t + i / 2 * 8];
      pair[0] = bf16_to_float(uint16_t(product.a[lane][i]));
      pair[1] = bf16_to_float(uint16_t(product.a[lane][i] >> 16));
    }
  }
}

// Register i of a lane is an element of the 16 rows of its warp.
int row_of(unsigned lane, int i) { return int(lane / 4) + i / 2 % 2 * 8; }
int column_of(unsigned lane, int i) { return i / 4 * 8 + int(lane % 4) * 2 + i % 2; }

// Sums are rounded to float one after the other, in the order of k, as those of mma.
void multiply(const Fiber* fiber, const Product& product, Accumulator& d) {
  static thread_local float a[kRows][kDepth], b[kDepth][kMaxColumns], sums[kRows][kMaxColumns];
  if (product.a_in_registers) {
    a_of_registers(product, a);
  } else {
    load_operand(product.a_descriptor, product.a_mn, first_row(fiber), kRows, product.loc,
                 [](int m, int k) -> float& { return a[m][k]; });
  }
  load_operand(product.b_descriptor, product.b_mn, 0, product.n, product.loc,
               [](int n, int k) -> float& { return b[k][n]; });
  for (unsigned lane = 0; lane < kWarpLanes; lane++) {
    for (int i = 0; i < d.count; i++) {
      float before = d.values[lane * unsigned(d.count) + unsigned(i)];
      sums[row_of(lane, i)][column_of(lane, i)] = product.accumulate ? before : 0;
    }
  }
  for (int m = 0; m < kRows; m++) {
    for (int k = 0; k < kDepth; k++) {
      for (int n = 0; n < product.n; n++) sums[m][n] += a[m][k] * b[k][n];
    }
  }
  for (unsigned lane = 0; lane < kWarpLanes; lane++) {
    for (int i = 0; i < d.count; i++) {
      d.values[lane * unsigned(d.count) + unsigned(i)] = sums[row_of(lane, i)][column_of(lane, i)];
    }
  }
}

// ---- Accumulators

Accumulator* find(WarpProducts& products, const float* registers) {
  for (Accumulator& accumulator : products.accumulators) {
    if (accumulator.registers[0] == registers) return &accumulator;
  }
  return nullptr;
}

// What a lane brings to a product.
struct Operands {
  const Product* product;
  float* d;
  const uint32_t* a;
};

const Operands& operands_of(void* const* payloads, unsigned lane) {
  return *static_cast<const Operands*>(payloads[lane]);
}

Accumulator& take_accumulator(WarpProducts& products, void* const* payloads, int count) {
  float* first = operands_of(payloads, 0).d;
  if (Accumulator* known = find(products, first)) return *known;
  Accumulator& fresh = products.accumulators.emplace_back();
  fresh.count = count;
  fresh.values.resize(kWarpLanes * size_t(count));
  for (unsigned lane = 0; lane < kWarpLanes; lane++) {
    float* registers = fresh.registers[lane] = operands_of(payloads, lane).d;
    memcpy(&fresh.values[lane * size_t(count)], registers, size_t(count) * sizeof(float));
    memset(registers, 0xff, size_t(count) * sizeof(float));
  }
  return fresh;
}

void give_back(const Accumulator& accumulator) {
  for (unsigned lane = 0; lane < kWarpLanes; lane++) {
    size_t count = size_t(accumulator.count);
    memcpy(accumulator.registers[lane], &accumulator.values[lane * count], count * sizeof(float));
  }
}

// ---- Collectives of a warp

void check_whole_warp(unsigned mask) {
  if (mask == ~0u) return;
  fail(FaultKind::kCollective, current_fiber()->place, "wgmma needs all 32 lanes");
}

void check_lanes_agree(void* const* payloads) {
  const Product& first = *operands_of(payloads, 0).product;
  for (unsigned lane = 1; lane < kWarpLanes; lane++) {
    const Product& other = *operands_of(payloads, lane).product;
    bool same = other.n == first.n && other.accumulate == first.accumulate &&
                other.a_descriptor == first.a_descriptor &&
                other.b_descriptor == first.b_descriptor;
    if (!same) fail(FaultKind::kCollective, first.loc, "the lanes' operands of wgmma differ");
  }
}

void mix(uint64_t& digest, uint64_t value) {
  digest = (digest ^ value) * 0x9e3779b97f4a7c15u;
  digest ^= digest >> 29;
}

void issue(void* const* payloads, unsigned mask) {
  check_whole_warp(mask);
  check_lanes_agree(payloads);
  Fiber* fiber = current_fiber();
  Worker& worker = *fiber->worker;
  WarpProducts& products = worker.warps[fiber->warp].products;
  Product product = *operands_of(payloads, 0).product;
  for (unsigned lane = 0; product.a_in_registers && lane < kWarpLanes; lane++) {
    memcpy(product.a[lane], operands_of(payloads, lane).a, sizeof product.a[lane]);
  }
  product.group = products.group;
  visit_operands(fiber, product, [&](const uint16_t* chunk) {
    worker.checker.read_async(fiber, chunk, kChunkBytes, product.loc);
  });
  product.since = worker.checker.moment(fiber);
  for (uint64_t part : {uint64_t(product.n), product.a_descriptor, product.b_descriptor,
                        uint64_t(product.accumulate)}) {
    mix(products.digest, part);
  }
  Accumulator& d = take_accumulator(products, payloads, product.n / 2);
  product.registers = d.registers[0];
  bool in_order = products.pending.empty() || products.pending.back().done;
  if (in_order && worker.copies == Copies::kEager) {
    multiply(fiber, product, d);
    product.done = true;
  }
  products.pending.push_back(product);
}

void finish(Fiber* fiber, WarpProducts& products, const Product& product) {
  Checker& checker = fiber->worker->checker;
  visit_operands(fiber, product, [&](const uint16_t* chunk) {
    checker.unchanged_since(fiber, chunk, kChunkBytes, product.since, product.loc);
    checker.read_async(fiber, chunk, kChunkBytes, product.loc);
  });
  if (!product.done) multiply(fiber, product, *find(products, product.registers));
}

void wait(void* const* payloads, unsigned mask) {
  check_whole_warp(mask);
  Fiber* fiber = current_fiber();
  WarpProducts& products = fiber->worker->warps[fiber->warp].products;
  int allowed = *static_cast<const int*>(payloads[0]);
  auto over = [&](const Product& product) { return int(products.group - product.group) > allowed; };
  for (const Product& product : products.pending) {
    if (over(product)) finish(fiber, products, product);
  }
  std::erase_if(products.pending, over);
  std::erase_if(products.accumulators, [&](const Accumulator& accumulator) {
    for (const Product& product : products.pending) {
      if (product.registers == accumulator.registers[0]) return false;
    }
    give_back(accumulator);
    return true;
  });
}

void commit(void* const*, unsigned mask) {
  check_whole_warp(mask);
  Fiber* fiber = current_fiber();
  fiber->worker->warps[fiber->warp].products.group++;
}

}  // namespace

void wgmma_fence(loc_t loc) {
  collective(Collective::kWgmma, ~0u, nullptr, nullptr, loc);
  current_fiber()->wgmma_fenced = true;
}

void wgmma(int n, float* d, const uint32_t* a, uint64_t a_descriptor, uint64_t b_descriptor,
           bool accumulate, bool a_mn, bool b_mn, loc_t loc) {
  Fiber* fiber = current_fiber();
  if (fiber->worker->block_warps <= (warp_in_block(fiber) | (kGroupWarps - 1))) {
    fail(FaultKind::kCollective, loc, "wgmma in a warpgroup of less than four warps");
  }
  if (!fiber->wgmma_fenced) {
    fail(FaultKind::kBarrier, loc, "the accumulators of wgmma need a wgmma.fence before it");
  }
  if (!a) check_descriptor(a_descriptor, loc);
  check_descriptor(b_descriptor, loc);
  Product product{};
  product.n = n;
  product.a_in_registers = a != nullptr;
  product.a_descriptor = a ? 0 : a_descriptor;
  product.b_descriptor = b_descriptor;
  product.accumulate = accumulate;
  product.a_mn = a_mn;
  product.b_mn = b_mn;
  product.loc = loc;
  Operands operands{&product, d, a};
  collective(Collective::kWgmma, ~0u, &operands, issue, loc);
}

void wgmma_commit(loc_t loc) { collective(Collective::kWgmma, ~0u, nullptr, commit, loc); }

void wgmma_wait(int pending, loc_t loc) {
  collective(Collective::kWgmma, ~0u, &pending, wait, loc);
}

void wgmma_touched(Fiber* fiber, uintptr_t address, size_t bytes, bool writes,
                   uint64_t instruction) {
  for (const Accumulator& d : fiber->worker->warps[fiber->warp].products.accumulators) {
    auto begin = reinterpret_cast<uintptr_t>(d.registers[fiber->lane]);
    if (address + bytes <= begin || address >= begin + size_t(d.count) * sizeof(float)) continue;
    fail(FaultKind::kInFlight, Place{nullptr, 0, instruction},
         format("%s of an accumulator of a wgmma that has not been waited for",
                writes ? "a write" : "a read"));
  }
}

void check_products_waited(Fiber* fiber) {
  const WarpProducts& products = fiber->worker->warps[fiber->warp].products;
  if (products.pending.empty()) return;
  fail(FaultKind::kInFlight, products.pending.front().loc,
       fiber->describe() + " exits, and has not waited for its wgmma");
}

void check_warpgroups_agree(Worker& worker) {
  for (unsigned warp = 0; warp < worker.warp_count; warp++) {
    unsigned first = warp - warp % worker.block_warps % kGroupWarps;
    if (worker.warps[warp].products.digest == worker.warps[first].products.digest) continue;
    fail(FaultKind::kCollective, current_fiber()->place,
         format("warps %u and %u of one warpgroup have not issued the same wgmma", first, warp));
  }
}

void set_max_registers(int registers, loc_t loc) {
  if (registers < 24 || registers > 256 || registers % 8) {
    fail(FaultKind::kCollective, loc, format("setmaxnreg of %d registers", registers));
  }
  collective(Collective::kSetMaxRegisters, ~0u, nullptr, nullptr, loc);
}

}  // namespace simt
