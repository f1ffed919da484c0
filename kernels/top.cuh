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

// How many elements there are, their highest key, and their lowest with all bits flipped.
struct Spread {
  unsigned present;
  unsigned long long highest, lowest_flipped;

  PTX_FN void add(uint64_t key) {
    if (key != 0) add(Spread{1, key, ~key});
  }
  PTX_FN void add(const Spread& other) {
    present += other.present;
    highest = other.highest > highest ? other.highest : highest;
    lowest_flipped = other.lowest_flipped > lowest_flipped ? other.lowest_flipped : lowest_flipped;
  }
};

// What a selection needs of static shared memory.
struct TopScratch {
  unsigned histogram[DIGITS];
  unsigned digit, above, equal;
  Spread spread[32];
};

// That of all threads of the block, in all threads.
PTX_FN Spread block_spread(Spread x, TopScratch& scratch) {
  x = {warp_sum(x.present), warp_max(x.highest), warp_max(x.lowest_flipped)};
  if (threadIdx.x % 32 == 0) scratch.spread[threadIdx.x / 32] = x;
  __syncthreads();
  Spread total{0, 0, 0};
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) total.add(scratch.spread[warp]);
  __syncthreads();
  return total;
}

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
  Spread spread{0, 0, 0};
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) spread.add(at(i).key);
  spread = block_spread(spread, scratch);
  unsigned found = spread.present;
  if (found <= keep) return {1, NONE};
  const uint64_t highest = spread.highest, differ = highest ^ ~spread.lowest_flipped;
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
