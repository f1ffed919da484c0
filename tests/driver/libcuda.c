// A stand-in for the NVIDIA driver's library: the calls that src/cuda/driver makes, on host memory. The only kernel is
// `ptx_stream_copy`, which it carries out itself.
//
// From the environment, each with a default: FAKE_VERSION (13000), FAKE_DEVICES (1; 0 makes cuInit fail as the driver
// does), FAKE_CAPABILITY (90), FAKE_SHARED (232448 bytes), FAKE_DECLARED (0 bytes of shared memory that the kernel
// declares), FAKE_MEMORY (1048576 bytes that may be allocated). A launch over FAULT rows loses the context: that call and
// all later ones fail. One over TELL rows writes how it was launched instead of copying.

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NO_DEVICE = 100,
  INVALID_CONTEXT = 201,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_TOO_LARGE = 720,
  INVALID_CLUSTER_SIZE = 912,
};
enum { FAULT = 0xfa117, TELL = 0x7e11, SHARED_LIMIT = 48 << 10, SHARED_MOST = 227 << 10, ALIGNMENT = 256 };

typedef unsigned long long Address;

static int lost = SUCCESS;
static _Thread_local void* current = NULL;
static size_t allocated = 0;
// Dynamic shared memory that was allowed; 0: none was asked for.
static int shared_limit = 0;
// Whether clusters may have more than 8 blocks.
static int large_clusters = 0;
// The page-locked memory that was allocated last.
static char* pinned = NULL;
static size_t pinned_bytes = 0;

static long setting(const char* name, long otherwise) {
  const char* text = getenv(name);
  return text ? atol(text) : otherwise;
}

int cuDriverGetVersion(int* version) {
  *version = (int)setting("FAKE_VERSION", 13000);
  return SUCCESS;
}
int cuInit(unsigned flags) { return flags || !setting("FAKE_DEVICES", 1) ? NO_DEVICE : SUCCESS; }
int cuDeviceGetCount(int* count) {
  *count = (int)setting("FAKE_DEVICES", 1);
  return SUCCESS;
}
int cuDeviceGet(int* device, int index) {
  *device = index;
  return SUCCESS;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  long capability = setting("FAKE_CAPABILITY", 90);
  (void)device;
  *value = (int)(attribute == 75   ? capability / 10
                 : attribute == 76 ? capability % 10
                 : attribute == 16 ? 132
                 : attribute == 97 ? setting("FAKE_SHARED", SHARED_MOST)
                                   : 0);
  return SUCCESS;
}
int cuDeviceGetName(char* name, int length, int device) {
  (void)device;
  strncpy(name, "Fake GPU", (size_t)length);
  return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  (void)device;
  *context = &lost;
  return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  (void)device;
  return lost;
}
int cuCtxGetCurrent(void** context) {
  *context = current;
  return SUCCESS;
}
int cuCtxSetCurrent(void* context) {
  current = context;
  return SUCCESS;
}

int cuModuleLoadData(void** module, const void* image) {
  *module = (void*)image;
  return lost;
}
int cuModuleUnload(void* module) {
  (void)module;
  return lost;
}
int cuModuleGetFunctionCount(unsigned* count, void* module) {
  (void)module;
  *count = 1;
  return lost;
}
int cuModuleEnumerateFunctions(void** functions, unsigned count, void* module) {
  for (unsigned i = 0; i < count; i++) functions[i] = module;
  return lost;
}
int cuFuncLoad(void* function) {
  (void)function;
  return lost;
}
int cuFuncGetName(const char** name, void* function) {
  (void)function;
  *name = "ptx_stream_copy";
  return lost;
}
int cuFuncGetParamInfo(void* function, size_t index, size_t* offset, size_t* size) {
  (void)function;
  if (index > 2) return INVALID_VALUE;
  *offset = index * 8;
  *size = index == 2 ? 4 : 8;
  return lost;
}
static int declared(void) { return (int)setting("FAKE_DECLARED", 0); }
int cuFuncGetAttribute(int* value, int attribute, void* function) {
  (void)function;
  *value = declared();
  return attribute == 1 ? lost : INVALID_VALUE;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
  (void)function;
  if (attribute == 14) {
    large_clusters = value;
    return lost;
  }
  if (attribute != 8 || value + declared() > SHARED_MOST) return INVALID_VALUE;
  // Two threads that ask at once are to be caught if they do.
  static atomic_int asking = 0;
  if (asking++) return INVALID_VALUE;
  usleep(20000);
  shared_limit = value;
  asking--;
  return lost;
}

int cuStreamCreate(void** stream, unsigned flags) {
  (void)flags;
  *stream = &lost;
  return lost;
}
int cuStreamDestroy_v2(void* stream) {
  (void)stream;
  return lost;
}

// Knows nothing of a lost context: the caller has to remember it.
int cuMemAlloc_v2(Address* address, size_t bytes) {
  if (allocated + bytes > (size_t)setting("FAKE_MEMORY", 1 << 20)) return OUT_OF_MEMORY;
  allocated += bytes;
  // The size stands before the block, which is aligned as the driver's are.
  char* block = aligned_alloc(ALIGNMENT, ALIGNMENT + (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
  *(size_t*)block = bytes;
  *address = (Address)(block + ALIGNMENT);
  return SUCCESS;
}
int cuMemFree_v2(Address address) {
  if (lost) return lost;
  char* block = (char*)address - ALIGNMENT;
  allocated -= *(size_t*)block;
  free(block);
  return SUCCESS;
}
int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
  *total = (size_t)setting("FAKE_MEMORY", 1 << 20);
  *free_bytes = *total - allocated;
  return lost;
}
int cuMemHostAlloc(void** memory, size_t bytes, unsigned flags) {
  (void)flags;
  *memory = malloc(bytes);
  pinned = *memory;
  pinned_bytes = bytes;
  return lost;
}
int cuMemFreeHost(void* memory) {
  free(memory);
  return lost;
}

// A copy, done at once or, while a graph is captured, whenever the graph is launched.
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};
static struct Copy graph[16];
static int recorded = 0, capturing = 0;
// Copies from page-locked memory, which the driver reads when it comes to them: here, when somebody waits.
static struct Copy pending[64];
static int waiting = 0;

static void catch_up(void) {
  for (int i = 0; i < waiting && !lost; i++) memcpy(pending[i].to, pending[i].from, pending[i].bytes);
  waiting = 0;
}

int cuStreamSynchronize(void* stream) {
  (void)stream;
  catch_up();
  return lost;
}

static int copy(void* to, const void* from, size_t bytes) {
  catch_up();
  if (capturing) {
    graph[recorded++] = (struct Copy){to, from, bytes};
  } else if (!lost) {
    memcpy(to, from, bytes);
  }
  return lost;
}

int cuStreamBeginCapture_v2(void* stream, int mode) {
  (void)stream, (void)mode;
  recorded = 0;
  capturing = 1;
  return lost;
}
int cuStreamEndCapture(void* stream, void** captured) {
  (void)stream;
  if (!capturing) return INVALID_VALUE;
  capturing = 0;
  *captured = graph;
  return lost;
}
int cuGraphInstantiateWithFlags(void** executable, void* captured, unsigned long long flags) {
  *executable = captured;
  return flags ? INVALID_VALUE : lost;
}
int cuGraphUpload(void* executable, void* stream) {
  (void)executable, (void)stream;
  return lost;
}
int cuGraphLaunch(void* executable, void* stream) {
  (void)executable, (void)stream;
  for (int i = 0; i < recorded; i++) copy(graph[i].to, graph[i].from, graph[i].bytes);
  return lost;
}
int cuGraphExecDestroy(void* executable) {
  (void)executable;
  return current ? lost : INVALID_CONTEXT;
}
int cuGraphDestroy(void* captured) {
  (void)captured;
  return current ? lost : INVALID_CONTEXT;
}

int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void* stream) {
  (void)stream;
  const char* start = from;
  if (start < pinned || start >= pinned + pinned_bytes || waiting == 64) return copy((void*)to, from, bytes);
  pending[waiting++] = (struct Copy){(void*)to, from, bytes};
  return lost;
}
int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* stream) {
  (void)stream;
  return copy(to, (const void*)from, bytes);
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void* stream) {
  (void)stream;
  return copy((void*)to, (const void*)from, bytes);
}

// As CUlaunchConfig and CUlaunchAttribute of cuda.h.
struct Attribute {
  unsigned id;
  char pad[4];
  union {
    char bytes[64];
    unsigned cluster[3];
    int yes;
  } value;
};
struct Launch {
  unsigned grid[3], block[3], shared;
  void* stream;
  struct Attribute* attributes;
  unsigned count;
};
enum { COOPERATIVE = 2, CLUSTER_DIMENSION = 4, PROGRAMMATIC_STREAM_SERIALIZATION = 6 };

// Blocks of a multiprocessor by shared memory alone.
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int threads, size_t shared) {
  (void)function;
  *blocks = threads > 1024 ? 0 : (int)(SHARED_MOST / (shared + 1024));
  return lost;
}
int cuOccupancyMaxActiveClusters(int* clusters, void* function, const struct Launch* launch) {
  (void)function;
  if (launch->count != 1 || launch->attributes[0].id != CLUSTER_DIMENSION) return INVALID_VALUE;
  *clusters = 132 / (int)launch->attributes[0].value.cluster[0];
  return lost;
}

int cuLaunchKernelEx(const struct Launch* launch, void* function, void** arguments, void** extra) {
  (void)function;
  const unsigned *grid = launch->grid, *block = launch->block;
  if (!grid[0] || !grid[1] || !grid[2] || !block[0] || block[1] != 1 || block[2] != 1 || extra) return INVALID_VALUE;
  if ((int)launch->shared > (shared_limit ? shared_limit : SHARED_LIMIT - declared())) return INVALID_VALUE;
  unsigned cluster = 1, cooperative = 0, programmatic = 0;
  for (unsigned i = 0; i < launch->count; i++) {
    const struct Attribute* attribute = &launch->attributes[i];
    const unsigned* size = attribute->value.cluster;
    if (attribute->id == CLUSTER_DIMENSION && size[0] && size[1] == 1 && size[2] == 1) {
      cluster = size[0];
    } else if (attribute->id == PROGRAMMATIC_STREAM_SERIALIZATION && setting("FAKE_CAPABILITY", 90) >= 90) {
      programmatic = (unsigned)attribute->value.yes;
    } else if (attribute->id == COOPERATIVE && attribute->value.yes == 1) {
      if (grid[0] * grid[1] * grid[2] > 132) return LAUNCH_TOO_LARGE;
      cooperative = 1;
    } else {
      return INVALID_VALUE;
    }
  }
  if (grid[0] % cluster || cluster > (large_clusters ? 16 : 8)) return INVALID_CLUSTER_SIZE;
  unsigned rows = *(unsigned*)arguments[2];
  if (rows == FAULT) lost = ILLEGAL_ADDRESS;
  if (rows == TELL) {
    static unsigned told[64][8];
    static int tellings = 0;
    unsigned shape[8] = {grid[0],        grid[1], grid[2],     block[0],
                         launch->shared, cluster, cooperative, programmatic};
    memcpy(told[tellings], shape, sizeof shape);
    return copy(*(void**)arguments[1], told[tellings++ % 64], sizeof shape);
  }
  return copy(*(void**)arguments[1], *(void**)arguments[0], (size_t)rows * 16);
}

// Leaves what it is told in the map, as words: type, dimensions, address, swizzle, then sizes, strides and sides.
int cuTensorMapEncodeTiled(unsigned long long* map, unsigned type, unsigned rank, void* address,
                           const unsigned long long* sizes, const unsigned long long* strides, const unsigned* sides,
                           const unsigned* element_strides, unsigned interleave, unsigned swizzle, unsigned promotion,
                           unsigned fill) {
  // Bytes of an element by its type, and of the rows that a swizzle takes.
  static const unsigned bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2}, most[] = {~0u, 32, 64, 128};
  if ((size_t)map % 64 || (size_t)address % 16 || interleave || fill || promotion > 3) return INVALID_VALUE;
  if (rank - 1 > 4 || type > 9 || swizzle > 3) return INVALID_VALUE;
  if (sides[0] * bytes[type] % 16 || sides[0] * bytes[type] > most[swizzle]) return INVALID_VALUE;
  unsigned long long* word = map;
  *word++ = type, *word++ = rank, *word++ = (size_t)address, *word++ = swizzle;
  for (unsigned i = 0; i < rank; i++) {
    if (sizes[i] == 0 || sides[i] - 1 > 255 || element_strides[i] != 1) return INVALID_VALUE;
    *word++ = sizes[i];
  }
  for (unsigned i = 0; i + 1 < rank; i++) {
    if (strides[i] % 16 || strides[i] >> 40) return INVALID_VALUE;
    *word++ = strides[i];
  }
  for (unsigned i = 0; i < rank; i++) *word++ = sides[i];
  return lost;
}

// Time passes by a millisecond from event to event.
int cuEventCreate(void** event, unsigned flags) {
  *event = calloc(1, sizeof(int));
  return flags ? INVALID_VALUE : lost;
}
int cuEventRecord(void* event, void* stream) {
  static int now = 0;
  (void)stream;
  *(int*)event = ++now;
  return lost;
}
int cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
  *milliseconds = (float)(*(int*)end - *(int*)start);
  return lost;
}
int cuEventDestroy_v2(void* event) {
  free(event);
  return lost;
}

int cuGetErrorName(int error, const char** name) {
  *name = error == ILLEGAL_ADDRESS        ? "ILLEGAL_ADDRESS"
          : error == INVALID_VALUE        ? "INVALID_VALUE"
          : error == LAUNCH_TOO_LARGE     ? "COOPERATIVE_LAUNCH_TOO_LARGE"
          : error == INVALID_CLUSTER_SIZE ? "INVALID_CLUSTER_SIZE"
                                          : "OTHER";
  return SUCCESS;
}
int cuGetErrorString(int error, const char** text) {
  (void)error;
  *text = "as asked";
  return SUCCESS;
}
