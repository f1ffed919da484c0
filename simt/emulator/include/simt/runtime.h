// What the emulator offers to the code of kernels. `kernels/ptx.cuh` calls these where a GPU has
// instructions; the CUDA intrinsics of the other headers are thin wrappers around them.
//
// `loc` is the place in the kernel that faults name; helpers pass on what they got from a default
// argument SIMT_LOC.
#pragma once

#include <stdint.h>

#include <source_location>

namespace simt {

using loc_t = std::source_location;
#define SIMT_LOC ::simt::loc_t loc = ::simt::loc_t::current()

// ---- Faults

// Ends the launch with an error.
[[noreturn]] void fail_trap(loc_t loc);
[[noreturn]] void fail_assertion(const char* condition, loc_t loc);

// ---- Warps

// What the lanes of a warp do together. All lanes of a collective must be at the same kind with the
// same mask.
enum class Collective : unsigned {
  kSyncWarp,
  kShuffle,
  kBallot,
  kReduce,
  kMatch,
  kLoadMatrix,
  kStoreMatrix,
  kMma,
  kBarrier,
  kWgmma,
  kSetMaxRegisters,
};

// Runs once per collective, on behalf of all lanes of `mask`; `payloads` holds what each of them
// brought.
using CollectiveBody = void (*)(void* const* payloads, unsigned mask);

// Waits until all lanes of `mask` have come here with their `payload`; the last of them runs
// `body`.
void collective(Collective kind, unsigned mask, void* payload, CollectiveBody body, loc_t loc);

// The value that lane `source` brought.
uint64_t shuffle(unsigned mask, uint64_t value, unsigned source, loc_t loc);
// The lanes whose predicate holds.
unsigned ballot(unsigned mask, bool predicate, loc_t loc);
// The lanes that brought the same value.
unsigned match_any(unsigned mask, uint64_t value, loc_t loc);
// The lanes of this warp that have not exited.
unsigned active_mask();

// ---- Barriers and order

// Barrier `id` of 0 to 15 for `threads` threads, 0 for all that have not exited. `wait` is false
// for bar.arrive.
void barrier(int id, int threads, bool wait, loc_t loc);
enum class Vote { kCount, kAnd, kOr };
// __syncthreads_count and its siblings.
int barrier_vote(Vote vote, bool predicate, loc_t loc);
// __threadfence
void fence();
// Lets other threads run. Every loop that waits for another thread must come through here, or
// through mbar_try_wait.
void yield(loc_t loc = loc_t::current());

// ---- Between kernels

// griddepcontrol.wait: the kernels before this one in its stream have ended.
void wait_for_grids(loc_t loc);

// ---- Shared memory

// The start of the block's dynamic shared memory, aligned to 1024 bytes.
void* dyn_smem();
// The 32-bit address in the shared window of a pointer to static or dynamic shared memory.
uint32_t to_smem(const void* pointer, loc_t loc);
// The pointer for `bytes` bytes at a 32-bit shared address, checked for bounds and alignment.
void* from_smem(uint32_t address, uint32_t bytes, uint32_t alignment, loc_t loc);

// cp.async of `bytes` (4, 8 or 16) to shared address `to`: the first `source_bytes` are copied, the
// others zeroed.
void cp_async(uint32_t to, const void* source, uint32_t bytes, uint32_t source_bytes, loc_t loc);
// cp.async.commit_group
void cp_async_commit();
// cp.async.wait_group: returns when at most `pending` of this thread's latest groups are in flight.
void cp_async_wait(int pending, loc_t loc);

// ---- Matrix fragments

// ldmatrix .x1, .x2 or .x4 (`count`) of 8 x 8 matrices of 16-bit elements.
void ldmatrix(uint32_t* registers, int count, bool transpose, uint32_t address, loc_t loc);
// stmatrix, likewise.
void stmatrix(const uint32_t* registers, int count, bool transpose, uint32_t address, loc_t loc);

enum Elt { BF16, F16 };
// mma.sync.aligned.m16n8k16.row.col with f32 sums: d = a b + c. a has 4 registers, b 2, c and d 4;
// d may be c.
void mma_m16n8k16(Elt element, float* d, const uint32_t* a, const uint32_t* b, const float* c,
                  loc_t loc);

// ---- mbarrier

void mbar_init(uint32_t barrier, uint32_t count, loc_t loc);
void mbar_inval(uint32_t barrier, loc_t loc);
// Arrives, and expects `bytes` more of asynchronous copies first. Returns the state before.
uint64_t mbar_arrive(uint32_t barrier, uint32_t bytes, loc_t loc);
void mbar_expect_tx(uint32_t barrier, uint32_t bytes, loc_t loc);
// Whether the phase of this parity is complete. Lets other threads run if not.
bool mbar_try_wait(uint32_t barrier, uint32_t parity, loc_t loc);
// Waits for the phase of this parity to be complete.
void mbar_wait(uint32_t barrier, uint32_t parity, loc_t loc);

}  // namespace simt
