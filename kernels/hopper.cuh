// Inline PTX of what came with Hopper: bulk copies of the copy engine (TMA) and products of a
// warpgroup (wgmma). As in ptx.cuh each helper has two bodies, the instruction and the emulator's.
//
// All of it needs sm_90a. HOPPER is defined where it can be compiled, which is not the sm_80 half
// of a fatbin: code that needs it stands within `#ifdef HOPPER`.
//
// "Warp-wide" helpers must be reached by all 32 lanes together, "group-wide" ones by the four warps
// of a warpgroup, whose first warp's index is a multiple of four.
#pragma once

#include "ptx.cuh"

#ifdef SIMT_EMU
#include "simt/hopper.h"
#endif

// A CUtensorMap: an array in device memory as bulk copies see it. The host encodes it; a kernel
// takes it as `const __grid_constant__ TensorMap` and gives its address alone to the helpers.
struct __align__(128) TensorMap {
  unsigned char opaque[128];
};

#if defined(SIMT_EMU) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER 1

// ---- The asynchronous proxy
//
// Bulk copies and wgmma see what a thread wrote to shared memory only if that thread has executed
// fence_async after the write and a barrier stands between the fence and them.

PTX_FN void fence_async() {
  EMU(simt::fence_proxy_async(), asm volatile("fence.proxy.async.shared::cta;" ::: "memory"));
}

// After mbar_init, by the same thread, before the barrier that shows the mbarriers to others: bulk
// copies may count on them then.
PTX_FN void mbar_init_fence() {
  EMU(simt::fence_mbarrier_init(),
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"));
}

// Arrives, and makes the phase wait for `bytes` more of bulk copies.
PTX_FN void mbar_arrive_expect(uint32_t barrier, uint32_t bytes LOCP) {
  EMU(simt::mbar_arrive(barrier, bytes, loc),
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                   ::"r"(barrier), "r"(bytes) : "memory"));
}

// ---- Bulk copies, each by one thread
//
// Loads complete on an mbarrier, which must have been told of their bytes. Stores belong to groups
// of the thread. Boxes lie in shared memory row after row, aligned to 128 bytes (for a swizzle to
// the length of its pattern), and are swizzled as their tensor map says. Coordinates are elements,
// the innermost first; what lies outside of the tensor is zero when loaded and left out when
// stored, and counts in bytes all the same.

PTX_FN void bulk_load_2d(uint32_t to, const TensorMap* map, int x, int y, uint32_t barrier LOCP) {
#ifdef SIMT_EMU
  int at[2] = {x, y};
  simt::tensor_load(to, map, 2, at, barrier, loc);
#else
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%2, %3}], [%4];"
               ::"r"(to), "l"(map), "r"(x), "r"(y), "r"(barrier) : "memory");
#endif
}

PTX_FN void bulk_load_3d(uint32_t to, const TensorMap* map, int x, int y, int z,
                         uint32_t barrier LOCP) {
#ifdef SIMT_EMU
  int at[3] = {x, y, z};
  simt::tensor_load(to, map, 3, at, barrier, loc);
#else
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%2, %3, %4}], [%5];"
               ::"r"(to), "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier) : "memory");
#endif
}

// `bytes` and both addresses are multiples of 16.
PTX_FN void bulk_load(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier LOCP) {
  EMU(simt::bulk_load(to, from, bytes, barrier, loc),
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                   "[%0], [%1], %2, [%3];"
                   ::"r"(to), "l"(from), "r"(bytes), "r"(barrier) : "memory"));
}

PTX_FN void bulk_store_2d(const TensorMap* map, int x, int y, uint32_t from LOCP) {
#ifdef SIMT_EMU
  int at[2] = {x, y};
  simt::tensor_store(map, 2, at, from, loc);
#else
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];"
               ::"l"(map), "r"(x), "r"(y), "r"(from) : "memory");
#endif
}

PTX_FN void bulk_store_3d(const TensorMap* map, int x, int y, int z, uint32_t from LOCP) {
#ifdef SIMT_EMU
  int at[3] = {x, y, z};
  simt::tensor_store(map, 3, at, from, loc);
#else
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group "
               "[%0, {%1, %2, %3}], [%4];"
               ::"l"(map), "r"(x), "r"(y), "r"(z), "r"(from) : "memory");
#endif
}

// `bytes` and both addresses are multiples of 16.
PTX_FN void bulk_store(void* to, uint32_t from, uint32_t bytes LOCP) {
  EMU(simt::bulk_store(to, from, bytes, loc),
      asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;"
                   ::"l"(to), "r"(from), "r"(bytes) : "memory"));
}

// Closes this thread's group of bulk stores.
PTX_FN void bulk_commit() {
  EMU(simt::bulk_commit(), asm volatile("cp.async.bulk.commit_group;" ::: "memory"));
}

// Waits until at most the N latest groups of this thread are under way. A block must not end
// before its stores have read its shared memory.
template <int N>
PTX_FN void bulk_wait(LOC0) {
  EMU(simt::bulk_wait(N, loc), asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory"));
}

// Waits until shared memory may be written again: no more than N of the latest groups still read.
template <int N>
PTX_FN void bulk_wait_read(LOC0) {
  EMU(simt::bulk_wait(N, loc),
      asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory"));
}

// ---- Clusters
//
// Blocks of a cluster run at the same time and reach each other's shared memory. Before the first
// such access all must have passed a barrier of the cluster, for a block may not have begun; and
// before a block ends, a barrier must follow the last access to its memory. In the emulator a
// cluster has dynamic shared memory alone.

PTX_FN uint32_t cluster_rank() {
#ifdef SIMT_EMU
  return simt::cluster_rank();
#else
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#endif
}

PTX_FN uint32_t cluster_blocks() {
#ifdef SIMT_EMU
  return simt::cluster_blocks();
#else
  uint32_t blocks;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
  return blocks;
#endif
}

// Every thread of the cluster arrives, and what it did before is seen by those who wait.
PTX_FN void cluster_arrive(LOC0) {
  EMU(simt::cluster_arrive(loc), asm volatile("barrier.cluster.arrive.release;" ::: "memory"));
}

PTX_FN void cluster_wait(LOC0) {
  EMU(simt::cluster_wait(loc), asm volatile("barrier.cluster.wait.acquire;" ::: "memory"));
}

// The address of the same place in the shared memory of block `rank`; for the helpers that say
// that they take one.
PTX_FN uint32_t cluster_address(uint32_t address, uint32_t rank LOCP) {
#ifdef SIMT_EMU
  return simt::map_shared(address, rank, loc);
#else
  uint32_t mapped;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(mapped) : "r"(address), "r"(rank));
  return mapped;
#endif
}

// The same for a pointer, to be read and written as any other.
template <class T>
PTX_FN T* cluster_pointer(T* pointer, uint32_t rank LOCP) {
#ifdef SIMT_EMU
  return (T*)simt::map_pointer(pointer, rank, loc);
#else
  uint64_t mapped;
  asm("mapa.u64 %0, %1, %2;" : "=l"(mapped) : "l"(pointer), "r"(rank));
  return (T*)mapped;
#endif
}

// Arrives at an mbarrier of any block, by its cluster address.
PTX_FN void mbar_arrive_cluster(uint32_t barrier LOCP) {
  EMU(simt::mbar_arrive(barrier, 0, loc),
      asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];"
                   ::"r"(barrier) : "memory"));
}

// The same to hand back what bulk copies have brought, for others to be copied over it: nothing
// that this thread has written is handed on, so no fence of the GPU comes with it. mbar_wait will
// do for who waits.
PTX_FN void mbar_return_cluster(uint32_t barrier LOCP) {
  EMU(simt::mbar_arrive(barrier, 0, loc),
      asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory"));
}

// mbar_wait for the block's own mbarrier at which other blocks arrive.
PTX_FN void mbar_wait_cluster(uint32_t barrier, uint32_t parity LOCP) {
#ifdef SIMT_EMU
  simt::mbar_wait(barrier, parity, loc);
#else
  uint32_t over;
  do {
    asm volatile("{\n"
                 ".reg .pred over;\n"
                 "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 over, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, over;\n"
                 "}" : "=r"(over) : "r"(barrier), "r"(parity) : "memory");
  } while (!over);
#endif
}

// bulk_load_2d to the same place of every block whose bit is set in `ranks`; each counts the bytes
// on its own mbarrier, which lies at the same place too.
PTX_FN void bulk_load_2d_multicast(uint32_t to, const TensorMap* map, int x, int y,
                                   uint32_t barrier, uint16_t ranks LOCP) {
#ifdef SIMT_EMU
  int at[2] = {x, y};
  simt::tensor_load_multicast(to, map, 2, at, barrier, ranks, loc);
#else
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
               ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;"
               ::"r"(to), "l"(map), "r"(x), "r"(y), "r"(barrier), "h"(ranks) : "memory");
#endif
}

// ---- Counters in device memory
//
// For blocks that all run at the same time and wait for each other; on a GPU that takes a
// cooperative launch.

// Adds to a counter: what this thread has done, or seen done, comes before what follows a
// counter_wait that finds the sum.
PTX_FN void counter_add(unsigned* counter, unsigned value LOCP) {
  EMU(simt::counter_add(counter, value, loc),
      asm volatile("red.release.gpu.global.add.u32 [%0], %1;"
                   ::"l"(counter), "r"(value) : "memory"));
}

// Waits until a counter, which may pass 2^32, is at `least` or beyond.
PTX_FN void counter_wait(const unsigned* counter, unsigned least LOCP) {
#ifdef SIMT_EMU
  simt::counter_wait(counter, least, loc);
#else
  for (;;) {
    unsigned count;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(count) : "l"(counter) : "memory");
    if ((int)(count - least) >= 0) return;
    __nanosleep(20);
  }
#endif
}

// ---- Registers

// Takes registers for the warpgroup, or gives some back. Group-wide; N is a multiple of 8, 24 to
// 240.
template <int N>
PTX_FN void take_registers(LOC0) {
  EMU(simt::set_max_registers(N, loc),
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)));
}

template <int N>
PTX_FN void give_registers(LOC0) {
  EMU(simt::set_max_registers(N, loc),
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)));
}

// ---- Products of a warpgroup. Group-wide.
//
// d [64, N] in f32 += a [64, 16] b [16, N] in bf16. Warp w of the group has rows 16 w to 16 w + 15
// of d and, if it is in registers, of a; a lane holds of them
//
//   d[4 j], d[4 j + 1]      row g      columns 8 j + 2 t, 8 j + 2 t + 1
//   d[4 j + 2], d[4 j + 3]  row g + 8  the same columns
//   a                       as mma_bf16's
//
// Operands in shared memory are named by a descriptor. Along k (a [m][k], b [n][k]) eight rows of
// 128, 64, 32 or, without a swizzle, 16 bytes lie one after the other:
//
//   swizzled      `stride` bytes from eight rows to the next eight; `leading` is ignored. k goes on
//                 within a row: the next 16 are 32 bytes further
//   not swizzled  `stride` as above; `leading` from 8 of k to the next 8
//
// Along m or n (a [k][m], b [k][n]; _MN) with a swizzle of S bytes:
//
//   swizzled      `leading` from S / 2 of m or n to the next, `stride` from 8 of k to the next 8
//   not swizzled  `stride` from 8 of m or n to the next 8, `leading` from 8 of k to the next 8
//
// wgmma_fence must stand before the first product and wherever other code has touched d or a since.
// Products run until wgmma_wait: until then nothing may touch d, or write a or b.

enum class MatrixSwizzle : uint32_t { NONE = 0, BYTES_128 = 1, BYTES_64 = 2, BYTES_32 = 3 };

PTX_FN uint64_t matrix_descriptor(uint32_t address, uint32_t leading, uint32_t stride,
                                  MatrixSwizzle swizzle) {
  return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)((leading & 0x3ffff) >> 4) << 16 |
         (uint64_t)((stride & 0x3ffff) >> 4) << 32 | (uint64_t)swizzle << 62;
}

PTX_FN void wgmma_fence(LOC0) {
  EMU(simt::wgmma_fence(loc), asm volatile("wgmma.fence.sync.aligned;" ::: "memory"));
}

// Before wgmma_fence, for sums and weights that have been given values: keeps the compiler from
// setting the registers behind the fence, where it would put a fence of its own (C7519). After
// wgmma_wait, for sums that other code reads: keeps it from reading them before.
template <int COUNT>
PTX_FN void wgmma_settle(float (&d)[COUNT]) {
#ifndef SIMT_EMU
#pragma unroll
  for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

template <int STEPS>
PTX_FN void wgmma_settle(uint32_t (&a)[STEPS][4]) {
#ifndef SIMT_EMU
#pragma unroll
  for (int i = 0; i < 4 * STEPS; i++) asm volatile("" : "+r"(a[i / 4][i % 4])::"memory");
#endif
}

// Closes the group of products issued since the last one.
PTX_FN void wgmma_commit(LOC0) {
  EMU(simt::wgmma_commit(loc), asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"));
}

// Waits until at most the N latest groups are under way.
template <int N>
PTX_FN void wgmma_wait(LOC0) {
  EMU(simt::wgmma_wait(N, loc),
      asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"));
}

// Registers %0 to %31 and on, and the operands that they stand for.
#define REGS_32                                                                                 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
#define REGS_64                                                                                 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, "  \
  "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "  \
  "%56, %57, %58, %59, %60, %61, %62, %63}, "
#define D_8(i)                                                                                  \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),   \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define D_32 D_8(0), D_8(8), D_8(16), D_8(24)
#define D_64 D_32, D_8(32), D_8(40), D_8(48), D_8(56)

// Both operands in shared memory; d is replaced where `accumulate` is false. N is twice the length
// of d.
template <bool A_MN = false, bool B_MN = false>
PTX_FN void wgmma(float (&d)[32], uint64_t a, uint64_t b, bool accumulate LOCP) {
  EMU(simt::wgmma(64, d, nullptr, a, b, accumulate, A_MN, B_MN, loc),
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                   "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " REGS_32
                   "%32, %33, p, 1, 1, %35, %36;\n}"
                   : D_32 : "l"(a), "l"(b), "r"((int)accumulate), "n"((int)A_MN), "n"((int)B_MN)));
}

template <bool A_MN = false, bool B_MN = false>
PTX_FN void wgmma(float (&d)[64], uint64_t a, uint64_t b, bool accumulate LOCP) {
  EMU(simt::wgmma(128, d, nullptr, a, b, accumulate, A_MN, B_MN, loc),
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                   "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " REGS_64
                   "%64, %65, p, 1, 1, %67, %68;\n}"
                   : D_64 : "l"(a), "l"(b), "r"((int)accumulate), "n"((int)A_MN), "n"((int)B_MN)));
}

// a in registers.
template <bool B_MN = false>
PTX_FN void wgmma(float (&d)[32], const uint32_t (&a)[4], uint64_t b, bool accumulate LOCP) {
  EMU(simt::wgmma(64, d, a, 0, b, accumulate, false, B_MN, loc),
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                   "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " REGS_32
                   "{%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}"
                   : D_32 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),
                     "r"((int)accumulate), "n"((int)B_MN)));
}

template <bool B_MN = false>
PTX_FN void wgmma(float (&d)[64], const uint32_t (&a)[4], uint64_t b, bool accumulate LOCP) {
  EMU(simt::wgmma(128, d, a, 0, b, accumulate, false, B_MN, loc),
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                   "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " REGS_64
                   "{%64, %65, %66, %67}, %68, p, 1, 1, %70;\n}"
                   : D_64 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),
                     "r"((int)accumulate), "n"((int)B_MN)));
}

#undef REGS_32
#undef REGS_64
#undef D_8
#undef D_32
#undef D_64

#endif  // HOPPER
