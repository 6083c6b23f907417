#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "aggregator/sampler/sampler.h"
#include "tests/contracts/variants.h"

namespace fl {
namespace {

using nlohmann::json;

class SamplerContract : public testing::TestWithParam<json> {
 protected:
  std::vector<ClientId> pick(std::uint64_t population, std::uint64_t expected, std::uint64_t round) const {
    Rng rng(1, Purpose::sampling, round);
    return sampler_->pick(population, expected, rng);
  }
  std::unique_ptr<Sampler> sampler_ = samplers().create(GetParam(), "sampler");
};

TEST_P(SamplerContract, PicksDistinctClientsInOrderAndInRange) {
  for (const std::uint64_t population : {1U, 2U, 10U, 1000U}) {
    for (const std::uint64_t expected : {0U, 1U, 2U, 9U, 10U, 11U, 500U, 999U, 2000U}) {
      for (std::uint64_t round = 0; round < 20; ++round) {
        const auto cohort = pick(population, expected, round);
        ASSERT_TRUE(std::adjacent_find(cohort.begin(), cohort.end(), std::greater_equal<>()) == cohort.end())
            << "not ascending: " << testing::PrintToString(cohort);
        ASSERT_TRUE(cohort.empty() || cohort.back() < population);
        ASSERT_LE(cohort.size(), sampler_->max_cohort(population, expected));
        ASSERT_LE(sampler_->max_cohort(population, expected), population);
      }
    }
  }
}

TEST_P(SamplerContract, PicksEverybodyWhenMoreAreWantedThanThereAre) {
  EXPECT_THAT(pick(4, 4, 1), testing::ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(pick(3, 100, 1), testing::ElementsAre(0, 1, 2));
}

TEST_P(SamplerContract, PicksNobodyWhenNobodyIsWanted) { EXPECT_TRUE(pick(100, 0, 1).empty()); }

TEST_P(SamplerContract, PicksEveryClientEquallyOften) {
  // Each client's count over n rounds is Binomial(n, p) with p = expected / population.
  constexpr std::uint64_t kRounds = 4000;
  for (const auto& [population, expected] : {std::pair<std::uint64_t, std::uint64_t>{20, 1}, {20, 5}, {20, 19}}) {
    std::vector<double> counts(population);
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      for (const ClientId client : pick(population, expected, round)) ++counts[client];
    }
    const double p = static_cast<double>(expected) / static_cast<double>(population);
    const double tolerance = 5 * std::sqrt(kRounds * p * (1 - p));
    for (std::uint64_t client = 0; client < population; ++client) {
      EXPECT_NEAR(counts[client], kRounds * p, tolerance)
          << "client " << client << ", " << expected << " of " << population;
    }
  }
}

TEST_P(SamplerContract, IsDrawnFromTheKeyedGeneratorAlone) {
  EXPECT_EQ(pick(1'000'000, 50, 7), pick(1'000'000, 50, 7));
  EXPECT_NE(pick(1'000'000, 50, 7), pick(1'000'000, 50, 8));
}

TEST_P(SamplerContract, CostsNothingForClientsItDoesNotPick) {
  // A list of 10^15 clients would not fit into any memory.
  constexpr std::uint64_t kPopulation = 1'000'000'000'000'000;
  double sum = 0;
  std::uint64_t picked = 0;
  for (std::uint64_t round = 0; round < 100; ++round) {
    for (const ClientId client : pick(kPopulation, 20, round)) {
      sum += static_cast<double>(client) / static_cast<double>(kPopulation);
      ++picked;
    }
  }
  // Uniform on [0, 1): mean 1/2, variance 1/12 each.
  ASSERT_GT(picked, 1000U);
  EXPECT_NEAR(sum / static_cast<double>(picked), 0.5, 5 * std::sqrt(1.0 / 12 / static_cast<double>(picked)));
}

INSTANTIATE_TEST_SUITE_P(All, SamplerContract, testing::ValuesIn(test::variants(samplers())),
                         [](const auto& variant) { return test::variant_name(variant.param); });

}  // namespace
}  // namespace fl
