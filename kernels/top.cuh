// The k highest of many elements, by a whole block: a radix select that starts at the first bit in
// which the keys differ, and ends as soon as a digit divides the elements as asked.
//
// A pass over a digit takes one barrier: every warp reads the finished histogram for itself, and
// there are three of them, by turns: one is counted, while the next is cleared and the last may
// still be read.
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

// What selections need of shared memory.
struct TopScratch {
  alignas(16) unsigned histogram[3][DIGITS];
  Spread spread[32];
};

// The selections of a block, one after another. A barrier must stand between the constructor and the
// first, and between two of them.
class Top {
 public:
  PTX_FN explicit Top(TopScratch& scratch) : scratch_(scratch), turn_(0) { clear(0); }

  // The cut that leaves the `keep` > 0 best elements, or all if there are fewer. `each(visit)` calls
  // visit(Ranked) for every element of this thread. Block-wide.
  template <class Each>
  PTX_FN Cut cut(unsigned keep, Each each) {
    Spread spread{0, 0, 0};
    each([&](const Ranked& x) { spread.add(x.key); });
    spread = of_block(spread);
    unsigned found = spread.present;
    if (found <= keep) return {1, NONE};
    const uint64_t highest = spread.highest, differ = highest ^ ~spread.lowest_flipped;
    const unsigned bits = differ == 0 ? 0 : 64 - (unsigned)__clzll((long long)differ);

    unsigned need = keep;
    const uint64_t key =
        narrow(bits, bits == 64 ? 0 : highest >> bits << bits, need, found, [&](auto count) {
          each([&](const Ranked& x) {
            if (x.key != 0) count(x.key);
          });
        });
    if (found == need) return {key, NONE};
    // Several elements have this very key: the lowest positions win.
    const uint64_t flipped = narrow(32, 0, need, found, [&](auto count) {
      each([&](const Ranked& x) {
        if (x.key == key) count((uint32_t)~x.position);
      });
    });
    return {key, (uint32_t)~flipped};
  }

 private:
  // The digit that holds the need-th highest of the counted values, the number of values above it,
  // and of those that have it.
  struct Found {
    unsigned digit, above, equal;
  };

  PTX_FN void clear(unsigned turn) {
    for (unsigned i = threadIdx.x; i < DIGITS; i += blockDim.x) scratch_.histogram[turn % 3][i] = 0;
  }

  // That of all threads, in all threads.
  PTX_FN Spread of_block(Spread x) {
    x = {warp_sum(x.present), warp_max(x.highest), warp_max(x.lowest_flipped)};
    if (threadIdx.x % 32 == 0) scratch_.spread[threadIdx.x / 32] = x;
    __syncthreads();
    Spread total{0, 0, 0};
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) total.add(scratch_.spread[warp]);
    return total;
  }

  // In a finished histogram. Warp-wide.
  PTX_FN static Found find(const unsigned* histogram, unsigned need) {
    constexpr unsigned EACH = DIGITS / 32;
    const unsigned lane = threadIdx.x % 32, low = DIGITS - (lane + 1) * EACH;
    unsigned counts[EACH], own = 0;  // of this lane's digits; lane 0 has the highest
#pragma unroll
    for (unsigned i = 0; i < EACH; i += 4) {
      const uint4 four = *reinterpret_cast<const uint4*>(histogram + low + i);
      counts[i] = four.x;
      counts[i + 1] = four.y;
      counts[i + 2] = four.z;
      counts[i + 3] = four.w;
      own += four.x + four.y + four.z + four.w;
    }
    unsigned upto = own;
#pragma unroll
    for (unsigned lanes = 1; lanes < 32; lanes *= 2) {
      const unsigned other = __shfl_up_sync(0xffffffff, upto, lanes);
      if (lane >= lanes) upto += other;
    }
    unsigned above = upto - own;
    const bool mine = above < need && need <= upto;
    Found found{0, 0, 0};
#pragma unroll
    for (unsigned i = EACH; i-- > 0;) {
      if (above < need && need <= above + counts[i]) found = {low + i, above, counts[i]};
      above += counts[i];
    }
    const int owner = __ffs((int)__ballot_sync(0xffffffff, mine)) - 1;
    return {__shfl_sync(0xffffffff, found.digit, owner), __shfl_sync(0xffffffff, found.above, owner),
            __shfl_sync(0xffffffff, found.equal, owner)};
  }

  // Narrows `need` values down to one of `bits` bits: those that are higher than the result all
  // count among the need highest. Returns the value; `need` becomes the number wanted of those that
  // have it, `found` theirs. `each(count)` calls count(v) for every value of this thread; above
  // `bits` only those that are as `known` are looked at. Block-wide.
  template <class Each>
  PTX_FN uint64_t narrow(unsigned bits, uint64_t known, unsigned& need, unsigned& found, Each each) {
    while (bits > 0 && found != need) {
      const unsigned width = bits < DIGIT_BITS ? bits : DIGIT_BITS;
      bits -= width;
      unsigned* histogram = scratch_.histogram[turn_ % 3];
      each([&](uint64_t v) {
        // Two shifts: one by all 64 bits is not defined.
        if (((v ^ known) >> bits >> width) == 0)
          atomicAdd(&histogram[(v >> bits) & ((1u << width) - 1)], 1u);
      });
      clear(turn_ + 1);
      __syncthreads();
      const Found at = find(histogram, need);
      known |= (uint64_t)at.digit << bits;
      need -= at.above;
      found = at.equal;
      ++turn_;
    }
    return known;
  }

  TopScratch& scratch_;
  unsigned turn_;
};

}  // namespace search
