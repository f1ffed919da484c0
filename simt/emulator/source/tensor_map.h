// The emulator's CUtensorMap: what a bulk tensor copy knows of an array in device memory.
// src/tensor_map.rs makes it.
#pragma once

#include <cstdint>

namespace simt {

struct alignas(128) TensorMap {
  static constexpr uint64_t kMagic = 0x70616d2d726f736e;
  static constexpr unsigned kMaxRank = 5;

  uint64_t magic;
  uint64_t base;         // device address of element 0
  uint64_t strides[4];   // bytes, of dimensions 1, 2 and so on
  uint32_t sizes[5];     // elements, innermost first
  uint32_t box[5];       // elements of a copy
  uint32_t rank;
  uint32_t element_bytes;
  uint32_t swizzle_bytes;  // 0, 32, 64 or 128
};
static_assert(sizeof(TensorMap) == 128);

// Where the 16 bytes of shared address `address` go with a swizzle of so many bytes. The copy
// engine and wgmma agree on it: bits 4 and up are crossed with bits 7 and up.
inline uint32_t swizzled(uint32_t address, uint32_t swizzle_bytes) {
  uint32_t bits = swizzle_bytes ? swizzle_bytes / 16 - 1 : 0;
  return address ^ (address >> 7 & bits) << 4;
}

}  // namespace simt
