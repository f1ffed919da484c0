// What the emulator offers for the instructions that came with Hopper; `kernels/hopper.cuh` calls
// these. As in runtime.h, `loc` is the place in the kernel that faults name.
#pragma once

#include "simt/runtime.h"

namespace simt {

// ---- Bulk copies (TMA), by one thread

// fence.proxy.async for shared memory: what this thread wrote may be read by bulk copies and wgmma.
void fence_proxy_async();
// fence.mbarrier_init: bulk copies may count on the mbarriers that this thread has initialised.
void fence_mbarrier_init();

// cp.async.bulk, global to shared: `bytes` that complete on an mbarrier.
void bulk_load(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier, loc_t loc);
// cp.async.bulk.tensor, global to shared: the box at `coordinates` (innermost first), as many as
// `rank`. What lies outside of the tensor becomes zero, and counts on the mbarrier too.
void tensor_load(uint32_t to, const void* map, int rank, const int* coordinates, uint32_t barrier,
                 loc_t loc);
// The same to the same place of every block of the cluster whose bit is set in `ranks`, where it
// completes on the same mbarrier.
void tensor_load_multicast(uint32_t to, const void* map, int rank, const int* coordinates,
                           uint32_t barrier, uint32_t ranks, loc_t loc);
// cp.async.bulk, shared to global.
void bulk_store(void* to, uint32_t from, uint32_t bytes, loc_t loc);
// cp.async.bulk.tensor, shared to global. What lies outside of the tensor is left out.
void tensor_store(const void* map, int rank, const int* coordinates, uint32_t from, loc_t loc);
// cp.async.bulk.commit_group, of stores
void bulk_commit();
// cp.async.bulk.wait_group: returns when at most `pending` of this thread's latest groups are in
// flight.
void bulk_wait(int pending, loc_t loc);

// ---- Products of a warpgroup

// wgmma.fence
void wgmma_fence(loc_t loc);
// wgmma.mma_async.m64nNk16.f32.bf16.bf16: d = a b, added to d where `accumulate`. d has n / 2
// registers; a has 4, or is null and lies in shared memory as b does. `a_mn` and `b_mn` say that
// rows of an operand run along m or n instead of k.
void wgmma(int n, float* d, const uint32_t* a, uint64_t a_descriptor, uint64_t b_descriptor,
           bool accumulate, bool a_mn, bool b_mn, loc_t loc);
// wgmma.commit_group
void wgmma_commit(loc_t loc);
// wgmma.wait_group
void wgmma_wait(int pending, loc_t loc);

// ---- Clusters

// The rank of the block in its cluster, and its blocks.
unsigned cluster_rank();
unsigned cluster_blocks();
// barrier.cluster.arrive and wait
void cluster_arrive(loc_t loc);
void cluster_wait(loc_t loc);
// mapa: the same place in the shared memory of block `rank` of the cluster.
uint32_t map_shared(uint32_t address, uint32_t rank, loc_t loc);
void* map_pointer(const void* pointer, uint32_t rank, loc_t loc);

// ---- Counters in device memory, for blocks that run at the same time

// red.release.gpu.add: what the thread has done or seen before comes before what follows a
// counter_wait that finds the sum.
void counter_add(uint32_t* counter, uint32_t value, loc_t loc);
// ld.acquire.gpu until the counter, modulo 2^32, is at `least` or past it.
void counter_wait(const uint32_t* counter, uint32_t least, loc_t loc);

// setmaxnreg: checked, and without effect.
void set_max_registers(int registers, loc_t loc);

}  // namespace simt
