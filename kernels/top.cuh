// The k highest of many elements, by a whole block: a radix select that starts at the first bit in
// which the keys differ, and ends as soon as a digit divides the elements as asked.
#pragma once

#include "search.cuh"

namespace search {

// An element: its key, 0 where there is none, and its position, which decides between equal keys:
// the lower is better. No two elements share both.
struct Ranked {
  uint64_t key;
  uint32_t position;
};

PTX_FN bool better(const Ranked& a, const Ranked& b) {
  return a.key > b.key || (a.key == b.key && a.position < b.position);
}

// The worst element to keep.
struct Cut {
  uint64_t key;
  uint32_t position;

  PTX_FN bool keeps(const Ranked& x) const {
    return x.key != 0 && (x.key > key || (x.key == key && x.position <= position));
  }
};

constexpr unsigned DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS;

// What a selection needs of static shared memory.
struct TopScratch {
  unsigned histogram[DIGITS];
  unsigned digit, above, equal;
  unsigned long long reduce[32];
};

// Finds the digit that holds the need-th highest of the counted elements: the digit, the number of
// elements above it, and of those that have it. Block-wide; the histogram is complete.
PTX_FN void find_digit(TopScratch& scratch, unsigned need) {
  constexpr unsigned EACH = DIGITS / 32;
  if (threadIdx.x < 32) {
    const unsigned top = DIGITS - 1 - threadIdx.x * EACH;  // this lane's digits, from the highest on
    unsigned own = 0;
    for (unsigned i = 0; i < EACH; ++i) own += scratch.histogram[top - i];
    unsigned upto = own;
#pragma unroll
    for (unsigned lanes = 1; lanes < 32; lanes *= 2) {
      const unsigned other = __shfl_up_sync(0xffffffff, upto, lanes);
      if (threadIdx.x >= lanes) upto += other;
    }
    unsigned above = upto - own;
    if (above < need && need <= upto) {
      unsigned digit = top;
      while (above + scratch.histogram[digit] < need) above += scratch.histogram[digit--];
      scratch.digit = digit;
      scratch.above = above;
      scratch.equal = scratch.histogram[digit];
    }
  }
  __syncthreads();
}

// Narrows `need` elements down to one value of `bits` bits: of the elements for which value(i, v)
// gives a v, those whose v is higher than the result all count among the need highest. Returns the
// value; `need` becomes the number wanted of those that have it, `found` theirs. Block-wide.
template <class Value>
PTX_FN uint64_t narrow(unsigned count, unsigned bits, uint64_t known, unsigned& need,
                       unsigned& found, TopScratch& scratch, Value value) {
  while (bits > 0 && found != need) {
    const unsigned width = bits < DIGIT_BITS ? bits : DIGIT_BITS;
    bits -= width;
    for (unsigned i = threadIdx.x; i < DIGITS; i += blockDim.x) scratch.histogram[i] = 0;
    __syncthreads();
    for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
      uint64_t v;
      // Two shifts: one by all 64 bits is not defined.
      if (value(i, v) && ((v ^ known) >> bits >> width) == 0)
        atomicAdd(&scratch.histogram[(v >> bits) & ((1u << width) - 1)], 1u);
    }
    __syncthreads();
    find_digit(scratch, need);
    known |= (uint64_t)scratch.digit << bits;
    need -= scratch.above;
    found = scratch.equal;
    __syncthreads();
  }
  return known;
}

// The cut that leaves the `keep` > 0 best of the elements at(0) .. at(count - 1), or all if there
// are fewer. Block-wide.
template <class At>
PTX_FN Cut cut_of(unsigned count, unsigned keep, TopScratch& scratch, At at) {
  unsigned long long present = 0, highest = 0, lowest_flipped = 0;
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
    const unsigned long long key = at(i).key;
    if (key == 0) continue;
    present += 1;
    highest = key > highest ? key : highest;
    lowest_flipped = ~key > lowest_flipped ? ~key : lowest_flipped;
  }
  unsigned found = (unsigned)block_sum(present, scratch.reduce);
  if (found <= keep) return {1, NONE};
  highest = block_max(highest, scratch.reduce);
  const uint64_t differ = highest ^ ~block_max(lowest_flipped, scratch.reduce);
  const unsigned bits = differ == 0 ? 0 : 64 - (unsigned)__clzll((long long)differ);

  unsigned need = keep;
  const uint64_t key = narrow(count, bits, bits == 64 ? 0 : highest >> bits << bits, need, found, scratch,
                              [&](unsigned i, uint64_t& v) { return (v = at(i).key) != 0; });
  if (found == need) return {key, NONE};
  // Several elements have this very key: the lowest positions win.
  const uint64_t flipped = narrow(count, 32, 0, need, found, scratch, [&](unsigned i, uint64_t& v) {
    const Ranked x = at(i);
    v = (uint32_t)~x.position;
    return x.key == key;
  });
  return {key, (uint32_t)~flipped};
}

}  // namespace search
