#include "privacy/mechanism/integer_update.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "privacy/mechanism/rotation.h"
#include "privacy/noise/seeded/seeded_noise_keys.h"
#include "tests/privacy/mechanism/rig.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using test::mechanism;
using test::random_update;
using test::released;
using test::setting_for;
using testing::HasSubstr;

const std::vector<std::string> kNames{"distributed_discrete_gaussian", "distributed_skellam"};

NoiseKey key(std::uint64_t client) { return SeededNoiseKeys(1).key(NoisePurpose::device, 1, client); }

TEST(RoundedBounds, AreThoseOfTheirPaper) {
  // google-research/federated@5e27a863, distributed_dp/accounting_utils.py: (scale · clip, dimension, β) → L2, L1.
  struct Case {
    double norm;
    std::uint64_t dimension;
    double beta;
    double l2;
    double l1;
  };
  for (const Case& c : {Case{100, 1024, kRoundingBeta, 101.84301645179212, 3258.976526457348},
                        Case{1000, 1024, kRoundingBeta, 1000.6357978805275, 32020.34553217688},
                        Case{100, 4096, kRoundingBeta, 105.62196741208714, 6759.805914373577},
                        Case{20, 1024, kRoundingBeta, 26.30589287593181, 692.0},
                        Case{100, 65536, 0, 356.0, 91136.0}}) {
    EXPECT_NEAR(rounded_l2_bound(c.norm, c.dimension, c.beta), c.l2, 1e-9 * c.l2);
    EXPECT_NEAR(rounded_l1_bound(rounded_l2_bound(c.norm, c.dimension, c.beta), c.dimension), c.l1, 1e-9 * c.l1);
  }
}

TEST(RoundConditionally, RoundsToANeighbourWithoutBias) {
  // 0.25 goes to 1 in a quarter of 100 000 cases; the bound is too wide to matter.
  constexpr std::size_t kSize = 100'000;
  const std::vector<double> values(kSize, -3.75);
  std::vector<std::int64_t> out(kSize);
  RandomBits bits(key(1));
  round_conditionally(values, 1e9, bits, out);
  double ups = 0;
  for (const std::int64_t value : out) {
    ASSERT_TRUE(value == -4 || value == -3);
    ups += value == -3 ? 1 : 0;
  }
  EXPECT_NEAR(ups / kSize, 0.25, 5 * std::sqrt(0.25 * 0.75 / kSize));
}

TEST(RoundConditionally, LeavesWholeNumbers) {
  const std::vector<double> values{0, 5, -7, 1e9};
  std::vector<std::int64_t> out(4);
  RandomBits bits(key(2));
  round_conditionally(values, 2e9, bits, out);
  EXPECT_THAT(out, testing::ElementsAre(0, 5, -7, 1'000'000'000));
}

TEST(RoundConditionally, MeetsItsBoundEveryTime) {
  // Many small coordinates: the expected squared norm is c² + Σ f(1 - f), the bound not far above; about β of all first tries fail it.
  constexpr std::size_t kSize = 256;
  Rng rng(3, Purpose::synthetic_data);
  for (std::uint64_t trial = 0; trial < 500; ++trial) {
    std::vector<double> values(kSize);
    double squares = 0;
    for (double& value : values) {
      value = rng.normal() * 0.5;
      squares += value * value;
    }
    const double bound = rounded_l2_bound(std::sqrt(squares), kSize, kRoundingBeta);
    std::vector<std::int64_t> out(kSize);
    RandomBits bits(key(trial));
    round_conditionally(values, bound, bits, out);
    double rounded = 0;
    double lengths = 0;
    for (const std::int64_t value : out) {
      rounded += static_cast<double>(value * value);
      lengths += static_cast<double>(std::abs(value));
    }
    ASSERT_LE(std::sqrt(rounded), bound);
    ASSERT_LE(lengths, rounded_l1_bound(bound, kSize));
  }
}

TEST(RoundConditionally, TriesAgainUntilTheBoundIsMet) {
  // (0.5, 0.5) with a bound of 1 allows all but (1, 1).
  RandomBits bits(key(4));
  std::vector<std::int64_t> out(2);
  int zeros = 0;
  for (int i = 0; i < 3000; ++i) {
    round_conditionally(std::vector<double>{0.5, 0.5}, 1, bits, out);
    ASSERT_NE(out[0] + out[1], 2);
    zeros += out[0] + out[1] == 0 ? 1 : 0;
  }
  EXPECT_NEAR(zeros / 3000.0, 1.0 / 3, 5 * std::sqrt(2.0 / 9 / 3000));
}

TEST(DistributedPlan, FillsTheModulusToFourStandardDeviations) {
  DistributedOptions options;
  options.clip_norm = 2;
  options.bits = 16;
  PrivacySetting setting = setting_for(1536, 100);
  setting.minimum_cohort = 64;
  const DistributedPlan plan(options, setting, 1.5);
  // The bound of 2102.06387, section 4: 2^b = 2k √(ρ c² n² / d + (γ²/4 + σ²) n) / γ, with γ = 1 / scale and σ = z c / √minimum.
  const double sigma = 1.5 * 2 / std::sqrt(64.0);
  const double gamma = 1 / plan.scale;
  EXPECT_NEAR(2 * 4 * std::sqrt(1.5 * 4 * 1e4 / 1536 + (gamma * gamma / 4 + sigma * sigma) * 100) / gamma, 65536, 1e-6);
  EXPECT_NEAR(plan.local_stddev, sigma * plan.scale, 1e-9);
  EXPECT_NEAR(plan.norm, 2 * plan.scale, 1e-9);
  EXPECT_EQ(plan.l2_bound, rounded_l2_bound(plan.norm, 1536, kRoundingBeta));
}

TEST(Distributed, SendsIntegersBelowTheModulus) {
  for (const std::string& name : kNames) {
    const auto device = mechanism(name, {{"bits", 12}})->device(setting_for(1000, 10), 1);
    std::vector<float> update = random_update(1000, 1, 1);
    device->protect(update, 1, key(1));
    for (const float value : update) {
      ASSERT_TRUE(value >= 0 && value < 4096 && value == std::floor(value)) << name << ": " << value;
    }
  }
}

TEST(Distributed, BoundsWhatOneClientAddsInIntegers) {
  // Without noise, what the device sends is its contribution: centred, its norms are what the accountant is told.
  for (const std::string& name : kNames) {
    const PrivacySetting setting = setting_for(777, 5);
    const auto distributed = mechanism(name, {{"clip_norm", 0.1}, {"bits", 20}});
    const PrivacyEvent event = distributed->events(setting, 0, 1).at(0);
    for (std::uint64_t client = 0; client < 50; ++client) {
      std::vector<float> update = random_update(777, std::pow(10, static_cast<double>(client % 10) - 5), client);
      distributed->device(setting, 0)->protect(update, 3, key(client));
      double squares = 0;
      double lengths = 0;
      for (const float residue : update) {
        const double value = residue >= 524288 ? static_cast<double>(residue) - 1048576 : static_cast<double>(residue);
        squares += value * value;
        lengths += std::abs(value);
      }
      ASSERT_LE(std::sqrt(squares), event.l2_bound) << name;
      ASSERT_LE(lengths, event.l1_bound) << name;
    }
  }
}

TEST(Distributed, ReleasesTheMeanOfCutUpdates) {
  // 8 clients, norms 0.5 and 3 cut to 1; without noise all that is left is the rounding, 1 / (2 scale √8) a coordinate.
  constexpr std::size_t kSize = 1000;
  for (const std::string& name : kNames) {
    SeededNoiseKeys keys(1);
    const PrivacySetting setting = setting_for(kSize, 8);
    const auto distributed = mechanism(name, {{"bits", 20}});
    const auto server = distributed->server(setting, 0, keys);
    std::vector<double> expected(kSize, 0);
    for (std::uint64_t client = 0; client < 8; ++client) {
      std::vector<float> update = random_update(kSize, 1, client);
      const double length = test::norm(update);
      for (float& value : update) value *= static_cast<float>((client % 2 == 0 ? 0.5 : 3) / length);
      for (std::size_t i = 0; i < kSize; ++i) expected[i] += static_cast<double>(update[i]) / (client % 2 == 0 ? 1 : 3) / 8;
      distributed->device(setting, 0)->protect(update, 4, key(client));
      ASSERT_EQ(server->add(update), ExactSumError::none);
    }
    const auto mean = released(*server, 4, kSize);
    const double scale = distributed->events(setting, 0, 1).at(0).scale;
    for (std::size_t i = 0; i < kSize; ++i) ASSERT_NEAR(mean[i], expected[i], 6 / (2 * scale * std::sqrt(8.0)) + 1e-6) << name;
  }
}

TEST(Distributed, HasTheSameBitsInEveryOrder) {
  constexpr std::size_t kSize = 100;
  SeededNoiseKeys keys(1);
  const auto distributed = mechanism(kNames[0]);
  const auto first = distributed->server(setting_for(kSize, 5), 1, keys);
  const auto second = distributed->server(setting_for(kSize, 5), 1, keys);
  std::vector<std::vector<float>> updates;
  for (std::uint64_t client = 0; client < 5; ++client) {
    updates.push_back(random_update(kSize, 1, client));
    distributed->device(setting_for(kSize, 5), 1)->protect(updates.back(), 1, key(client));
  }
  for (std::size_t i = 0; i < 5; ++i) {
    ASSERT_EQ(first->add(updates[i]), ExactSumError::none);
    ASSERT_EQ(second->add(updates[4 - i]), ExactSumError::none);
  }
  EXPECT_EQ(released(*first, 1, kSize), released(*second, 1, kSize));
}

TEST(Distributed, HasEnoughNoiseWhenAsManyDropOutAsMay) {
  // Calibrated for the 16 of 25 clients that must answer: z C on the sum. With 16 it is that, with 25 more.
  constexpr std::size_t kSize = 20'000;
  for (const std::string& name : kNames) {
    PrivacySetting setting = setting_for(kSize, 25);
    setting.minimum_cohort = 16;
    const auto distributed = mechanism(name, {{"clip_norm", 0.5}, {"bits", 20}});
    const PrivacyEvent event = distributed->events(setting, 2, 1).at(0);
    EXPECT_EQ(event.clients, 16U);
    EXPECT_NEAR(event.local_stddev * 4, 2 * 0.5 * event.scale, 1e-6 * event.scale);
    for (const std::uint64_t survivors : {16U, 25U}) {
      SeededNoiseKeys keys(1);
      const auto server = distributed->server(setting, 2, keys);
      for (std::uint64_t client = 0; client < survivors; ++client) {
        std::vector<float> update(kSize, 0.0F);
        distributed->device(setting, 2)->protect(update, 1, key(client));
        ASSERT_EQ(server->add(update), ExactSumError::none);
      }
      const double on_sum = test::rms(released(*server, 1, kSize)) * 25;
      EXPECT_NEAR(on_sum / std::sqrt(static_cast<double>(survivors) / 16), 1, 5 / std::sqrt(2.0 * kSize)) << name << ", " << survivors;
    }
  }
}

TEST(Distributed, RefusesWhatNoDeviceSends) {
  SeededNoiseKeys keys(1);
  PrivacySetting setting = setting_for(2, 5);
  setting.minimum_cohort = 1;
  const auto server = mechanism(kNames[0], {{"bits", 10}})->server(setting, 0, keys);
  const auto add = [&](float value) { return server->add(std::vector<float>{1, value}); };
  EXPECT_EQ(add(0.5F), ExactSumError::out_of_bound);
  EXPECT_EQ(add(-1), ExactSumError::out_of_bound);
  EXPECT_EQ(add(1024), ExactSumError::out_of_bound);
  EXPECT_EQ(add(3e38F), ExactSumError::out_of_bound);
  EXPECT_EQ(add(std::numeric_limits<float>::quiet_NaN()), ExactSumError::not_finite);
  EXPECT_EQ(add(-std::numeric_limits<float>::infinity()), ExactSumError::not_finite);
  // Nothing of them is in the sum.
  EXPECT_EQ(server->add(std::vector<float>{0, 0}), ExactSumError::none);
  EXPECT_THAT(released(*server, 1, 2), testing::Each(0));
}

TEST(Distributed, NeedsItsMinimumCohort) {
  for (const std::string& name : kNames) {
    EXPECT_FALSE(mechanism(name)->releases_always());
    EXPECT_FALSE(mechanism(name)->amplified_by_sampling());
  }
}

TEST(Distributed, TellsTheAccountantItsBounds) {
  PrivacySetting setting = setting_for(1000, 50);
  setting.minimum_cohort = 40;
  setting.separation = 5;
  setting.sampling_rate = 0.5;
  const PrivacyEvent event = mechanism("distributed_skellam")->events(setting, 1.5, 11).at(0);
  EXPECT_EQ(event.kind, PrivacyEvent::Kind::skellam);
  EXPECT_EQ(event.count, 3U);
  EXPECT_EQ(event.sampling_rate, 1);
  EXPECT_EQ(event.dimension, 1000U);
  EXPECT_GT(event.l2_bound, event.scale);
  EXPECT_NEAR(event.local_stddev * std::sqrt(40.0), 1.5 * event.scale, 1e-6 * event.scale);
  EXPECT_EQ(mechanism("distributed_discrete_gaussian")->events(setting, 1.5, 11).at(0).kind, PrivacyEvent::Kind::discrete_gaussian);
}

TEST(Distributed, RefusesTooFewBitsAndTooLittleNoise) {
  const auto check = [](std::uint64_t cohort, int bits, double z) {
    return error_of([&] { mechanism(kNames[0], {{"bits", bits}})->check(setting_for(1000, cohort), z, "privacy.mechanism"); });
  };
  EXPECT_EQ(check(100, 16, 1), "");
  EXPECT_EQ(check(100, 16, 0), "");
  // 2^8 / 8 = 32 holds the rounding of 4 · 32² = 4096 clients at most.
  EXPECT_EQ(check(2000, 8, 1), "");
  EXPECT_THAT(check(4096, 8, 1), HasSubstr("privacy.mechanism.bits: got 8, expected more"));
  EXPECT_THAT(error_of([] { mechanism(kNames[0], {{"bits", 8}})->events(setting_for(1000, 5000), 1, 1); }), HasSubstr("mechanism.bits"));
  EXPECT_THAT(check(100, 16, 1e-9), HasSubstr("expected 2^-20 to 2^40"));
  EXPECT_THAT(error_of([] { mechanism(kNames[0], {{"bits", 25}}); }), HasSubstr("bits"));
}

}  // namespace
}  // namespace fl
