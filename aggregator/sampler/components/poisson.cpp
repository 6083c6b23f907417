#include <cmath>
#include <numeric>

#include "aggregator/sampler/sampler.h"

namespace fl {
namespace {

/// Every client takes part independently with the same probability expected / population (everybody when that is 1 or
/// more), so the size of the cohort varies and may be 0. This is the sampling that privacy amplification assumes.
/// The gaps between members are geometric, so time and memory are O(cohort).
class Poisson final : public Sampler {
 public:
  explicit Poisson(const NoOptions&) {}

  std::vector<ClientId> pick(const Roster& roster, double expected, std::uint32_t, Rng& rng) const override {
    std::vector<ClientId> cohort = places(roster.size, expected, rng);
    for (ClientId& member : cohort) member = roster.at(member);
    return cohort;
  }

  /// Bernstein's inequality for a sum of independent 0/1 with mean μ (variance at most μ):
  /// P(size >= μ + t) <= exp(-t² / (2μ + 2t/3)). t solves exponent = L = 65 ln 2, so pick() exceeds the bound with
  /// probability below 2^-64; it then fails its check instead of returning more than the caller has room for.
  std::uint64_t max_cohort(std::uint64_t population, double expected) const override {
    if (expected >= static_cast<double>(population)) return population;
    const double third = 65 * std::log(2.0) / 3;
    const double bound = std::ceil(expected + third + std::sqrt(third * third + 6 * third * expected));
    return bound >= static_cast<double>(population) ? population : static_cast<std::uint64_t>(bound);
  }

 private:
  std::vector<std::uint64_t> places(std::uint64_t population, double expected, Rng& rng) const {
    std::vector<std::uint64_t> cohort;
    if (expected >= static_cast<double>(population)) {
      cohort.resize(population);
      std::iota(cohort.begin(), cohort.end(), std::uint64_t{0});
      return cohort;
    }
    if (expected == 0) return cohort;
    const double log_stay = std::log1p(-expected / static_cast<double>(population));
    std::uint64_t next = 0;
    while (next < population) {
      // P(gap >= k) = (1 - p)^k, by inversion; 1 - uniform() is in (0, 1], so the logarithm is finite.
      const double gap = std::floor(std::log(1.0 - rng.uniform()) / log_stay);
      if (gap >= static_cast<double>(population - next)) break;
      next += static_cast<std::uint64_t>(gap);
      cohort.push_back(next);
      ++next;
    }
    FL_CHECK(cohort.size() <= max_cohort(population, expected),
             "a Poisson cohort beyond its bound: a broken generator");
    return cohort;
  }
};

FL_REGISTER(samplers(), "poisson", Poisson, NoOptions, "every client independently with the same probability");

}  // namespace
}  // namespace fl
