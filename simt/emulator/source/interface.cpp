// What the Rust side calls; src/library.rs declares the same.
#include <cxxabi.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "device_memory.h"
#include "library.h"
#include "worker.h"

using namespace simt;

namespace {

constexpr size_t kTextBytes = 1024;

struct RawKernel {
  const char* name;
  uint32_t parameter_count;
};

struct RawParameter {
  uint32_t size;
  uint32_t is_pointer;
  char type_name[kTextBytes];
};

struct RawLaunch {
  uint32_t grid[3], block[3];
  uint32_t dynamic_shared_bytes;
  uint32_t cluster;      // blocks, along x; 1 without clusters
  uint32_t cooperative;  // whether all blocks run at the same time
  uint32_t dependent;    // whether it may begin while earlier kernels run
  uint32_t schedule, copies;
  uint64_t schedule_seed, copies_seed;
};

struct RawPlace {
  char file[kTextBytes];
  uint32_t line;
  uint64_t instruction;
};

struct RawFault {
  uint32_t kind;
  uint32_t has_thread;
  uint32_t block[3], thread[3];
  char message[2 * kTextBytes];
  RawPlace place, other_place;
};

template <size_t kBytes>
void set_text(char (&to)[kBytes], const char* text) {
  size_t length = strnlen(text, kBytes - 1);
  memcpy(to, text, length);
  to[length] = 0;
}

void export_place(const Place& place, RawPlace& out) {
  set_text(out.file, place.file ? place.file : "");
  out.line = place.line;
  out.instruction = place.instruction;
}

void export_fault(const Fault& fault, RawFault& out) {
  out.kind = uint32_t(fault.kind);
  out.has_thread = fault.has_thread;
  const uint3 &block = fault.block, &thread = fault.thread;
  memcpy(out.block, &block, sizeof out.block);
  memcpy(out.thread, &thread, sizeof out.thread);
  set_text(out.message, fault.message.c_str());
  export_place(fault.place, out.place);
  export_place(fault.other_place, out.other_place);
}

// Workers wait here for the next launch: their stacks are kept.
class WorkerPool {
 public:
  static WorkerPool& get() {
    static WorkerPool* pool = new WorkerPool;  // never destroyed: threads may outlive main
    return *pool;
  }

  std::unique_ptr<Worker> take() {
    std::lock_guard lock(mutex_);
    if (idle_.empty()) return make();
    std::unique_ptr<Worker> worker = std::move(idle_.back());
    idle_.pop_back();
    return worker;
  }

  void give_back(std::unique_ptr<Worker> worker) {
    std::lock_guard lock(mutex_);
    idle_.push_back(std::move(worker));
  }

 private:
  static std::unique_ptr<Worker> make() {
    auto worker = std::make_unique<Worker>();
    constexpr size_t kBytes = size_t{kMaxBlocks} * kDynamicStride;
    void* shared = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shared == MAP_FAILED) throw std::bad_alloc();
    worker->shared.dynamic_begin = static_cast<char*>(shared);
    return worker;
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> idle_;
};

uint64_t blocks_of_grid(const RawLaunch& launch) {
  return uint64_t{launch.grid[0]} * launch.grid[1] * launch.grid[2];
}

// Those that run at the same time.
uint64_t blocks_at_once(const RawLaunch& launch) {
  return launch.cooperative ? blocks_of_grid(launch) : launch.cluster;
}

// Null, or why a GPU would refuse the launch, or the emulator does.
const char* refusal(const RawLaunch& launch) {
  const uint32_t* block = launch.block;
  const uint32_t* grid = launch.grid;
  uint64_t threads = uint64_t{block[0]} * block[1] * block[2];
  if (block[0] == 0 || block[1] == 0 || block[2] == 0) return "a block without threads";
  if (block[0] > kMaxThreads || block[1] > kMaxThreads || threads > kMaxThreads) {
    return "a block of more than 1024 threads";
  }
  if (block[2] > 64) return "a block of more than 64 threads in z";
  if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return "a grid without blocks";
  if (grid[0] > 0x7fffffff || grid[1] > 65535 || grid[2] > 65535) return "too many blocks";
  if (launch.dynamic_shared_bytes > kMaxDynamicShared) {
    return "more than 232448 bytes of dynamic shared memory";
  }
  if (launch.cluster == 0 || launch.cluster > kMaxBlocks) {
    return "a cluster of no or more than 16 blocks";
  }
  if (grid[0] % launch.cluster) return "a grid that is not whole clusters";
  uint64_t blocks = blocks_at_once(launch);
  if (blocks > kMaxBlocks) return "a cooperative launch of more than 16 blocks: not emulated";
  if (blocks > 1 && (threads % kWarpLanes || threads * blocks > kMaxWarps * kWarpLanes)) {
    return "more warps than there are for blocks that run at the same time, or partial ones: not "
           "emulated";
  }
  return nullptr;
}

void set_up(Worker& worker, const LoadedLibrary& library, const RawLaunch& launch) {
  worker.schedule = Schedule(launch.schedule);
  worker.copies = Copies(launch.copies);
  worker.schedule_random.seed(launch.schedule_seed);
  worker.copy_random.seed(launch.copies_seed);
  worker.blocks = unsigned(blocks_at_once(launch));
  worker.cluster_blocks = launch.cluster;
  worker.dependent = launch.dependent;
  worker.stats = {};
  worker.fault.reset();
  SharedMemory& shared = worker.shared;
  shared.static_begin = library.static_shared();
  shared.static_bytes = uint32_t(library.static_shared_bytes);
  shared.dynamic_bytes = launch.dynamic_shared_bytes;
  shared.dynamic_base = (SharedMemory::kStaticBase + shared.static_bytes + 1023) / 1024 * 1024;
  worker.fibers.grow(launch.block[0] * launch.block[1] * launch.block[2] * worker.blocks);
}

void run_grid(Worker& worker, const RawLaunch& launch) {
  dim3 grid{launch.grid[0], launch.grid[1], launch.grid[2]};
  dim3 block{launch.block[0], launch.block[1], launch.block[2]};
  uint64_t turns = blocks_of_grid(launch) / worker.blocks;
  for (uint64_t i = 0; i < turns && !worker.fault; i++) {
    uint64_t turn = worker.schedule == Schedule::kReverse ? turns - 1 - i : i;
    run_blocks(worker, turn * worker.blocks, block, grid);
  }
}

bool report(std::string error, char* text) {
  size_t length = strnlen(error.c_str(), kTextBytes - 1);
  memcpy(text, error.c_str(), length);
  text[length] = 0;
  return error.empty();
}

}  // namespace

extern "C" {

const LoadedLibrary* simt_load(const Library* library) { return find_loaded(library); }

uint32_t simt_kernel_count(const LoadedLibrary* loaded) { return loaded->library->kernel_count; }

const char* simt_file(const LoadedLibrary* loaded) { return loaded->library->file; }

void simt_kernel(const LoadedLibrary* loaded, uint32_t index, RawKernel* out) {
  const Kernel& kernel = loaded->library->kernels[index];
  *out = {kernel.name, kernel.parameter_count};
}

void simt_parameter(const LoadedLibrary* loaded, uint32_t kernel, uint32_t index,
                    RawParameter* out) {
  const Parameter& parameter = loaded->library->kernels[kernel].parameters[index];
  out->size = parameter.size;
  out->is_pointer = parameter.is_pointer;
  int status = 0;
  char* name = abi::__cxa_demangle(parameter.type->name(), nullptr, nullptr, &status);
  set_text(out->type_name, name ? name : parameter.type->name());
  free(name);
}

// Runs the kernel. `arguments` are as many as it has parameters. False if there was a fault.
bool simt_launch(const LoadedLibrary* loaded, uint32_t index, const RawLaunch* launch,
                 void* const* arguments, Stats* stats, RawFault* fault) {
  if (const char* reason = refusal(*launch)) {
    export_fault(Fault{FaultKind::kLaunch, reason, false, {}, {}, {}, {}}, *fault);
    return false;
  }
  std::unique_ptr<Worker> worker = WorkerPool::get().take();
  worker->library = loaded;
  worker->kernel = &loaded->library->kernels[index];
  worker->arguments = arguments;
  set_up(*worker, *loaded, *launch);
  worker->checker.begin_launch(*worker, *loaded);
  run_grid(*worker, *launch);
  worker->checker.end_launch();
  *stats = worker->stats;
  if (worker->fault) export_fault(*worker->fault, *fault);
  bool good = !worker->fault;
  WorkerPool::get().give_back(std::move(worker));
  return good;
}

uint64_t simt_allocate(uint64_t bytes) { return DeviceMemory::get().allocate(bytes); }

// These are false with a message in `text` of 1024 bytes if the host's request is wrong.
bool simt_free(uint64_t address, char* text) {
  return report(DeviceMemory::get().free(address), text);
}
bool simt_write(uint64_t to, const void* from, uint64_t bytes, char* text) {
  return report(DeviceMemory::get().write(to, from, bytes), text);
}
bool simt_read(uint64_t from, void* to, uint64_t bytes, char* text) {
  return report(DeviceMemory::get().read(from, to, bytes), text);
}
bool simt_copy(uint64_t to, uint64_t from, uint64_t bytes, char* text) {
  return report(DeviceMemory::get().copy(to, from, bytes), text);
}
bool simt_fill(uint64_t to, uint64_t bytes, uint8_t value, char* text) {
  return report(DeviceMemory::get().fill(to, value, bytes), text);
}

}  // extern "C"
