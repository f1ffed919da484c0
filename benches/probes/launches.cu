// What a node of a graph costs, in a chain of small kernels of which each needs the one before: with plain edges, and
// with programmatic dependent launch, where a kernel is launched while the one before still runs and waits by itself.
//
// Each kernel adds 1 to a counter that the one before has written, so a node that runs early loses a count. The cost of
// a node is the difference between graphs of many and of few nodes.

#include "probe.h"

namespace probes {
namespace {

constexpr int FEW = 100;
// As many as a request of the model takes.
constexpr int MANY = 780;

// count [1]. The next kernel may be launched at once; this one waits for what the one before has written.
__global__ void node(unsigned* count) {
  cudaTriggerProgrammaticLaunchCompletion();
  cudaGridDependencySynchronize();
  if (blockIdx.x == 0 && threadIdx.x == 0) *count += 1;
}

// A chain of `nodes` kernels as one graph.
class Chain {
 public:
  Chain(cudaStream_t stream, int nodes, int blocks, int threads, bool programmatic, unsigned* count) {
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = threads;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = programmatic ? 1 : 0;
    cudaGraph_t graph;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < nodes; i++) CHECK(cudaLaunchKernelEx(&config, node, count));
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&graph_, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaGraphUpload(graph_, stream));
  }
  ~Chain() { cudaGraphExecDestroy(graph_); }
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  void launch(cudaStream_t stream) const { CHECK(cudaGraphLaunch(graph_, stream)); }

 private:
  cudaGraphExec_t graph_;
};

Figure graph_node(const char* what, int blocks, int threads, bool programmatic) {
  Timer timer;
  Memory<unsigned> count(1);
  count.zero();
  Chain few(timer.stream(), FEW, blocks, threads, programmatic, count.data());
  Chain many(timer.stream(), MANY, blocks, threads, programmatic, count.data());
  auto nodes = [&](int length) { (length == FEW ? few : many).launch(timer.stream()); };
  auto costs = timer.per_step(nodes, FEW, MANY);
  require(count.download()[0] == (FEW + MANY) * (SAMPLES + WARM_UP), std::string(what) + ": a node ran too early");
  return {what, "us", costs, {{"nodes", MANY}, {"blocks", double(blocks)}, {"threads", double(threads)}}};
}

}  // namespace

std::vector<Figure> graph_nodes() {
  int all = multiprocessors();
  return {
      graph_node("graph node, one block", 1, 128, false),
      graph_node("graph node, one block, programmatic", 1, 128, true),
      graph_node("graph node, a block for each multiprocessor", all, 128, false),
      graph_node("graph node, a block for each multiprocessor, programmatic", all, 128, true),
  };
}

}  // namespace probes
