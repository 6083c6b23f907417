#include <benchmark/benchmark.h>

#include "benchmarks/micro/random_floats.h"
#include "fl_core/params/kernels.h"

namespace fl {
namespace {

/// Times `action` over `size` floats; `bytes_each` is what one of them moves to and from memory.
template <class Action>
void measure(benchmark::State& state, std::int64_t bytes_each, Action action) {
  for (auto _ : state) {
    action();
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(bytes_each * state.range(0) * state.iterations());
  state.SetItemsProcessed(state.range(0) * state.iterations());
  state.SetLabel(std::string(kernels::instruction_set()));
}

struct Arrays {
  explicit Arrays(const benchmark::State& state)
      : x(random_floats(static_cast<std::size_t>(state.range(0)), 1)),
        y(random_floats(x.size(), 2)),
        moment(x.size()),
        halves(x.size()) {}
  AlignedArray<float> x;
  AlignedArray<float> y;
  AlignedArray<float> moment;
  AlignedArray<std::uint16_t> halves;
};

void Axpy(benchmark::State& state) {
  Arrays arrays(state);
  measure(state, 12, [&] { kernels::axpy(1e-6F, arrays.x.span(), arrays.y.span()); });
}

void Subtract(benchmark::State& state) {
  Arrays arrays(state);
  measure(state, 12, [&] { kernels::subtract(arrays.x.span(), arrays.y.span(), arrays.moment.span()); });
}

void SquaredNorm(benchmark::State& state) {
  Arrays arrays(state);
  measure(state, 4, [&] { benchmark::DoNotOptimize(kernels::squared_norm(arrays.x.span())); });
}

void AllFinite(benchmark::State& state) {
  Arrays arrays(state);
  measure(state, 4, [&] { benchmark::DoNotOptimize(kernels::all_finite(arrays.x.span())); });
}

void SgdPlain(benchmark::State& state) {
  Arrays arrays(state);
  kernels::SgdStep step;
  step.rate = 1e-6F;
  measure(state, 12, [&] { kernels::sgd(step, arrays.y.span(), arrays.x.span(), {}); });
}

void SgdMomentum(benchmark::State& state) {
  Arrays arrays(state);
  kernels::SgdStep step;
  step.rate = 1e-6F;
  step.momentum = 0.9F;
  step.weight_decay = 1e-4F;
  measure(state, 20, [&] { kernels::sgd(step, arrays.y.span(), arrays.x.span(), arrays.moment.span()); });
}

void ToFp16(benchmark::State& state) {
  Arrays arrays(state);
  measure(state, 6, [&] { kernels::to_fp16(arrays.x.span(), arrays.halves.span()); });
}

void FromFp16(benchmark::State& state) {
  Arrays arrays(state);
  kernels::to_fp16(arrays.x.span(), arrays.halves.span());
  measure(state, 6, [&] { kernels::from_fp16(arrays.halves.span(), arrays.y.span()); });
}

BENCHMARK(Axpy)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(Subtract)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(SquaredNorm)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(AllFinite)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(SgdPlain)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(SgdMomentum)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(ToFp16)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(FromFp16)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);

}  // namespace
}  // namespace fl
