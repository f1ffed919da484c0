// Loads and stores with a cache hint.
#pragma once

#include <type_traits>

#define SIMT_LOAD(NAME)             \
  template <class T>                \
  inline T NAME(const T* address) { \
    return *address;                \
  }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldlu)
SIMT_LOAD(__ldcv)
#undef SIMT_LOAD

#define SIMT_STORE(NAME)                                        \
  template <class T>                                            \
  inline void NAME(T* address, std::type_identity_t<T> value) { \
    *address = value;                                           \
  }
SIMT_STORE(__stwb)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwt)
#undef SIMT_STORE
