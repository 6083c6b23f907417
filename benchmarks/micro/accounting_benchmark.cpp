#include <benchmark/benchmark.h>

#include "privacy/accounting/pld.h"

namespace fl {
namespace {

std::vector<PrivacyEvent> rounds(std::int64_t count) {
  return {PrivacyEvent::gaussian(0.01, 1, static_cast<std::uint64_t>(count))};
}

/// ε of that many rounds (q 0.01, σ 1, δ 1e-5) with nothing prepared: losses of one round, both directions, and
/// composition.
void PldRounds(benchmark::State& state) {
  double epsilon = 0;
  for (auto _ : state) {
    PldComposer pld(1e-4);
    epsilon = pld.epsilon(rounds(state.range(0)), 1e-5, Adjacency::add_or_remove_one);
  }
  state.counters["epsilon"] = epsilon;
}

/// ε after each of that many rounds, as an engine asks for it. items/s: rounds a second.
void PldEveryRound(benchmark::State& state) {
  double epsilon = 0;
  for (auto _ : state) {
    PldComposer pld(1e-4);
    for (std::int64_t t = 1; t <= state.range(0); ++t) {
      epsilon = pld.epsilon(rounds(t), 1e-5, Adjacency::add_or_remove_one);
    }
  }
  state.SetItemsProcessed(state.range(0) * state.iterations());
  state.counters["epsilon"] = epsilon;
}

BENCHMARK(PldRounds)->Arg(1'000)->Arg(10'000)->Arg(100'000)->Unit(benchmark::kMillisecond);
BENCHMARK(PldEveryRound)->Arg(1'000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace fl
