// The mean of updates that lie in memory, by the exact sum: what benchmarks/compare sets beside Flower's aggregation functions.
//   aggregate_scenario [--parameters N] [--clients N] [--rounds N] [--json]
// One thread. Prints the best repetition: wall and CPU seconds, parameters x clients a second.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "benchmarks/micro/random_floats.h"
#include "benchmarks/scenarios/stopwatch.h"
#include "fl_core/base/error.h"
#include "fl_core/base/memory.h"
#include "fl_core/params/exact_sum.h"

namespace {

/// The best of `rounds` means of all updates, which weigh alike.
Seconds best_mean(const std::vector<fl::AlignedArray<float>>& updates, std::int64_t rounds) {
  fl::ExactSum sum(updates.front().size(), updates.size());
  fl::AlignedArray<float> mean(sum.size());
  std::vector<fl::ExactTerm> terms;
  for (const fl::AlignedArray<float>& update : updates) terms.push_back({update.span(), 1});
  std::vector<fl::ExactSumError> errors(terms.size());
  Seconds best;
  for (std::int64_t round = 0; round < rounds; ++round) {
    best.keep_best(measure([&] {
      sum.add_all(terms, errors);
      FL_CHECK(sum.terms() == terms.size(), "an update was refused");
      sum.take_mean(mean.span());
    }));
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("The exact mean of updates that lie in memory, on one thread");
  std::int64_t parameters = 1'000'000;
  std::int64_t clients = 50;
  std::int64_t rounds = 5;
  bool json = false;
  app.add_option("--parameters", parameters, "Floats in an update")->check(CLI::Range(1, 1'000'000'000));
  app.add_option("--clients", clients, "Updates")->check(CLI::Range(1, 10'000));
  app.add_option("--rounds", rounds, "Repetitions; the best counts")->check(CLI::Range(1, 10'000));
  app.add_flag("--json", json, "One JSON object");
  CLI11_PARSE(app, argc, argv);
  std::vector<fl::AlignedArray<float>> updates;
  for (std::int64_t i = 0; i < clients; ++i) updates.push_back(fl::random_floats(static_cast<std::size_t>(parameters), static_cast<std::uint64_t>(i)));
  const Seconds best = best_mean(updates, rounds);
  const double rate = static_cast<double>(parameters) * static_cast<double>(clients) / best.wall;
  if (json) {
    const nlohmann::json out = {{"parameters", parameters}, {"clients", clients}, {"wall_s", best.wall}, {"cpu_s", best.cpu},
                                {"parameters_per_s", rate}, {"peak_rss", fl::peak_rss_bytes()}};
    std::printf("%s\n", out.dump().c_str());
  } else {
    std::printf("%lld updates of %lld parameters: %.6f s wall, %.6f s CPU, %.2f G parameters/s\n", static_cast<long long>(clients),
                static_cast<long long>(parameters), best.wall, best.cpu, rate / 1e9);
  }
  return 0;
}
