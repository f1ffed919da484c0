// As much of CUDA as the probes use, on threads of the host: each block is one of them, whatever its number of threads,
// all blocks of a launch run side by side but for clusters beyond RESIDENT, and a launch returns when they are done. So
// the logic of the probes and of their checks is tested where there is no GPU (python/tests/test_probes.py).
#pragma once

#include <sched.h>

#include <barrier>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <semaphore>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __host__
// A block is a thread.
#define __shared__ thread_local

constexpr int MULTIPROCESSORS = 3;
// Clusters that run at once.
constexpr int RESIDENT = 2;
// Every other block begins so much later, that a barrier that does not wait for it is seen whatever the host's load.
constexpr std::chrono::milliseconds LATE{2};

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint4 {
  unsigned x, y, z, w;
};

// ---- What a block sees

// The blocks that meet: those of a cluster, or of the whole grid.
struct Group {
  explicit Group(int blocks) : meeting(blocks), anchors(blocks) {}
  std::barrier<> meeting;
  // An address in the shared memory of each block.
  std::vector<char*> anchors;
};

inline thread_local dim3 blockIdx(0, 0, 0), threadIdx(0, 0, 0), blockDim, gridDim;
inline thread_local Group *grid_group, *cluster_group;
inline thread_local unsigned cluster_rank;
// Shared variables of all blocks have the same distance from their anchor.
inline thread_local char anchor;

inline void __syncthreads() {}
inline void __cluster_barrier_arrive_relaxed() {}
inline void __cluster_barrier_wait() { cluster_group->meeting.arrive_and_wait(); }
inline void __nanosleep(unsigned) { sched_yield(); }
inline void cudaTriggerProgrammaticLaunchCompletion() {}
inline void cudaGridDependencySynchronize() {}
inline long long clock64() { return std::chrono::steady_clock::now().time_since_epoch().count(); }
inline unsigned atomicAdd(unsigned* to, unsigned value) { return __atomic_fetch_add(to, value, __ATOMIC_SEQ_CST); }
inline uint4 __ldcg(const uint4* from) { return *from; }

// ---- What the host calls

enum cudaError_t { cudaSuccess };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum { cudaDevAttrMultiProcessorCount, cudaStreamNonBlocking };
enum { cudaFuncAttributeNonPortableClusterSizeAllowed, cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension, cudaLaunchAttributeProgrammaticStreamSerialization };
enum { cudaStreamCaptureModeThreadLocal };

using Works = std::vector<std::function<void()>>;
struct Stream {
  // What is recorded, where something is.
  std::unique_ptr<Works> recorded;
};
using cudaStream_t = Stream*;
using cudaEvent_t = std::chrono::steady_clock::time_point*;
using cudaGraph_t = std::shared_ptr<Works>*;
using cudaGraphExec_t = std::shared_ptr<Works>*;

struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

// Runs `block` for each block of a grid of clusters.
inline void run_blocks(unsigned blocks, unsigned cluster, const std::function<void()>& block) {
  Group grid(blocks);
  std::vector<std::unique_ptr<Group>> clusters;
  for (unsigned i = 0; i < blocks / cluster; i++) clusters.push_back(std::make_unique<Group>(cluster));
  std::counting_semaphore<> room(cluster > 1 ? RESIDENT * cluster : blocks);
  std::vector<std::thread> threads;
  for (unsigned index = 0; index < blocks; index++) {
    room.acquire();
    threads.emplace_back([&, index] {
      blockIdx = index, blockDim = 1, gridDim = blocks;
      grid_group = &grid, cluster_group = clusters[index / cluster].get(), cluster_rank = index % cluster;
      cluster_group->anchors[cluster_rank] = &anchor;
      if (index % 2) std::this_thread::sleep_for(LATE);
      block();
      // A cluster ends as one, and makes room then.
      cluster_group->meeting.arrive_and_wait();
      room.release();
    });
  }
  for (auto& thread : threads) thread.join();
}

inline void enqueue(cudaStream_t stream, std::function<void()> work) {
  if (stream && stream->recorded) {
    stream->recorded->push_back(std::move(work));
  } else {
    work();
  }
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments... arguments) {
  unsigned cluster = 1, blocks = config->gridDim.x;
  for (unsigned i = 0; i < config->numAttrs; i++) {
    if (config->attrs[i].id == cudaLaunchAttributeClusterDimension) cluster = config->attrs[i].val.clusterDim.x;
  }
  enqueue(config->stream, [=] { run_blocks(blocks, cluster, [=] { kernel(arguments...); }); });
  return cudaSuccess;
}

template <typename... Parameters, size_t... I>
void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<Parameters*>(arguments[I])...);
}

template <typename... Parameters>
cudaError_t cudaLaunchCooperativeKernel(void (*kernel)(Parameters...), dim3 grid, dim3, void** arguments, size_t,
                                        cudaStream_t) {
  run_blocks(grid.x, 1, [=] { call(kernel, arguments, std::index_sequence_for<Parameters...>()); });
  return cudaSuccess;
}

template <typename... Parameters>
cudaError_t cudaOccupancyMaxActiveClusters(int* count, void (*)(Parameters...), const cudaLaunchConfig_t*) {
  *count = RESIDENT;
  return cudaSuccess;
}

template <typename... Parameters>
cudaError_t cudaFuncSetAttribute(void (*)(Parameters...), int, int) {
  return cudaSuccess;
}

template <typename T>
cudaError_t cudaMalloc(T** data, size_t bytes) {
  *data = static_cast<T*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  // What was never written is nothing that a probe may count on.
  std::memset(*data, 0xff, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaFree(void* data) { return std::free(data), cudaSuccess; }
inline cudaError_t cudaMemset(void* data, int value, size_t bytes) {
  return std::memset(data, value, bytes), cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  enqueue(stream, [=] { std::memset(data, value, bytes); });
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) { return *value = MULTIPROCESSORS, cudaSuccess; }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, int) { return *stream = new Stream, cudaSuccess; }
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete stream, cudaSuccess; }
inline cudaError_t cudaEventCreate(cudaEvent_t* event) { return *event = new std::remove_pointer_t<cudaEvent_t>, cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  return *event = std::chrono::steady_clock::now(), cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return *milliseconds = std::chrono::duration<float, std::milli>(*end - *start).count(), cudaSuccess;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, int) {
  return stream->recorded = std::make_unique<Works>(), cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = new std::shared_ptr<Works>(std::move(stream->recorded));
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, int) {
  return *executable = new std::shared_ptr<Works>(*graph), cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (const auto& work : **graph) work();
  return cudaSuccess;
}
