// Atomic operations. They are real atomics of the host: launches on several threads may share a
// buffer.
#pragma once

#include <stdint.h>
#include <string.h>

#include <type_traits>

namespace simt {

// Replaces *address by update(*address) and returns what was there.
template <class T, class Update>
inline T read_modify_write(T* address, Update update) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t,
                                  std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
  Bits* word = reinterpret_cast<Bits*>(address);
  Bits old_bits = __atomic_load_n(word, __ATOMIC_RELAXED);
  Bits new_bits;
  T old_value;
  do {
    memcpy(&old_value, &old_bits, sizeof old_value);
    T new_value = update(old_value);
    memcpy(&new_bits, &new_value, sizeof new_bits);
  } while (!__atomic_compare_exchange_n(word, &old_bits, new_bits, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED));
  return old_value;
}

}  // namespace simt

#define SIMT_ATOMIC(NAME, EXPRESSION)                                              \
  template <class T>                                                               \
  inline T atomic##NAME(T* address, std::type_identity_t<T> value) {               \
    return simt::read_modify_write(address, [=](T old) { return T(EXPRESSION); }); \
  }                                                                                \
  template <class T>                                                               \
  inline T atomic##NAME##_block(T* address, std::type_identity_t<T> value) {       \
    return atomic##NAME(address, value);                                           \
  }
SIMT_ATOMIC(Add, old + value)
SIMT_ATOMIC(Sub, old - value)
SIMT_ATOMIC(Min, value < old ? value : old)
SIMT_ATOMIC(Max, value > old ? value : old)
SIMT_ATOMIC(And, old& value)
SIMT_ATOMIC(Or, old | value)
SIMT_ATOMIC(Xor, old ^ value)
SIMT_ATOMIC(Exch, ((void)old, value))
SIMT_ATOMIC(Inc, old >= value ? T(0) : old + 1)
SIMT_ATOMIC(Dec, old == 0 || old > value ? value : old - 1)
#undef SIMT_ATOMIC

template <class T>
inline T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  return simt::read_modify_write(address, [=](T old) { return old == compare ? value : old; });
}
