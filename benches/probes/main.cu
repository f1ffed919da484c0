// probe --list       the names of the probes
// probe NAME         what one of them finds on the first GPU, as a JSON array on standard output
//
// A probe measures what one mechanism of the card costs: which form of the decoder pays depends on these. Each first
// checks that the mechanism did what it is timed at. A probe that cannot run says why on standard error and ends with 1.

#include <cstring>
#include <exception>

#include "probe.h"

namespace {

constexpr probes::Probe PROBES[] = {
    {"grid_barriers", probes::grid_barriers},   {"cluster_barriers", probes::cluster_barriers},
    {"memory_reads", probes::memory_reads},     {"cluster_reads", probes::cluster_reads},
    {"graph_nodes", probes::graph_nodes},       {"resident_clusters", probes::resident_clusters},
};

int run(const probes::Probe& probe) {
  try {
    CHECK(cudaSetDevice(0));
    auto figures = probe.run();
    std::printf("[");
    for (size_t i = 0; i < figures.size(); i++) std::printf("%s%s", i ? ",\n" : "", probes::json(figures[i]).c_str());
    std::printf("]\n");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", probe.name, error.what());
    return 1;
  }
}

}  // namespace

int main(int count, char** arguments) {
  const char* name = count == 2 ? arguments[1] : "";
  for (const auto& probe : PROBES) {
    if (!std::strcmp(name, "--list")) std::puts(probe.name);
    if (!std::strcmp(name, probe.name)) return run(probe);
  }
  if (!std::strcmp(name, "--list")) return 0;
  std::fprintf(stderr, "usage: probe --list | probe NAME\n");
  return 2;
}
