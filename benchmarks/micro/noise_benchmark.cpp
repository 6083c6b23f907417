#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "privacy/noise/grid_gaussian.h"
#include "privacy/noise/integer_noise.h"
#include "privacy/noise/random_bits.h"

namespace fl {
namespace {

/// Draws an update of state.range(0) parameters again and again.
template <class Noise>
void measure(benchmark::State& state, const Noise& noise) {
  RandomBits bits(NoiseKey{});
  std::vector<std::int64_t> draws(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    noise.fill(bits, draws);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.range(0) * state.iterations());
  state.SetBytesProcessed(8 * state.range(0) * state.iterations());
}

void NoiseBits(benchmark::State& state) {
  RandomBits bits(NoiseKey{});
  std::vector<std::uint64_t> words(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    bits.fill(words);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(8 * state.range(0) * state.iterations());
}

void NoiseGridGaussian(benchmark::State& state) { measure(state, GridGaussian(1.1, -32)); }
void NoiseDiscreteGaussian(benchmark::State& state) { measure(state, DiscreteGaussian(100.0 * 100.0)); }
/// 2^20 and less come from a table, more from cells.
void NoiseSkellamTable(benchmark::State& state) { measure(state, Skellam(100.0 * 100.0)); }
void NoiseSkellamCells(benchmark::State& state) { measure(state, Skellam(0x1p30)); }

/// Noise on the floats of an update, on the finest grid.
void NoiseAddGaussian(benchmark::State& state) {
  RandomBits bits(NoiseKey{});
  const GridGaussian noise(1.1, GridGaussian::float_grid(1.1));
  std::vector<float> values(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    add_gaussian(noise, bits, values);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.range(0) * state.iterations());
  state.SetBytesProcessed(4 * state.range(0) * state.iterations());
}

/// A new standard deviation, as an adaptive clip asks for in every round.
void NoiseGridGaussianSetup(benchmark::State& state) {
  double stddev = 1.1;
  for (auto _ : state) benchmark::DoNotOptimize(GridGaussian(stddev += 1e-6, -32));
  state.SetItemsProcessed(state.iterations());
}

BENCHMARK(NoiseBits)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(NoiseGridGaussian)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(NoiseDiscreteGaussian)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(NoiseSkellamTable)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(NoiseSkellamCells)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(NoiseAddGaussian)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(NoiseGridGaussianSetup);

}  // namespace
}  // namespace fl
