#include "aggregator/sampler/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

namespace fl {
namespace {

std::unique_ptr<Sampler> sampler(const std::string& name) { return samplers().create({{"name", name}}, "sampler"); }

std::vector<ClientId> pick(const Sampler& from, std::uint64_t population, std::uint64_t expected, std::uint64_t round) {
  Rng rng(1, Purpose::sampling, round);
  return from.pick(population, expected, rng);
}

TEST(Uniform, PicksExactlyAsManyAsWanted) {
  const auto uniform = sampler("uniform");
  for (const std::uint64_t expected : {1U, 7U, 99U, 100U}) EXPECT_EQ(pick(*uniform, 100, expected, 1).size(), expected);
  EXPECT_EQ(uniform->max_cohort(100, 7), 7U);
  EXPECT_EQ(uniform->max_cohort(5, 7), 5U);
}

TEST(Uniform, PicksEverySubsetEquallyOften) {
  // C(5, 2) = 10 pairs, 500 expected of each: chi-square with 9 degrees, mean 9 and variance 18.
  constexpr std::uint64_t kRounds = 5000;
  const auto uniform = sampler("uniform");
  std::map<std::vector<ClientId>, double> counts;
  for (std::uint64_t round = 0; round < kRounds; ++round) ++counts[pick(*uniform, 5, 2, round)];
  ASSERT_EQ(counts.size(), 10U);
  double chi_square = 0;
  for (const auto& [pair, count] : counts) chi_square += (count - 500) * (count - 500) / 500;
  EXPECT_LT(chi_square, 9 + 5 * std::sqrt(18.0));
}

TEST(Poisson, DrawsCohortsOfBinomialSize) {
  // Binomial(n, p): mean np, variance np(1-p); the sample variance of N draws has deviation of about variance·√(2/N).
  constexpr int kRounds = 4000;
  constexpr double kMean = 30;
  constexpr double kVariance = 30 * (1 - 30.0 / 200);
  const auto poisson = sampler("poisson");
  double sum = 0;
  double squares = 0;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    const double off = static_cast<double>(pick(*poisson, 200, 30, round).size()) - kMean;
    sum += off;
    squares += off * off;
  }
  EXPECT_NEAR(sum / kRounds, 0, 5 * std::sqrt(kVariance / kRounds));
  EXPECT_NEAR(squares / kRounds, kVariance, 5 * kVariance * std::sqrt(2.0 / kRounds));
}

TEST(Poisson, PicksClientsIndependently) {
  // Two neighbours together with p² = 1/16, like any two; a gap drawn wrongly shows here first.
  constexpr int kRounds = 8000;
  const auto poisson = sampler("poisson");
  std::map<std::pair<ClientId, ClientId>, double> together;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    const auto cohort = pick(*poisson, 8, 2, round);
    for (std::size_t i = 0; i < cohort.size(); ++i) {
      for (std::size_t j = i + 1; j < cohort.size(); ++j) ++together[{cohort[i], cohort[j]}];
    }
  }
  ASSERT_EQ(together.size(), 28U);
  const double p = 1.0 / 16;
  for (const auto& [pair, count] : together) {
    EXPECT_NEAR(count, kRounds * p, 5 * std::sqrt(kRounds * p * (1 - p))) << pair.first << " and " << pair.second;
  }
}

TEST(Poisson, MayPickNobody) {
  // (1 - 1/100)^100 = 0.366 of the rounds are empty.
  constexpr int kRounds = 1000;
  const auto poisson = sampler("poisson");
  int empty = 0;
  for (std::uint64_t round = 0; round < kRounds; ++round) empty += pick(*poisson, 100, 1, round).empty() ? 1 : 0;
  const double p = std::pow(0.99, 100);
  EXPECT_NEAR(empty, kRounds * p, 5 * std::sqrt(kRounds * p * (1 - p)));
}

/// log P(Binomial(n, p) >= k), an upper bound: the first term over 1 minus the ratio of the next to it.
double log_tail(double n, double p, double k) {
  const double log_term =
      std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1) + k * std::log(p) + (n - k) * std::log1p(-p);
  const double ratio = (n - k) / (k + 1) * p / (1 - p);
  return log_term - std::log1p(-ratio);
}

TEST(Poisson, ExceedsItsBoundWithProbabilityBelowTwoToTheMinus64) {
  const auto poisson = sampler("poisson");
  for (const std::uint64_t population : {1'000U, 100'000U, 1'000'000'000U}) {
    for (const std::uint64_t expected : {1U, 10U, 100U, 300U}) {
      const std::uint64_t bound = poisson->max_cohort(population, expected);
      ASSERT_LT(bound, population);
      const auto n = static_cast<double>(population);
      const double exceeded = log_tail(n, static_cast<double>(expected) / n, static_cast<double>(bound + 1));
      EXPECT_LT(exceeded, -64 * std::log(2.0)) << expected << " of " << population << ", bound " << bound;
    }
  }
}

TEST(Poisson, HasABoundThatIsNotWasteful) {
  // Memory and fixed-point bits are planned for it: for 10 000 expected it is within 10 % of them.
  EXPECT_LE(sampler("poisson")->max_cohort(1'000'000, 10'000), 11'000U);
  EXPECT_EQ(sampler("poisson")->max_cohort(20, 15), 20U) << "never more than the population";
}

}  // namespace
}  // namespace fl
