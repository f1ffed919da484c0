// float2, uint4 and the like, with CUDA's alignments.
#pragma once

#define SIMT_VECTOR_TYPES(NAME, ELEMENT, ALIGN2, ALIGN4)                                  \
  struct NAME##1 { ELEMENT x; };                                                          \
  struct __attribute__((aligned(ALIGN2))) NAME##2 { ELEMENT x, y; };                      \
  struct NAME##3 { ELEMENT x, y, z; };                                                    \
  struct __attribute__((aligned(ALIGN4))) NAME##4 { ELEMENT x, y, z, w; };                \
  constexpr NAME##1 make_##NAME##1(ELEMENT x) { return {x}; }                             \
  constexpr NAME##2 make_##NAME##2(ELEMENT x, ELEMENT y) { return {x, y}; }               \
  constexpr NAME##3 make_##NAME##3(ELEMENT x, ELEMENT y, ELEMENT z) { return {x, y, z}; } \
  constexpr NAME##4 make_##NAME##4(ELEMENT x, ELEMENT y, ELEMENT z, ELEMENT w) {          \
    return {x, y, z, w};                                                                  \
  }

SIMT_VECTOR_TYPES(char, signed char, 2, 4)
SIMT_VECTOR_TYPES(uchar, unsigned char, 2, 4)
SIMT_VECTOR_TYPES(short, short, 4, 8)
SIMT_VECTOR_TYPES(ushort, unsigned short, 4, 8)
SIMT_VECTOR_TYPES(int, int, 8, 16)
SIMT_VECTOR_TYPES(uint, unsigned int, 8, 16)
SIMT_VECTOR_TYPES(longlong, long long, 16, 16)
SIMT_VECTOR_TYPES(ulonglong, unsigned long long, 16, 16)
SIMT_VECTOR_TYPES(float, float, 8, 16)
SIMT_VECTOR_TYPES(double, double, 16, 16)

#undef SIMT_VECTOR_TYPES

struct dim3 {
  unsigned int x = 1, y = 1, z = 1;
};
