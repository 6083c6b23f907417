#include <benchmark/benchmark.h>

namespace fl {
/// Defined in registry_benchmark.cpp; called once the registries are filled.
void register_component_benchmarks();
}  // namespace fl

int main(int argc, char** argv) {
  fl::register_component_benchmarks();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
