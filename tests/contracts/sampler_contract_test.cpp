#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "aggregator/sampler/sampler.h"
#include "tests/contracts/variants.h"

namespace fl {
namespace {

using nlohmann::json;

class SamplerContract : public testing::TestWithParam<json> {
 protected:
  std::vector<ClientId> pick_of(const Roster& roster, double expected, std::uint32_t round) const {
    Rng rng(1, Purpose::sampling, round);
    return sampler_->pick(roster, expected, round, rng);
  }
  std::vector<ClientId> pick(std::uint64_t population, double expected, std::uint32_t round) const {
    return pick_of(Roster{population, {}}, expected, round);
  }
  /// Everyone who is asked in as many rounds as lie between two turns of a client.
  std::vector<ClientId> pick_in_all_turns(std::uint64_t population, double expected) const {
    std::vector<ClientId> all;
    for (std::uint32_t round = 1; round <= sampler_->separation(); ++round) {
      const auto cohort = pick(population, expected, round);
      all.insert(all.end(), cohort.begin(), cohort.end());
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  std::unique_ptr<Sampler> sampler_ = samplers().create(GetParam(), "sampler");
};

TEST_P(SamplerContract, PicksDistinctClientsInOrderAndInRange) {
  for (const std::uint64_t population : {1U, 2U, 10U, 1000U}) {
    for (const double expected : {0.0, 0.3, 1.0, 2.0, 9.0, 10.0, 11.0, 500.0, 999.0, 999.7, 2000.0}) {
      for (std::uint32_t round = 0; round < 20; ++round) {
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
  EXPECT_THAT(pick_in_all_turns(4, 4), testing::ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(pick_in_all_turns(3, 100), testing::ElementsAre(0, 1, 2));
}

TEST_P(SamplerContract, PicksFromTheIdsOfTheRoster) {
  const Roster roster{6, {2, 3, 50, 51, 1000, 1001}};
  std::vector<ClientId> seen;
  for (std::uint32_t round = 1; round <= 200; ++round) {
    const auto cohort = pick_of(roster, 2, round);
    ASSERT_TRUE(std::includes(roster.ids.begin(), roster.ids.end(), cohort.begin(), cohort.end()));
    std::vector<ClientId> all;
    std::set_union(seen.begin(), seen.end(), cohort.begin(), cohort.end(), std::back_inserter(all));
    seen = all;
  }
  EXPECT_EQ(seen, roster.ids);
}

TEST_P(SamplerContract, KeepsItsSeparation) {
  std::map<ClientId, std::uint32_t> last;
  for (std::uint32_t round = 1; round <= 100; ++round) {
    for (const ClientId client : pick(20, 5, round)) {
      if (last.count(client) != 0) {
        ASSERT_GE(round - last[client], sampler_->separation());
      }
      last[client] = round;
    }
  }
}

TEST_P(SamplerContract, PicksNobodyWhenNobodyIsWanted) { EXPECT_TRUE(pick(100, 0, 1).empty()); }

TEST_P(SamplerContract, PicksEveryClientEquallyOften) {
  // In one turn in `separation` it is Binomial with p = min(1, expected / (population / separation)), else it is not asked.
  constexpr std::uint32_t kRounds = 4000;
  const auto turns = static_cast<double>(sampler_->separation());
  for (const auto& [population, expected] : {std::pair<std::uint64_t, double>{20, 1}, {20, 5}, {20, 19}}) {
    std::vector<double> counts(population);
    for (std::uint32_t round = 0; round < kRounds; ++round) {
      for (const ClientId client : pick(population, expected, round)) ++counts[client];
    }
    const double p = std::min(1.0, expected * turns / static_cast<double>(population)) / turns;
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
  for (std::uint32_t round = 0; round < 100; ++round) {
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
