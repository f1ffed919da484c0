// What the probes share: device memory, checks of every call, times between two events.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "figures.h"

namespace probes {

// A probe: its name on the command line, and what it finds.
struct Probe {
  const char* name;
  std::vector<Figure> (*run)();
};

std::vector<Figure> grid_barriers();
std::vector<Figure> cluster_barriers();
std::vector<Figure> memory_reads();
std::vector<Figure> cluster_reads();
std::vector<Figure> graph_nodes();
std::vector<Figure> resident_clusters();

// Samples of each quantity, after some that do not count.
constexpr int SAMPLES = 20;
constexpr int WARM_UP = 3;

// Throws what a call of the runtime refused.
inline void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error));
}
#define CHECK(call) probes::check(call, #call)

// Throws unless a probe did what it is to be timed at.
inline void require(bool right, const std::string& what) {
  if (!right) throw std::runtime_error(what);
}

// Device memory of `count` elements.
template <typename T>
class Memory {
 public:
  explicit Memory(size_t count) : count_(count) { CHECK(cudaMalloc(&data_, count * sizeof(T))); }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  T* data() const { return data_; }

  // Both are waited for: the streams of the timers do not.
  void zero() {
    CHECK(cudaMemset(data_, 0, count_ * sizeof(T)));
    CHECK(cudaDeviceSynchronize());
  }

  void upload(const std::vector<T>& values) {
    CHECK(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    CHECK(cudaDeviceSynchronize());
  }

  std::vector<T> download() const {
    std::vector<T> values(count_);
    CHECK(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

// A stream, and the time in microseconds that work takes on it between two events.
class Timer {
 public:
  Timer() {
    CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    CHECK(cudaEventCreate(&start_));
    CHECK(cudaEventCreate(&end_));
  }
  ~Timer() {
    cudaEventDestroy(start_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  cudaStream_t stream() const { return stream_; }

  double microseconds(const std::function<void()>& work) {
    CHECK(cudaEventRecord(start_, stream_));
    work();
    CHECK(cudaEventRecord(end_, stream_));
    CHECK(cudaEventSynchronize(end_));
    float milliseconds = 0;
    CHECK(cudaEventElapsedTime(&milliseconds, start_, end_));
    return milliseconds * 1e3;
  }

  // What each step of `work(steps)` takes: see `per_step`.
  std::vector<double> per_step(const std::function<void(int)>& work, int few, int many) {
    std::vector<double> of_few, of_many;
    for (int sample = -WARM_UP; sample < SAMPLES; sample++) {
      double first = microseconds([&] { work(few); });
      double second = microseconds([&] { work(many); });
      if (sample < 0) continue;
      of_few.push_back(first);
      of_many.push_back(second);
    }
    return probes::per_step(of_few, of_many, few, many);
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t start_, end_;
};

// Multiprocessors of the device.
inline int multiprocessors() {
  int count = 0;
  CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0));
  return count;
}

// A launch of `kernel` in clusters, which may be larger than every card has to take: what its configuration points to
// lives as long as this.
class ClusterLaunch {
 public:
  template <typename... Parameters>
  ClusterLaunch(void (*kernel)(Parameters...), int cluster, int threads, int shared_bytes) {
    CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
    CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
    attribute_.id = cudaLaunchAttributeClusterDimension;
    attribute_.val.clusterDim = {unsigned(cluster), 1, 1};
    config_.gridDim = cluster;
    config_.blockDim = threads;
    config_.dynamicSmemBytes = shared_bytes;
    config_.attrs = &attribute_;
    config_.numAttrs = 1;
    CHECK(cudaOccupancyMaxActiveClusters(&resident_, kernel, &config_));
    cluster_ = cluster;
  }
  ClusterLaunch(const ClusterLaunch&) = delete;
  ClusterLaunch& operator=(const ClusterLaunch&) = delete;

  // How many clusters can be on the device at once, by the runtime.
  int resident() const { return resident_; }

  // Launches `clusters` of them.
  template <typename... Parameters, typename... Arguments>
  void launch(void (*kernel)(Parameters...), int clusters, cudaStream_t stream, Arguments... arguments) {
    config_.gridDim = clusters * cluster_;
    config_.stream = stream;
    CHECK(cudaLaunchKernelEx(&config_, kernel, Parameters(arguments)...));
  }

 private:
  cudaLaunchAttribute attribute_ = {};
  cudaLaunchConfig_t config_ = {};
  int cluster_ = 0;
  int resident_ = 0;
};

}  // namespace probes
