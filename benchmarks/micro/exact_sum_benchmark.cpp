#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "benchmarks/micro/random_floats.h"
#include "fl_core/base/buffer.h"
#include "fl_core/base/error.h"
#include "fl_core/params/exact_sum.h"

namespace fl {
namespace {

using Clock = std::chrono::steady_clock;

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

/// The best bytes per second that `action`, which moves `bytes`, reaches within a tenth of a second. Small actions are
/// timed several at once, because the clock itself takes tens of nanoseconds.
template <class Action>
double best_rate(double bytes, Action action) {
  const int repeats = static_cast<int>(std::max(1.0, 4e6 / bytes));
  double best = 0;
  const auto start = Clock::now();
  for (int i = 0; i < 5 || Clock::now() - start < std::chrono::milliseconds(100); ++i) {
    const auto before = Clock::now();
    for (int k = 0; k < repeats; ++k) action();
    best = std::max(best, repeats * bytes / std::chrono::duration<double>(Clock::now() - before).count());
  }
  return best;
}

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
BENCHMARK(ExactSumMean)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);

}  // namespace
}  // namespace fl
