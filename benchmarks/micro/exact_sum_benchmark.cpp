#include <benchmark/benchmark.h>

#include <algorithm>
#include <vector>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "benchmarks/micro/best_rate.h"
#include "benchmarks/micro/random_floats.h"
#include "fl_core/base/buffer.h"
#include "fl_core/base/error.h"
#include "fl_core/params/exact_sum.h"

namespace fl {
namespace {

/// STREAM's triad (McCalpin 1995): a = b + s·c over doubles. STREAM counts three arrays, not the read before a write.
struct TriadArrays {
  /// About as many bytes as `parameters` of an ExactSum (20 each), so that both meet the same caches.
  explicit TriadArrays(std::size_t parameters) : a(parameters * 20 / 24 / 2 * 2 + 2), b(a.size()), c(a.size()) {
    std::fill(b.span().begin(), b.span().end(), 1.0);
    std::fill(c.span().begin(), c.span().end(), 2.0);
  }
  void run() {
    double* __restrict out = a.data();
    const double* x = b.data();
    const double* y = c.data();
    for (std::size_t i = 0; i < a.size(); ++i) out[i] = x[i] + kScale * y[i];
    benchmark::ClobberMemory();
  }
  /// Stores past the caches save the read before the write, so memory serves only what STREAM counts: the faster triad
  /// on arrays beyond the caches, the slower one within.
  void run_streaming() {
#if defined(__SSE2__)
    const __m128d scale = _mm_set1_pd(kScale);
    for (std::size_t i = 0; i < a.size(); i += 2) {
      _mm_stream_pd(a.data() + i, _mm_add_pd(_mm_load_pd(b.data() + i), _mm_mul_pd(scale, _mm_load_pd(c.data() + i))));
    }
    _mm_sfence();
    benchmark::ClobberMemory();
#else
    run();
#endif
  }
  double bytes() const { return 3.0 * sizeof(double) * static_cast<double>(a.size()); }

  static constexpr double kScale = 3.0;
  AlignedArray<double> a;
  AlignedArray<double> b;
  AlignedArray<double> c;
};

void Triad(benchmark::State& state) {
  TriadArrays arrays(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) arrays.run();
  state.SetBytesProcessed(static_cast<std::int64_t>(arrays.bytes()) * state.iterations());
}

void TriadStreaming(benchmark::State& state) {
  TriadArrays arrays(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) arrays.run_streaming();
  state.SetBytesProcessed(static_cast<std::int64_t>(arrays.bytes()) * state.iterations());
}

/// 20 bytes a parameter: the delta read (4), the sum read and written (8 + 8). `of_triad` is the best rate of the add
/// over that of the faster triad, all measured here, one right after the other, on arrays of the same bytes.
void ExactSumAdd(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  const double bytes = 20.0 * static_cast<double>(size);
  const AlignedArray<float> delta = random_floats(size);
  const auto fill = [&](ExactSum& sum) {
    FL_CHECK(sum.add(delta.span(), 600) == ExactSumError::none, "the delta was refused");
    benchmark::ClobberMemory();
  };
  ExactSum sum(size, 1ULL << 32);
  TriadArrays arrays(size);
  const double triad_rate = std::max(best_rate(arrays.bytes(), [&] { arrays.run(); }),
                                     best_rate(arrays.bytes(), [&] { arrays.run_streaming(); }));
  const double add_rate = best_rate(bytes, [&] { fill(sum); });
  for (auto _ : state) fill(sum);
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes) * state.iterations());
  state.SetItemsProcessed(state.range(0) * state.iterations());
  state.counters["of_triad"] = add_rate / triad_rate;
}

/// Eight deltas at once, which pass the sum four at a time: 4 bytes of each delta a parameter, and 16 of the sum. Items are deltas' values.
void ExactSumAddAll(benchmark::State& state) {
  constexpr std::size_t kDeltas = 8;
  const auto size = static_cast<std::size_t>(state.range(0));
  const double bytes = (4.0 * kDeltas + 16) * static_cast<double>(size);
  std::vector<AlignedArray<float>> deltas;
  std::vector<ExactTerm> terms;
  for (std::uint64_t i = 0; i < kDeltas; ++i) {
    deltas.push_back(random_floats(size, i));
    terms.push_back({deltas.back().span(), 600});
  }
  std::vector<ExactSumError> errors(kDeltas);
  ExactSum sum(size, 1ULL << 32);
  const auto fill = [&] {
    sum.add_all(terms, errors);
    FL_CHECK(errors.front() == ExactSumError::none, "a delta was refused");
    benchmark::ClobberMemory();
  };
  TriadArrays arrays(size);
  const double triad_rate = std::max(best_rate(arrays.bytes(), [&] { arrays.run(); }), best_rate(arrays.bytes(), [&] { arrays.run_streaming(); }));
  const double add_rate = best_rate(bytes, fill);
  for (auto _ : state) fill();
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes) * state.iterations());
  state.SetItemsProcessed(static_cast<std::int64_t>(kDeltas) * state.range(0) * state.iterations());
  state.counters["of_triad"] = add_rate / triad_rate;
}

void ExactSumMean(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  const AlignedArray<float> delta = random_floats(size);
  AlignedArray<float> mean(size);
  ExactSum sum(size, 1);
  FL_CHECK(sum.add(delta.span(), 600) == ExactSumError::none, "the delta was refused");
  for (auto _ : state) {
    sum.mean(mean.span());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(12 * state.range(0) * state.iterations());
  state.SetItemsProcessed(state.range(0) * state.iterations());
}

BENCHMARK(Triad)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(TriadStreaming)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(ExactSumAdd)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(ExactSumAddAll)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);
BENCHMARK(ExactSumMean)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);

}  // namespace
}  // namespace fl
