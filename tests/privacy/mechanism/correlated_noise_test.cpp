#include "privacy/mechanism/correlated_noise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>

#include "privacy/accounting/participation.h"
#include "privacy/noise/seeded/seeded_noise_keys.h"
#include "tests/privacy/mechanism/rig.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using test::mechanism;
using test::released;
using test::setting_for;
using testing::HasSubstr;

using Integers = std::vector<std::int64_t>;

const NoiseKey kRoot = SeededNoiseKeys(1).key(NoisePurpose::correlated, 0, 0);
const SumGrid kTreeGrid = SumGrid::choose(10, 1, 1, 48);
const SumGrid kBandedGrid = SumGrid::choose(10, 1, 1, 36);

/// w_1 … w_rounds.
std::vector<Integers> noise_of(CorrelatedNoise& noise, const SumGrid& grid, std::size_t size, std::uint32_t rounds, std::uint32_t first = 1) {
  std::vector<Integers> all;
  noise.restart(kRoot);
  for (std::uint32_t round = first; round <= rounds; ++round) {
    NoisySum sum(size, grid);
    noise.add(round, sum);
    all.emplace_back(sum.raw().begin(), sum.raw().end());
  }
  return all;
}

TEST(TreeNoise, AddsUpToTheNodesOfThePrefix) {
  // The sum of rounds 1 … t has one node for each bit of t that is set: its variance is that many, whatever t is made of.
  constexpr std::size_t kSize = 50'000;
  TreeNoise tree(1, kTreeGrid);
  const auto noise = noise_of(tree, kTreeGrid, kSize, 16);
  Integers prefix(kSize, 0);
  for (std::uint32_t t = 1; t <= 16; ++t) {
    for (std::size_t i = 0; i < kSize; ++i) prefix[i] += noise[t - 1][i];
    const double nodes = std::popcount(t);
    EXPECT_NEAR(test::rms(prefix) * kTreeGrid.unit() / std::sqrt(nodes), 1, 5 / std::sqrt(2.0 * kSize)) << "t = " << t;
    // What w_t itself has: the node that t completes and those that it replaces.
    EXPECT_NEAR(test::rms(noise[t - 1]) * kTreeGrid.unit() / tree.stddev(t), 1, 5 / std::sqrt(2.0 * kSize)) << "t = " << t;
  }
}

TEST(TreeNoise, SharesANodeBetweenThePrefixesThatItIsIn) {
  // 4 = 100b and 7 = 111b share the node (0, 4], 8 = 1000b is a node of its own, exactly and not only on average.
  constexpr std::size_t kSize = 2000;
  TreeNoise tree(1, kTreeGrid);
  const auto noise = noise_of(tree, kTreeGrid, kSize, 8);
  std::vector<Integers> prefix(9, Integers(kSize, 0));
  for (std::uint32_t t = 1; t <= 8; ++t) {
    for (std::size_t i = 0; i < kSize; ++i) prefix[t][i] = prefix[t - 1][i] + noise[t - 1][i];
  }
  const GridGaussian draw(1, kTreeGrid.exponent());
  const auto node = [&](std::uint64_t level, std::uint64_t index) {
    Integers values(kSize);
    RandomBits bits(derived_key(kRoot, level, index));
    draw.fill(bits, values);
    return values;
  };
  EXPECT_EQ(prefix[4], node(2, 1));
  EXPECT_EQ(prefix[8], node(3, 1));
  const auto last = node(0, 7);
  const auto pair = node(1, 3);
  for (std::size_t i = 0; i < kSize; ++i) ASSERT_EQ(prefix[7][i], prefix[4][i] + pair[i] + last[i]);
}

TEST(BandedNoise, IsTheInverseOfTheFactorTimesIndependentNoise) {
  // Σ c_i w_{t-i} = z_t, but for the rounding of w_t to the sum's grid: half a unit, 2^15 of z's. In exact integers.
  constexpr std::size_t kSize = NoisySum::kBlock + 100;
  constexpr std::uint32_t kBandwidth = 5;
  constexpr std::uint32_t kRounds = 12;
  const auto coefficients = square_root_coefficients(kBandwidth);
  BandedNoise banded(kSize, 1, kBandedGrid, coefficients);
  const auto noise = noise_of(banded, kBandedGrid, kSize, kRounds);
  const GridGaussian draw(1, kBandedGrid.exponent() - 16);
  for (std::uint32_t t = 1; t <= kRounds; ++t) {
    Integers z(kSize);
    RandomBits bits(derived_key(kRoot, 0, t));
    draw.fill(bits, std::span(z).first(NoisySum::kBlock));
    draw.fill(bits, std::span(z).subspan(NoisySum::kBlock));
    for (std::size_t i = 0; i < kSize; ++i) {
      std::int64_t product = 0;
      for (std::uint32_t k = 0; k < kBandwidth && k < t; ++k) {
        product += static_cast<std::int64_t>(std::floor(coefficients[k] * 65536)) * noise[t - 1 - k][i];
      }
      ASSERT_LE(std::abs(product - z[i]), 32768) << "round " << t << ", coordinate " << i;
    }
  }
}

TEST(BandedNoise, HasTheVarianceOfTheFactorsInverse) {
  constexpr std::size_t kSize = 50'000;
  for (const std::uint32_t bandwidth : {1U, 2U, 8U}) {
    BandedNoise banded(kSize, 1, kBandedGrid, square_root_coefficients(bandwidth));
    const auto noise = noise_of(banded, kBandedGrid, kSize, 10);
    Integers prefix(kSize, 0);
    for (std::uint32_t t = 1; t <= 10; ++t) {
      for (std::size_t i = 0; i < kSize; ++i) prefix[i] += noise[t - 1][i];
      EXPECT_NEAR(test::rms(noise[t - 1]) * kBandedGrid.unit() / banded.stddev(t), 1, 5 / std::sqrt(2.0 * kSize)) << "w, round " << t;
      // Up to round `bandwidth` prefix sums of C⁻¹ z are C z, for C is the root of the prefix sums: variance Σ_{i<t} c_i².
      if (t > bandwidth) continue;
      double squares = 0;
      for (const double c : square_root_coefficients(t)) squares += c * c;
      EXPECT_NEAR(test::rms(prefix) * kBandedGrid.unit() / std::sqrt(squares), 1, 5 / std::sqrt(2.0 * kSize)) << "prefix, round " << t;
    }
  }
}

TEST(BandedNoise, StaysBoundedOverManyRounds) {
  // C⁻¹ of a band is an infinite response; it must die down for every bandwidth, or the noise grows without end.
  for (const std::uint32_t bandwidth : {2U, 16U, 32U, 256U}) {
    const BandedNoise banded(1, 1, kBandedGrid, square_root_coefficients(bandwidth));
    EXPECT_LT(banded.stddev(2000), 1.3) << bandwidth;
    EXPECT_NEAR(banded.stddev(4000), banded.stddev(2000), 1e-3) << bandwidth;
  }
}

/// A run's releases with a restart before every round are those of a run without one.
void expect_same_after_restarts(const std::string& name) {
  constexpr std::size_t kSize = 3000;
  SeededNoiseKeys keys(5);
  PrivacySetting setting = setting_for(kSize, 10);
  setting.separation = 4;
  const auto ftrl = mechanism(name);
  const auto straight = ftrl->server(setting, 1, keys);
  nlohmann::json state = straight->state();
  for (std::uint32_t round = 1; round <= 9; ++round) {
    SeededNoiseKeys other_keys(6);
    const auto resumed = ftrl->server(setting, 1, other_keys);
    resumed->set_state(nlohmann::json::parse(state.dump()));
    ASSERT_EQ(released(*resumed, round, kSize), released(*straight, round, kSize)) << name << ", round " << round;
    state = resumed->state();
  }
  EXPECT_EQ(state, straight->state());
}

TEST(CorrelatedServer, GoesOnWithTheSameNoiseAfterARestart) {
  expect_same_after_restarts("dp_ftrl_tree");
  expect_same_after_restarts("dp_ftrl_banded");
}

TEST(CorrelatedServer, ReleasesCutUpdatesWithTheNoiseOfTheRound) {
  constexpr std::size_t kSize = 100;
  for (const std::string name : {"dp_ftrl_tree", "dp_ftrl_banded"}) {
    SeededNoiseKeys keys(5);
    const auto with = mechanism(name)->server(setting_for(kSize, 4), 0.01, keys);
    const auto without = mechanism(name)->server(setting_for(kSize, 4), 0.01, keys);
    std::vector<float> update(kSize, 0.0F);
    update[0] = 30;
    update[1] = 40;
    ASSERT_EQ(with->add(update), ExactSumError::none);
    const auto mean = released(*with, 1, kSize);
    const auto noise = released(*without, 1, kSize);
    EXPECT_NEAR(mean[0] - noise[0], 0.6 / 4, 1e-6) << name;
    EXPECT_NEAR(mean[1] - noise[1], 0.8 / 4, 1e-6) << name;
    EXPECT_EQ(std::vector<float>(mean.begin() + 2, mean.end()), std::vector<float>(noise.begin() + 2, noise.end())) << name;
    EXPECT_TRUE(mechanism(name)->releases_always()) << name;
  }
}

TEST(CorrelatedServer, KeepsTheNoiseOfARoundThatWasSkipped) {
  // A round that is abandoned releases nothing; the noise of the others does not shift.
  constexpr std::size_t kSize = 100;
  for (const std::string name : {"dp_ftrl_tree", "dp_ftrl_banded"}) {
    SeededNoiseKeys keys(5);
    PrivacySetting setting = setting_for(kSize, 4);
    setting.separation = 3;
    const auto all = mechanism(name)->server(setting, 1, keys);
    const auto some = mechanism(name)->server(setting, 1, keys);
    for (std::uint32_t round = 1; round <= 6; ++round) {
      const auto mean = released(*all, round, kSize);
      if (round % 2 == 0) {
        some->discard();
      } else {
        EXPECT_EQ(released(*some, round, kSize), mean) << name << ", round " << round;
      }
    }
  }
}

TEST(CorrelatedServer, RefusesADamagedState) {
  SeededNoiseKeys keys(5);
  const auto server = mechanism("dp_ftrl_tree")->server(setting_for(4, 4), 1, keys);
  const std::string good = server->state().at("root_key");
  EXPECT_EQ(good.size(), 64U);
  for (const nlohmann::json& bad : {nlohmann::json(nullptr), nlohmann::json{{"root_key", 5}}, nlohmann::json{{"root_key", good + "0"}},
                                    nlohmann::json{{"root_key", "g" + good.substr(1)}}}) {
    const std::string error = error_of([&] { server->set_state(bad); });
    EXPECT_THAT(error, HasSubstr("expected {\"root_key\": 64 hexadecimal digits}"));
    EXPECT_THAT(error, testing::Not(HasSubstr(good.substr(1)))) << "the key is a secret";
  }
}

TEST(CorrelatedServer, ShareNoNoiseBetweenRunsWithSecureKeys) {
  SecureNoiseKeys keys;
  for (const std::string name : {"dp_ftrl_tree", "dp_ftrl_banded"}) {
    const auto first = mechanism(name)->server(setting_for(4, 4), 1, keys);
    const auto second = mechanism(name)->server(setting_for(4, 4), 1, keys);
    EXPECT_NE(first->state(), second->state());
    EXPECT_NE(released(*first, 1, 4), released(*second, 1, 4));
  }
}

TEST(DpFtrlTree, CostsOneReleaseOfTheNodesOfPrefixSums) {
  // One participation in 8 rounds, at worst the first: the nodes (0,1], (0,2], (0,4], (0,8], so 4. Rounds 1, 4, 7 of 7: leaves 1 and 7 (4 is even, and
  // in no prefix sum), (0,2] with round 1, (0,4] with two of them: 1 + 1 + 1 + 4 = 7. The whole tree would say 9 (tensorflow/privacy@03035d5d,
  // tree_aggregation_accountant_test.py L163-L177).
  struct Case {
    std::uint32_t separation;
    std::uint32_t steps;
    double squared;
  };
  PrivacySetting setting = setting_for(10, 10);
  for (const Case& c : {Case{8, 8, 4}, Case{3, 7, 7}}) {
    setting.separation = c.separation;
    const auto events = mechanism("dp_ftrl_tree")->events(setting, 2, c.steps);
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].count, 1U);
    EXPECT_EQ(events[0].sampling_rate, 1);
    EXPECT_NEAR(events[0].noise_multiplier, 2 / std::sqrt(c.squared), 1e-12) << c.separation << ", " << c.steps;
  }
  EXPECT_TRUE(mechanism("dp_ftrl_tree")->events(setting, 2, 0).empty());
}

TEST(DpFtrlBanded, CostsTheColumnsOfAClientsRounds) {
  // Bandwidth 2: c = (1, 1/2), so a column has 1.25. Rounds 1, 5, 9 of 10: three of them, apart.
  PrivacySetting setting = setting_for(10, 10);
  setting.separation = 4;
  const auto events = mechanism("dp_ftrl_banded", {{"bandwidth", 2}})->events(setting, 2, 10);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_NEAR(events[0].noise_multiplier, 2 / std::sqrt(3.75), 1e-12);
  // By default as wide as the separation: c = 1, 1/2, 3/8, 5/16; in the first round alone only the first row is there.
  EXPECT_NEAR(mechanism("dp_ftrl_banded")->events(setting, 2, 4)[0].noise_multiplier, 2 / std::sqrt(1 + 0.25 + 9.0 / 64 + 25.0 / 256), 1e-12);
  EXPECT_NEAR(mechanism("dp_ftrl_banded")->events(setting, 2, 1)[0].noise_multiplier, 2, 1e-12);
}

TEST(DpFtrl, ChecksItsGrid) {
  for (const std::string name : {"dp_ftrl_tree", "dp_ftrl_banded"}) {
    const auto check = [&](double z) { return error_of([&] { mechanism(name)->check(setting_for(1'000'000, 1000), z, "p"); }); };
    EXPECT_EQ(check(0), "");
    EXPECT_EQ(check(1), "");
    EXPECT_EQ(check(100), "");
    EXPECT_THAT(check(1e-14), HasSubstr("too small")) << name;
  }
}

}  // namespace
}  // namespace fl
