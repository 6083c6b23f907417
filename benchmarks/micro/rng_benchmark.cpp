#include <benchmark/benchmark.h>

#include <numeric>
#include <vector>

#include "fl_core/base/rng.h"

namespace fl {
namespace {

/// Times one draw; `bytes` is what it takes from the key stream at least.
template <class Draw>
void measure(benchmark::State& state, std::int64_t bytes, Draw draw) {
  Rng rng(1, Purpose::synthetic_data);
  for (auto _ : state) benchmark::DoNotOptimize(draw(rng));
  state.SetBytesProcessed(bytes * state.iterations());
  state.SetItemsProcessed(state.iterations());
}

void RngU64(benchmark::State& state) {
  measure(state, 8, [](Rng& rng) { return rng.next_u64(); });
}

void RngBelow(benchmark::State& state) {
  measure(state, 4, [](Rng& rng) { return rng.below(60'000); });
}

void RngNormal(benchmark::State& state) {
  measure(state, 16, [](Rng& rng) { return rng.normal(); });
}

void RngGamma(benchmark::State& state) {
  measure(state, 24, [](Rng& rng) { return rng.gamma(0.5); });
}

/// A shard of `size` examples, as a client shuffles it before every epoch.
void RngShuffle(benchmark::State& state) {
  std::vector<std::uint32_t> examples(static_cast<std::size_t>(state.range(0)));
  std::iota(examples.begin(), examples.end(), 0U);
  Rng rng(1, Purpose::shuffle);
  for (auto _ : state) {
    rng.shuffle(examples);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(4 * state.range(0) * state.iterations());
  state.SetItemsProcessed(state.range(0) * state.iterations());
}

BENCHMARK(RngU64);
BENCHMARK(RngBelow);
BENCHMARK(RngNormal);
BENCHMARK(RngGamma);
BENCHMARK(RngShuffle)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);

}  // namespace
}  // namespace fl
