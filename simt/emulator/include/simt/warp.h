// Shuffles, votes, matches and reductions within a warp.
#pragma once

#include <string.h>

#include <type_traits>

#include "simt/keywords.h"
#include "simt/runtime.h"
#include "simt/thread.h"

namespace simt {

template <class T>
inline T shuffle_value(unsigned mask, T value, unsigned source, loc_t loc) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = shuffle(mask, bits, source, loc);
  memcpy(&value, &bits, sizeof value);
  return value;
}

// The lanes of `mask` exchange their values and each combines them in the order of the lanes.
template <class T, class Combine>
inline T reduce(unsigned mask, T value, Combine, loc_t loc) {
  auto body = [](void* const* payloads, unsigned lanes) SIMT_UNCHECKED {
    T total = *static_cast<T*>(payloads[__builtin_ctz(lanes)]);
    for (unsigned rest = lanes & (lanes - 1); rest; rest &= rest - 1) {
      total = Combine{}(total, *static_cast<T*>(payloads[__builtin_ctz(rest)]));
    }
    for (unsigned rest = lanes; rest; rest &= rest - 1) {
      *static_cast<T*>(payloads[__builtin_ctz(rest)]) = total;
    }
  };
  collective(Collective::kReduce, mask, &value, body, loc);
  return value;
}

}  // namespace simt

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_LOC) {
  unsigned segment = simt::current()->lane & ~unsigned(width - 1);
  return simt::shuffle_value(mask, value, segment | (unsigned(source) & unsigned(width - 1)), loc);
}

template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SIMT_LOC) {
  unsigned lane = simt::current()->lane;
  unsigned source = lane ^ unsigned(lane_mask);
  unsigned segment_end = (lane & ~unsigned(width - 1)) + unsigned(width);
  return simt::shuffle_value(mask, value, source < segment_end ? source : lane, loc);
}

template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_LOC) {
  unsigned lane = simt::current()->lane;
  bool inside = (lane & unsigned(width - 1)) >= delta;
  return simt::shuffle_value(mask, value, inside ? lane - delta : lane, loc);
}

template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_LOC) {
  unsigned lane = simt::current()->lane;
  bool inside = (lane & unsigned(width - 1)) + delta < unsigned(width);
  return simt::shuffle_value(mask, value, inside ? lane + delta : lane, loc);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_LOC) {
  return simt::ballot(mask, predicate != 0, loc);
}
static inline int __any_sync(unsigned mask, int predicate, SIMT_LOC) {
  return simt::ballot(mask, predicate != 0, loc) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, SIMT_LOC) {
  return simt::ballot(mask, predicate != 0, loc) == mask;
}
static inline unsigned __activemask() { return simt::active_mask(); }

template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, SIMT_LOC) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return simt::match_any(mask, bits, loc);
}

template <class T>
inline unsigned __match_all_sync(unsigned mask, T value, int* equal, SIMT_LOC) {
  *equal = __match_any_sync(mask, value, loc) == mask;
  return *equal ? mask : 0;
}

#define SIMT_REDUCE(NAME, EXPRESSION)                                                             \
  template <class T>                                                                              \
  inline T __reduce_##NAME##_sync(unsigned mask, T value, SIMT_LOC) {                             \
    static_assert(sizeof(T) == 4 && std::is_integral_v<T>, "redux takes 32-bit integers");        \
    return simt::reduce(mask, value, [](T a, T b) SIMT_UNCHECKED { return T(EXPRESSION); }, loc); \
  }
SIMT_REDUCE(add, unsigned(a) + unsigned(b))
SIMT_REDUCE(min, a < b ? a : b)
SIMT_REDUCE(max, a > b ? a : b)
SIMT_REDUCE(and, a& b)
SIMT_REDUCE(or, a | b)
SIMT_REDUCE(xor, a ^ b)
#undef SIMT_REDUCE
