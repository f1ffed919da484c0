// The only file with inline PTX, but for hopper.cuh. Each helper has two bodies: the instruction,
// and for the emulator (SIMT_EMU) a call that does the same on the CPU and names the caller's line
// where it finds a fault.
//
// Everything here runs from sm_80 on. "Warp-wide" helpers must be reached by all 32 lanes together.
//
// Terms: g = lane / 4 and t = lane % 4. A uint32_t of a fragment holds two bf16, the one of the
// lower column (or row) in its low half.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

// EMU(emulated, instruction) is the one of the two that this compiler takes. LOCP and LOC0 declare
// the emulator's hidden parameter `loc`, the caller's source line, after other parameters and
// alone.
#ifdef SIMT_EMU
#define EMU(emulated, ...) emulated
#define LOCP , SIMT_LOC
#define LOC0 SIMT_LOC
#else
#define EMU(emulated, ...) __VA_ARGS__
#define LOCP
#define LOC0
#endif

// Declares `name`, the block's dynamic shared memory as bytes, aligned to 1,024.
#ifdef SIMT_EMU
#define DYN_SMEM(name) unsigned char* name = (unsigned char*)simt::dyn_smem()
#else
#define DYN_SMEM(name) extern __shared__ __align__(1024) unsigned char name[]
#endif

#define PTX_FN __device__ __forceinline__

// ---- Order between kernels
//
// The first statement of every kernel, so that a stream may launch its kernels programmatically
// (programmatic dependent launch, from sm_90 on): the next grid's blocks become resident while this
// grid still runs. The wait returns when the grids before this one have ended and what they wrote
// is visible. Every thread of every kernel waits before it touches device memory, and a grid does
// not end before its threads do: so each grid begins after all earlier ones of the stream, as in an
// ordinary launch. The next grid starts once all blocks of this one have come here, so its blocks
// never hold room that this one needs. Where the launch is not programmatic neither instruction
// does anything.
PTX_FN void begin_kernel(LOC0) {
#if defined(SIMT_EMU)
  simt::wait_for_grids(loc);
#elif __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The shared-memory address that the helpers below take, of a pointer into dynamic shared memory.
PTX_FN uint32_t smem_u32(const void* p LOCP) {
  return EMU(simt::to_smem(p, loc), (uint32_t)__cvta_generic_to_shared(p));
}

// ---- Asynchronous copies, global to shared
//
// 16, 8 or 4 bytes per thread, both addresses aligned to the size. Where `pred` is false nothing is
// read and the destination becomes zeros; `src` must still be a pointer, any will do. The bytes are
// there for this thread after a wait, for the other threads after a barrier that follows the wait.

// Past L1: for what a block reads once.
PTX_FN void cp_async16(uint32_t dst, const void* src, bool pred LOCP) {
  int bytes = pred ? 16 : 0;
  EMU(simt::cp_async(dst, src, 16, bytes, loc),
      asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                   ::"r"(dst), "l"(src), "r"(bytes) : "memory"));
}

PTX_FN void cp_async8(uint32_t dst, const void* src, bool pred LOCP) {
  int bytes = pred ? 8 : 0;
  EMU(simt::cp_async(dst, src, 8, bytes, loc),
      asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;"
                   ::"r"(dst), "l"(src), "r"(bytes) : "memory"));
}

PTX_FN void cp_async4(uint32_t dst, const void* src, bool pred LOCP) {
  int bytes = pred ? 4 : 0;
  EMU(simt::cp_async(dst, src, 4, bytes, loc),
      asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                   ::"r"(dst), "l"(src), "r"(bytes) : "memory"));
}

// Closes this thread's group of copies; an empty group counts too.
PTX_FN void cp_async_commit() {
  EMU(simt::cp_async_commit(), asm volatile("cp.async.commit_group;" ::: "memory"));
}

// Waits until at most the N latest groups of this thread are under way.
template <int N>
PTX_FN void cp_async_wait(LOC0) {
  EMU(simt::cp_async_wait(N, loc), asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"));
}

// Waits for all copies of this thread, committed or not.
PTX_FN void cp_async_wait_all(LOC0) {
  EMU((simt::cp_async_commit(), simt::cp_async_wait(0, loc)),
      asm volatile("cp.async.wait_all;" ::: "memory"));
}

// ---- 8 x 8 tiles of bf16, shared memory to fragments and back. Warp-wide.
//
// A tile is eight rows of 16 contiguous bytes, each aligned to 16. Lane 8 i + r gives the address
// of row r of tile i; with fewer than four tiles the other lanes' addresses are ignored.
//
//   plain           r[i] of a lane = tile i, row g, columns 2 t and 2 t + 1
//   transposed _t   r[i] of a lane = tile i, rows 2 t and 2 t + 1, column g
//
// So for mma_bf16, which multiplies a [m, k] by b [k, n]:
//
//   operand     in memory  helper     element whose address a lane gives
//   a, 16 x 16  [m][k]     ldsm_x4    m = lane % 16                  k = lane / 16 * 8
//   a, 16 x 16  [k][m]     ldsm_x4_t  m = lane / 8 % 2 * 8           k = lane % 8 + lane / 16 * 8
//   b, 16 x 8   [n][k]     ldsm_x2    n = lane % 8                   k = lane / 8 % 2 * 8
//   b, 16 x 8   [k][n]     ldsm_x2_t  n = 0                          k = lane % 16
//   b, 16 x 16  [n][k]     ldsm_x4    n = lane % 8 + lane / 16 * 8   k = lane / 8 % 2 * 8
//   b, 16 x 16  [k][n]     ldsm_x4_t  n = lane / 16 * 8              k = lane % 16
//
// The last two load b for two products side by side: r[0], r[1] and r[2], r[3].

PTX_FN void ldsm_x1(uint32_t& r, uint32_t row LOCP) {
  EMU(simt::ldmatrix(&r, 1, false, row, loc),
      asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                   : "=r"(r) : "r"(row) : "memory"));
}

PTX_FN void ldsm_x1_t(uint32_t& r, uint32_t row LOCP) {
  EMU(simt::ldmatrix(&r, 1, true, row, loc),
      asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                   : "=r"(r) : "r"(row) : "memory"));
}

PTX_FN void ldsm_x2(uint32_t (&r)[2], uint32_t row LOCP) {
  EMU(simt::ldmatrix(r, 2, false, row, loc),
      asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                   : "=r"(r[0]), "=r"(r[1]) : "r"(row) : "memory"));
}

PTX_FN void ldsm_x2_t(uint32_t (&r)[2], uint32_t row LOCP) {
  EMU(simt::ldmatrix(r, 2, true, row, loc),
      asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                   : "=r"(r[0]), "=r"(r[1]) : "r"(row) : "memory"));
}

PTX_FN void ldsm_x4(uint32_t (&r)[4], uint32_t row LOCP) {
  EMU(simt::ldmatrix(r, 4, false, row, loc),
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory"));
}

PTX_FN void ldsm_x4_t(uint32_t (&r)[4], uint32_t row LOCP) {
  EMU(simt::ldmatrix(r, 4, true, row, loc),
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory"));
}

// The inverse of ldsm_x4. One instruction from sm_90 on, four shuffles and four stores before.
PTX_FN void stsm_x4(uint32_t row, const uint32_t (&r)[4] LOCP) {
#if defined(SIMT_EMU)
  simt::stmatrix(r, 4, false, row, loc);
#elif __CUDA_ARCH__ >= 900
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
               ::"r"(row), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
#else
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int tile = 0; tile < 4; tile++) {
    uint32_t at = __shfl_sync(~0u, row, tile * 8 + lane / 4) + lane % 4 * 4;
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(r[tile]) : "memory");
  }
#endif
}

// ---- Tensor cores. Warp-wide.
//
// d += a b, with a [16, 16] and b [16, 8] in bf16 and d [16, 8] in f32. A lane holds
//
//   a[0]  row g      columns 2 t, 2 t + 1        b0          rows 2 t, 2 t + 1      column g
//   a[1]  row g + 8  columns 2 t, 2 t + 1        b1          rows 2 t + 8, 2 t + 9  column g
//   a[2]  row g      columns 2 t + 8, 2 t + 9    d[0], d[1]  row g      columns 2 t, 2 t + 1
//   a[3]  row g + 8  columns 2 t + 8, 2 t + 9    d[2], d[3]  row g + 8  columns 2 t, 2 t + 1
//
// so that two d side by side, packed to bf16, are the a of a next product. The hardware's sum of
// the 16 products and d is not IEEE f32, but it depends on nothing else than these operands.
PTX_FN void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1 LOCP) {
#ifdef SIMT_EMU
  uint32_t b[2] = {b0, b1};
  simt::mma_m16n8k16(simt::BF16, d, a, b, d, loc);
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// ---- Numbers

// Two floats as bf16, to nearest even; `low` in the low half.
PTX_FN uint32_t pack_bf16(float low, float high) {
#ifdef SIMT_EMU
  __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
#else
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#endif
}

// The two bf16 of a pair as floats; exact.
PTX_FN float bf16_low(uint32_t pair) { return __uint_as_float(pair << 16); }
PTX_FN float bf16_high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// 2^x, to 2 units in the last place; results under 2^-126 are 0, so that of -infinity too.
PTX_FN float ex2(float x) {
#ifdef SIMT_EMU
  float y = exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// ---- Registers

// Makes `x` a number that the compiler knows nothing of: what is computed from it after this is
// computed there, and not kept in a register from before.
PTX_FN void forget(unsigned& x) {
#ifndef SIMT_EMU
  asm volatile("" : "+r"(x));
#endif
}

// ---- Global memory that is used once: past L1. Addresses aligned to 16.

// Only for memory that no thread writes while the kernel runs.
PTX_FN uint4 load_stream16(const void* p) {
#ifdef SIMT_EMU
  return *(const uint4*)p;
#else
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
#endif
}

PTX_FN void store_stream16(void* p, uint4 v) {
#ifdef SIMT_EMU
  *(uint4*)p = v;
#else
  asm volatile("st.global.L1::no_allocate.v4.u32 [%0], {%1, %2, %3, %4};"
               ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
#endif
}

// ---- Barriers between some of a block's warps
//
// Barriers 1 to 15 (0 is that of __syncthreads), for `threads` threads in whole warps, those that
// only arrive included.

PTX_FN void bar_sync(int barrier, int threads LOCP) {
  EMU(simt::barrier(barrier, threads, true, loc),
      asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory"));
}

// Arrives and does not wait: for a producer.
PTX_FN void bar_arrive(int barrier, int threads LOCP) {
  EMU(simt::barrier(barrier, threads, false, loc),
      asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory"));
}

// ---- Barriers in shared memory
//
// Eight bytes, aligned to 8, for `arrivals` arrivals per phase. Phases are numbered from 0; a wait
// for phase p takes the parity p % 2 and returns when that phase is over. __syncthreads must stand
// between mbar_init and all else.

PTX_FN void mbar_init(uint32_t barrier, uint32_t arrivals LOCP) {
  EMU(simt::mbar_init(barrier, arrivals, loc),
      asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory"));
}

PTX_FN void mbar_arrive(uint32_t barrier LOCP) {
  EMU(simt::mbar_arrive(barrier, 0, loc),
      asm volatile("{\n"
                   ".reg .b64 state;\n"
                   "mbarrier.arrive.shared.b64 state, [%0];\n"
                   "}" ::"r"(barrier) : "memory"));
}

PTX_FN void mbar_wait(uint32_t barrier, uint32_t parity LOCP) {
#if defined(SIMT_EMU)
  simt::mbar_wait(barrier, parity, loc);
#elif __CUDA_ARCH__ >= 900
  uint32_t over;
  do {
    asm volatile("{\n"
                 ".reg .pred over;\n"
                 "mbarrier.try_wait.parity.shared.b64 over, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, over;\n"
                 "}" : "=r"(over) : "r"(barrier), "r"(parity) : "memory");
  } while (!over);
#else
  for (;;) {
    uint32_t over;
    asm volatile("{\n"
                 ".reg .pred over;\n"
                 "mbarrier.test_wait.parity.shared.b64 over, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, over;\n"
                 "}" : "=r"(over) : "r"(barrier), "r"(parity) : "memory");
    if (over) return;
    __nanosleep(20);
  }
#endif
}
