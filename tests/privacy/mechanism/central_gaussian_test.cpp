#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "privacy/noise/seeded/seeded_noise_keys.h"
#include "tests/privacy/mechanism/rig.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using test::mechanism;
using test::random_update;
using test::released;
using test::rms;
using test::setting_for;
using testing::HasSubstr;

constexpr std::size_t kLarge = 200'000;
/// Five standard deviations of the root mean square of kLarge draws.
const double kTolerance = 5 / std::sqrt(2.0 * kLarge);

const json kAdaptive = {{"clip_norm", 1.0}, {"adaptive", {{"count_stddev", 5.0}}}};

TEST(CentralGaussian, ReleasesTheMeanOfCutUpdatesOverTheExpectedCohort) {
  // (3, 4) to norm 1 is (0.6, 0.8); the cohort is 4 although two came.
  SeededNoiseKeys keys(1);
  const auto server = mechanism("central_gaussian", {{"clip_norm", 1.0}})->server(setting_for(2, 4), 0, keys);
  EXPECT_EQ(server->add(std::vector<float>{3, 4}), ExactSumError::none);
  EXPECT_EQ(server->add(std::vector<float>{0.2F, 0}), ExactSumError::none);
  EXPECT_THAT(released(*server, 1, 2), testing::ElementsAre(testing::FloatNear(0.2F, 1e-7F), testing::FloatNear(0.2F, 1e-7F)));
}

TEST(CentralGaussian, AddsNoiseToTheSumBeforeItIsDivided) {
  SeededNoiseKeys keys(2);
  const auto server = mechanism("central_gaussian", {{"clip_norm", 3.0}})->server(setting_for(kLarge, 10), 2, keys);
  ASSERT_EQ(server->add(random_update(kLarge, 1, 1)), ExactSumError::none);
  std::vector<float> mean(kLarge);
  const ReleaseFacts facts = server->release(1, mean);
  // z C / cohort = 0.6; the update itself has norm 3 / 10, nothing beside 0.6 · √200000.
  EXPECT_DOUBLE_EQ(facts.noise_stddev, 0.6);
  EXPECT_DOUBLE_EQ(facts.clip_norm, 3);
  EXPECT_FALSE(facts.clipped_fraction);
  EXPECT_NEAR(rms(mean) / 0.6, 1, kTolerance);
}

TEST(CentralGaussian, AddsTheSameNoiseToAnEmptyRound) {
  SeededNoiseKeys keys(3);
  const auto server = mechanism("central_gaussian")->server(setting_for(kLarge, 10), 1, keys);
  EXPECT_NEAR(rms(released(*server, 1, kLarge)) / 0.1, 1, kTolerance);
  EXPECT_TRUE(mechanism("central_gaussian")->releases_always());
}

TEST(CentralGaussian, DrawsNewNoiseForEveryRound) {
  SeededNoiseKeys keys(4);
  const auto server = mechanism("central_gaussian")->server(setting_for(kLarge, 10), 1, keys);
  const auto first = released(*server, 1, kLarge);
  const auto second = released(*server, 2, kLarge);
  std::vector<float> sum(kLarge);
  for (std::size_t i = 0; i < kLarge; ++i) sum[i] = first[i] + second[i];
  EXPECT_NEAR(rms(sum) / (0.1 * std::sqrt(2.0)), 1, kTolerance) << "independent: the variances add up";
}

TEST(CentralGaussian, IsReproducibleWithSeededKeys) {
  SeededNoiseKeys keys(5);
  const auto central = mechanism("central_gaussian");
  const auto first = central->server(setting_for(1000, 10), 1, keys);
  const auto second = central->server(setting_for(1000, 10), 1, keys);
  EXPECT_EQ(released(*first, 7, 1000), released(*second, 7, 1000));
}

TEST(CentralGaussian, SharesNoNoiseBetweenRunsWithSecureKeys) {
  SecureNoiseKeys keys;
  const auto central = mechanism("central_gaussian");
  std::set<float> seen;
  for (int run = 0; run < 4; ++run) {
    for (const float value : released(*central->server(setting_for(8, 10), 1, keys), 1, 8)) seen.insert(value);
  }
  EXPECT_EQ(seen.size(), 32U);
}

TEST(CentralGaussian, PutsDataAndNoiseOnOneGrid) {
  // With a cohort of 1 the mean is the sum rounded to float. A grid of 2^-48 and values below 2^-24 leave nothing to round.
  SeededNoiseKeys keys(6);
  const auto server = mechanism("central_gaussian", {{"clip_norm", 1.0}})->server(setting_for(1000, 1), 1e-9, keys);
  ASSERT_EQ(server->add(random_update(1000, 1e-9, 1)), ExactSumError::none);
  for (const float value : released(*server, 1, 1000)) {
    const double units = std::ldexp(static_cast<double>(value), 49);
    ASSERT_EQ(units, std::nearbyint(units)) << value;
  }
}

TEST(CentralGaussian, ForgetsWhatIsDiscardedOrReleased) {
  SeededNoiseKeys keys(7);
  const auto server = mechanism("central_gaussian")->server(setting_for(2, 1), 0, keys);
  ASSERT_EQ(server->add(std::vector<float>{0.5F, 0}), ExactSumError::none);
  server->discard();
  EXPECT_THAT(released(*server, 1, 2), testing::Each(0));
}

TEST(CentralGaussian, RejectsAnUpdateThatIsNotFinite) {
  SeededNoiseKeys keys(8);
  const auto server = mechanism("central_gaussian", kAdaptive)->server(setting_for(2, 100), 1, keys);
  EXPECT_EQ(server->add(std::vector<float>{std::numeric_limits<float>::infinity(), 0}), ExactSumError::not_finite);
  EXPECT_EQ(server->add(std::vector<float>{std::numeric_limits<float>::max(), 0}), ExactSumError::none);
}

TEST(AdaptiveCentralGaussian, PaysForTheCountWithTheNoiseOfTheSum) {
  // z = 1 and σ_b = 5: z_Δ = 1.005037815259212.
  SeededNoiseKeys keys(9);
  const auto adaptive = mechanism("central_gaussian", kAdaptive);
  const auto server = adaptive->server(setting_for(kLarge, 100), 1, keys);
  std::vector<float> mean(kLarge);
  EXPECT_DOUBLE_EQ(server->release(1, mean).noise_stddev, 0.01005037815259212);
  EXPECT_NEAR(rms(mean) / 0.01005037815259212, 1, kTolerance);
  const auto events = adaptive->events(setting_for(kLarge, 100), 1, 3);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].noise_multiplier, 1) << "sum and count together cost what the promise says";
}

TEST(AdaptiveCentralGaussian, DrawsTheNoiseOfTheClipThatTheUpdatesWereCutWith) {
  SeededNoiseKeys keys(10);
  const auto server = mechanism("central_gaussian", {{"clip_norm", 1.0}, {"adaptive", {{"count_stddev", 5.0}, {"learning_rate", 5.0}}}})
                          ->server(setting_for(kLarge, 100), 1, keys);
  const std::vector<float> small(kLarge, 1e-9F);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(server->add(small), ExactSumError::none);
  std::vector<float> mean(kLarge);
  const ReleaseFacts first = server->release(1, mean);
  EXPECT_EQ(first.clip_norm, 1);
  EXPECT_NEAR(rms(mean) / first.noise_stddev, 1, kTolerance);
  EXPECT_DOUBLE_EQ(first.noise_stddev, 0.01005037815259212);
  // All were within, so the next clip is near exp(-5 · 0.5) = 0.082, and its noise with it.
  const ReleaseFacts second = server->release(2, mean);
  EXPECT_LT(second.clip_norm, 0.3);
  EXPECT_NEAR(second.noise_stddev, second.clip_norm * 0.01005037815259212, 1e-12);
  EXPECT_NEAR(rms(mean) / second.noise_stddev, 1, kTolerance);
}

TEST(AdaptiveCentralGaussian, ReportsANoisyFractionOfClippedUpdates) {
  // 30 of 100 are above; σ_b = 5 clients.
  SeededNoiseKeys keys(11);
  const auto server = mechanism("central_gaussian", {{"adaptive", {{"count_stddev", 5.0}, {"learning_rate", 0.0}}}})->server(setting_for(1, 100), 1, keys);
  constexpr int kRounds = 1000;
  double sum = 0;
  double squares = 0;
  std::vector<float> mean(1);
  for (std::uint32_t round = 1; round <= kRounds; ++round) {
    for (int i = 0; i < 100; ++i) ASSERT_EQ(server->add(std::vector<float>{i < 30 ? 2.0F : 0.5F}), ExactSumError::none);
    const double off = 100 * server->release(round, mean).clipped_fraction.value() - 30;
    sum += off;
    squares += off * off;
  }
  EXPECT_NEAR(sum / kRounds, 0, 5 * 5 / std::sqrt(kRounds));
  EXPECT_NEAR(std::sqrt(squares / kRounds) / 5, 1, 5 / std::sqrt(2.0 * kRounds));
}

TEST(AdaptiveCentralGaussian, ConvergesToTheMedianFromFarAway) {
  // Norms 0.05, 0.15, … 9.95: the median is 5. ln 100 / (0.2 · 0.5) = 46 rounds to come near; σ_b of 5 % of the clients moves the
  // clip by 1 % a round, which the pull back to the median holds to a few per cent.
  for (const double initial : {0.05, 500.0}) {
    SeededNoiseKeys keys(12);
    const auto server = mechanism("central_gaussian", {{"clip_norm", initial}, {"adaptive", json::object()}})->server(setting_for(1, 100), 0.1, keys);
    std::vector<float> mean(1);
    double clip = 0;
    for (std::uint32_t round = 1; round <= 100; ++round) {
      for (int i = 0; i < 100; ++i) ASSERT_EQ(server->add(std::vector<float>{0.05F + 0.1F * static_cast<float>(i)}), ExactSumError::none);
      clip = server->release(round, mean).clip_norm;
    }
    EXPECT_NEAR(clip, 5, 0.75) << "from " << initial;
  }
}

TEST(AdaptiveCentralGaussian, GoesOnWithItsClipAfterARestart) {
  SeededNoiseKeys keys(13);
  const auto adaptive = mechanism("central_gaussian", kAdaptive);
  const auto setting = setting_for(100, 100);
  const auto straight = adaptive->server(setting, 1, keys);
  for (std::uint32_t round = 1; round <= 5; ++round) {
    released(*straight, round, 100);
    const auto resumed = adaptive->server(setting, 1, keys);
    resumed->set_state(json::parse(straight->state().dump()));
    EXPECT_EQ(resumed->state(), straight->state());
    const auto again = adaptive->server(setting, 1, keys);
    again->set_state(straight->state());
    EXPECT_EQ(released(*resumed, round + 1, 100), released(*again, round + 1, 100));
  }
  EXPECT_NE(straight->state().at("clip_norm"), 1.0);
  EXPECT_THAT(error_of([&] { straight->set_state(json::array()); }), HasSubstr("privacy state is damaged"));
}

TEST(CentralGaussian, KeepsNothingWhenItsClipIsFixed) {
  SeededNoiseKeys keys(14);
  const auto server = mechanism("central_gaussian")->server(setting_for(2, 2), 1, keys);
  EXPECT_TRUE(server->state().is_null());
  server->set_state(nullptr);
}

TEST(CentralGaussian, CountsEveryRoundOnce) {
  PrivacySetting setting = setting_for(10, 100);
  setting.sampling_rate = 0.1;
  const auto events = mechanism("central_gaussian")->events(setting, 1.5, 20);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].kind, PrivacyEvent::Kind::gaussian);
  EXPECT_EQ(events[0].sampling_rate, 0.1);
  EXPECT_EQ(events[0].noise_multiplier, 1.5);
  EXPECT_EQ(events[0].count, 20U);
  // Without sampling a client's own rounds count: 20 rounds, 3 apart, are 7.
  setting.sampling_rate = 1;
  setting.separation = 3;
  EXPECT_EQ(mechanism("central_gaussian")->events(setting, 1.5, 20)[0].count, 7U);
}

TEST(CentralGaussian, RefusesNoiseThatItCannotDraw) {
  const auto central = mechanism("central_gaussian");
  const auto check = [&](double z) { return error_of([&] { central->check(setting_for(1000, 100), z, "privacy.mechanism"); }); };
  EXPECT_EQ(check(0), "");
  EXPECT_EQ(check(1), "");
  EXPECT_EQ(check(1e6), "");
  EXPECT_THAT(check(1e-14), HasSubstr("privacy.mechanism: noise of standard deviation 1e-14 is too small"));
  EXPECT_THAT(check(std::numeric_limits<double>::infinity()), HasSubstr("privacy.mechanism: "));
  EXPECT_THAT(check(-1), HasSubstr("expected a finite number >= 0"));
}

TEST(AdaptiveCentralGaussian, RefusesACountThatCostsMoreThanThePromise) {
  const auto adaptive = mechanism("central_gaussian", kAdaptive);
  EXPECT_EQ(error_of([&] { adaptive->check(setting_for(1000, 100), 9.9, "p"); }), "");
  EXPECT_THAT(error_of([&] { adaptive->check(setting_for(1000, 100), 10, "p"); }), HasSubstr("p.adaptive.count_stddev: got 5.0"));
}

}  // namespace
}  // namespace fl
