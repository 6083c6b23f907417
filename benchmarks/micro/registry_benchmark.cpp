// Every registered codec and optimizer, with its default options: a new component is measured without an edit here.
#include <benchmark/benchmark.h>

#include <nlohmann/json.hpp>
#include <string>

#include "benchmarks/micro/random_floats.h"
#include "fl_core/codec/codec.h"
#include "fl_core/optim/optimizer.h"

namespace fl {
namespace {

nlohmann::json named(const std::string& name) { return {{"name", name}}; }

/// Bytes of floats in (not of the encoding out), so that codecs compare; `ratio` is encoded bytes over 4 a float.
void count(benchmark::State& state, std::int64_t bytes_each) {
  state.SetBytesProcessed(bytes_each * state.range(0) * state.iterations());
  state.SetItemsProcessed(state.range(0) * state.iterations());
}

void encode(benchmark::State& state, const std::string& name) {
  const auto codec = codecs().create(named(name), "codec");
  const AlignedArray<float> values = random_floats(static_cast<std::size_t>(state.range(0)));
  Rng rng(1, Purpose::codec);
  std::size_t encoded = 0;
  for (auto _ : state) {
    const Bytes bytes = codec->encode(values.span(), rng);
    encoded = bytes.size();
    benchmark::DoNotOptimize(bytes.data());
  }
  count(state, 4);
  state.counters["ratio"] = static_cast<double>(encoded) / (4.0 * static_cast<double>(values.size()));
}

void decode(benchmark::State& state, const std::string& name) {
  const auto codec = codecs().create(named(name), "codec");
  AlignedArray<float> values = random_floats(static_cast<std::size_t>(state.range(0)));
  Rng rng(1, Purpose::codec);
  const Bytes bytes = codec->encode(values.span(), rng);
  for (auto _ : state) {
    codec->decode(bytes.span(), values.span());
    benchmark::ClobberMemory();
  }
  count(state, 4);
}

/// Weights and gradient read, weights written (12 bytes), and each moment read and written (8).
void optimize(benchmark::State& state, const std::string& name) {
  const auto optimizer = optimizers().create(named(name), "optimizer");
  AlignedArray<float> weights = random_floats(static_cast<std::size_t>(state.range(0)), 1);
  const AlignedArray<float> gradient = random_floats(weights.size(), 2);
  optimizer->prepare(weights.size());
  for (auto _ : state) {
    optimizer->step(1e-6, weights.span(), gradient.span());
    benchmark::ClobberMemory();
  }
  count(state, 12 + 8 * static_cast<std::int64_t>(optimizer->moments().size()));
}

template <class Body>
void add(const std::string& title, const std::string& name, Body body) {
  const auto run = [name, body](benchmark::State& state) { body(state, name); };
  benchmark::RegisterBenchmark((title + "/" + name).c_str(), run)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
}

}  // namespace

void register_component_benchmarks() {
  for (const std::string& name : codecs().names()) {
    add("Encode", name, encode);
    add("Decode", name, decode);
  }
  for (const std::string& name : optimizers().names()) add("Optimizer", name, optimize);
}

}  // namespace fl
