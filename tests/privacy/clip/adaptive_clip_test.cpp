#include "privacy/clip/adaptive_clip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "privacy/clip/clip.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using testing::HasSubstr;

/// One round without noise: the sum of the cut records, and the clip follows the fraction that was not.
double round_of(AdaptiveClip& clip, const std::vector<float>& records) {
  double sum = 0;
  double within = 0;
  for (const float record : records) {
    float cut = 0;
    within += clip_to({&record, 1}, clip.clip_norm(), {&cut, 1}) == ClipResult::within ? 1 : 0;
    sum += static_cast<double>(cut);
  }
  clip.follow(within / static_cast<double>(records.size()));
  return sum;
}

struct Trace {
  const char* source;  ///< in tensorflow/privacy@03035d5d, quantile_adaptive_clip_sum_query_test.py
  bool geometric;
  std::vector<float> records;
  double initial;
  double quantile;
  double learning_rate;
  std::vector<double> sums;
  std::vector<double> clips;
};

const double kRoot2 = std::numbers::sqrt2;

TEST(AdaptiveClip, FollowsTheTracesOfTensorFlowPrivacy) {
  const std::vector<Trace> traces{
      {"L83", false, {8.5F, -7.25F}, 10, 0, 1, {1.25, 1.25, 0.75, 0.25, 0}, {9, 8, 7.5, 7, 7}},
      {"L117", true, {5.0F, -2.5F}, 16, 0, std::numbers::ln2, {2.5, 2.5, 1.5, 4 / kRoot2 - 2.5, 0}, {8, 4, 4 / kRoot2, 2, 2}},
      {"L153", false, {-1.5F, 2.75F}, 0, 1, 1, {0, 0, 0.5, 1, 1.25}, {1, 2, 2.5, 3, 3}},
      {"L187", true, {-1.5F, 3.0F}, 0.5, 1, std::numbers::ln2, {0, 0, 0.5, 2 * kRoot2 - 1.5, 1.5}, {1, 2, 2 * kRoot2, 4, 4}},
  };
  for (const Trace& trace : traces) {
    AdaptiveClipRule rule;
    rule.quantile = trace.quantile;
    rule.learning_rate = trace.learning_rate;
    rule.geometric = trace.geometric;
    AdaptiveClip clip(trace.initial, rule);
    for (std::size_t round = 0; round < trace.sums.size(); ++round) {
      EXPECT_NEAR(round_of(clip, trace.records), trace.sums[round], 2e-6) << trace.source << ", round " << round + 1;
      EXPECT_NEAR(clip.clip_norm(), trace.clips[round], 1e-12) << trace.source << ", round " << round + 1;
    }
  }
}

TEST(AdaptiveClip, FindsTheMedianInFortyRounds) {
  // The same file, L223: 21 records from 0 to 10, target 0.5, learning rate 1: 5.0 ± 0.25.
  std::vector<float> records;
  for (int i = 0; i <= 20; ++i) records.push_back(static_cast<float>(i) / 2);
  for (const bool geometric : {true, false}) {
    for (const double initial : {0.1, 10.0, 50.0}) {
      AdaptiveClipRule rule;
      rule.learning_rate = 1;
      rule.geometric = geometric;
      AdaptiveClip clip(initial, rule);
      const int rounds = geometric ? 40 : 140;  // the arithmetic one goes 0.5 a round from 50
      for (int round = 0; round < rounds; ++round) round_of(clip, records);
      EXPECT_NEAR(clip.clip_norm(), 5, 0.25) << geometric << " from " << initial;
    }
  }
}

TEST(AdaptiveClip, ConvergesFromFarAbove_AndFromFarBelow) {
  // The median is 5; each round far off moves by exp(0.2 · 0.5), so a factor of 100 takes ln 100 / 0.1 = 46 rounds.
  std::vector<float> records;
  for (int i = 0; i <= 20; ++i) records.push_back(static_cast<float>(i) / 2);
  for (const double factor : {0.01, 100.0}) {
    AdaptiveClip clip(5 * factor, {});
    for (int round = 0; round < 100; ++round) round_of(clip, records);
    EXPECT_NEAR(clip.clip_norm(), 5, 0.5) << "from " << factor << " of the median";
  }
}

TEST(AdaptiveClip, ShrinksWhenTooFewAreClipped) {
  // The sign that one framework has reversed: everything within a clip far too large must make it smaller.
  AdaptiveClip clip(10, {});
  clip.follow(1);
  EXPECT_NEAR(clip.clip_norm(), 10 * std::exp(-0.1), 1e-12);
  clip.follow(0);
  EXPECT_NEAR(clip.clip_norm(), 10, 1e-12);
}

TEST(AdaptiveClip, TakesANoisyFractionToWhatAFractionCanBe) {
  AdaptiveClip clip(1, {});
  clip.follow(1e9);
  EXPECT_NEAR(clip.clip_norm(), std::exp(-0.1), 1e-12);
  clip.set_clip_norm(1);
  clip.follow(-5);
  EXPECT_NEAR(clip.clip_norm(), std::exp(0.1), 1e-12);
}

TEST(AdaptiveClip, StaysBetweenItsBounds) {
  AdaptiveClipRule rule;
  rule.lowest = 0.5;
  rule.highest = 2;
  AdaptiveClip clip(1, rule);
  for (int round = 0; round < 100; ++round) clip.follow(0);
  EXPECT_EQ(clip.clip_norm(), 2);
  for (int round = 0; round < 100; ++round) clip.follow(1);
  EXPECT_EQ(clip.clip_norm(), 0.5);
}

TEST(NoiseMultiplierOfUpdates, SplitsThePromiseBetweenSumAndCount) {
  // z_Δ = (z⁻² - (2 σ_b)⁻²)^(-1/2) with 40 digits.
  EXPECT_NEAR(noise_multiplier_of_updates(1.0, 5.0, ""), 1.005037815259212, 1e-14);
  EXPECT_NEAR(noise_multiplier_of_updates(0.5, 2.5, ""), 0.502518907629606, 1e-14);
  EXPECT_NEAR(noise_multiplier_of_updates(1.2, 50.0, ""), 1.2000864093323198, 1e-14);
  EXPECT_NEAR(noise_multiplier_of_updates(0.1, 0.5, ""), 0.10050378152592121, 1e-14);
  EXPECT_EQ(noise_multiplier_of_updates(0, 1, ""), 0);
}

TEST(NoiseMultiplierOfUpdates, SpendsNoMoreOnBothThanWasPromised) {
  for (const double z : {0.3, 1.0, 4.0}) {
    for (const double count : {z * 0.5001, z, 100 * z}) {
      const double of_updates = noise_multiplier_of_updates(z, count, "");
      EXPECT_NEAR(1 / (of_updates * of_updates) + 1 / (4 * count * count), 1 / (z * z), 1e-9 / (z * z));
    }
  }
}

TEST(NoiseMultiplierOfUpdates, FailsWhereTheCountAloneCostsThePromise) {
  const std::string error = error_of([] { noise_multiplier_of_updates(2, 1, "privacy.mechanism"); });
  EXPECT_THAT(error, HasSubstr("privacy.mechanism.adaptive.count_stddev: got 1.0, expected more than half the noise multiplier 2.0"));
}

}  // namespace
}  // namespace fl
