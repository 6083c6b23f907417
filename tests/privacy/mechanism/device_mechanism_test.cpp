#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "privacy/noise/grid_gaussian.h"
#include "privacy/noise/seeded/seeded_noise_keys.h"
#include "tests/privacy/mechanism/rig.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using test::mechanism;
using test::norm;
using test::random_update;
using test::rms;
using test::setting_for;
using testing::HasSubstr;

constexpr std::size_t kLarge = 200'000;

NoiseKey key(std::uint64_t client) { return SeededNoiseKeys(1).key(NoisePurpose::device, 1, client); }

TEST(LocalGaussian, CutsTheUpdateOnTheDevice) {
  const auto device = mechanism("local_gaussian", {{"clip_norm", 2.0}})->device(setting_for(1000, 10), 0);
  std::vector<float> update = random_update(1000, 1, 1);
  device->protect(update, 1, key(1));
  EXPECT_LE(norm(update), 2);
  EXPECT_NEAR(norm(update), 2, 1e-5);
}

TEST(LocalGaussian, AddsItsNoiseToEveryCoordinate) {
  const auto device = mechanism("local_gaussian", {{"clip_norm", 2.0}})->device(setting_for(kLarge, 10), 1.5);
  std::vector<float> update(kLarge, 0.0F);
  device->protect(update, 1, key(1));
  EXPECT_NEAR(rms(update) / 3, 1, 5 / std::sqrt(2.0 * kLarge));
}

TEST(LocalGaussian, HidesTheCutUpdateInTheNoise) {
  // The mean over 400 devices with the same update (norm 10, cut to 1) is the cut update, ± 5 · 0.5 / √400 a coordinate.
  const auto device = mechanism("local_gaussian")->device(setting_for(4, 10), 0.5);
  std::vector<double> sum(4, 0);
  for (std::uint64_t client = 0; client < 400; ++client) {
    std::vector<float> update{6, 8, 0, 0};
    device->protect(update, 1, key(client));
    for (std::size_t i = 0; i < 4; ++i) sum[i] += static_cast<double>(update[i]) / 400;
  }
  const std::vector<double> expected{0.6, 0.8, 0, 0};
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(sum[i], expected[i], 5 * 0.5 / 20) << i;
}

TEST(LocalGaussian, FollowsItsKeyAlone) {
  const auto device = mechanism("local_gaussian")->device(setting_for(100, 10), 1);
  std::vector<float> first = random_update(100, 1, 1);
  std::vector<float> second = first;
  std::vector<float> other = first;
  device->protect(first, 1, key(1));
  device->protect(second, 1, key(1));
  device->protect(other, 1, key(2));
  EXPECT_EQ(first, second);
  EXPECT_NE(first, other);
}

TEST(LocalGaussian, LeavesTheServerAsItIs) {
  SeededNoiseKeys keys(1);
  EXPECT_EQ(mechanism("local_gaussian")->server(setting_for(1, 1), 1, keys), nullptr);
  EXPECT_TRUE(mechanism("local_gaussian")->on_device());
  EXPECT_FALSE(mechanism("local_gaussian")->amplified_by_sampling());
}

TEST(LocalGaussian, CountsAClientsOwnRounds) {
  PrivacySetting setting = setting_for(10, 10);
  setting.separation = 4;
  setting.sampling_rate = 0.1;
  const auto events = mechanism("local_gaussian")->events(setting, 3, 9);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].count, 3U);
  EXPECT_EQ(events[0].noise_multiplier, 3);
  EXPECT_EQ(events[0].sampling_rate, 1) << "an update that is seen is not amplified";
}

TEST(LocalGaussian, RefusesNoiseBeyondTheBoundOfUpdates) {
  const auto local = mechanism("local_gaussian");
  EXPECT_EQ(error_of([&] { local->check(setting_for(10, 10), 6, "p"); }), "");
  EXPECT_THAT(error_of([&] { local->check(setting_for(10, 10), 7, "p"); }), HasSubstr("2^round.update_bound_bits"));
}

TEST(DpSgd, TellsTheTrainerWhatToDo) {
  const auto sgd = mechanism("dp_sgd", {{"clip_norm", 0.5}, {"sampling_rate", 0.04}});
  const ExampleNoise noise = sgd->example_noise(1.25).value();
  EXPECT_EQ(noise.clip_norm, 0.5);
  EXPECT_EQ(noise.sampling_rate, 0.04);
  EXPECT_EQ(noise.noise_multiplier, 1.25);
  EXPECT_EQ(noise.key, NoiseKey{});
  EXPECT_TRUE(sgd->protects_examples());
  EXPECT_TRUE(sgd->on_device());
  EXPECT_EQ(sgd->device(setting_for(1, 1), 1), nullptr);
}

TEST(DpSgd, CountsEveryStepOfEveryRound) {
  PrivacySetting setting = setting_for(10, 10);
  setting.example_steps = 25;
  setting.separation = 2;
  setting.sampling_rate = 0.3;
  const auto events = mechanism("dp_sgd", {{"sampling_rate", 0.04}})->events(setting, 1.25, 5);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].count, 75U) << "3 of 5 rounds, 25 steps each";
  EXPECT_EQ(events[0].sampling_rate, 0.04) << "of examples, not of clients";
  EXPECT_EQ(events[0].noise_multiplier, 1.25);
}

TEST(DpSgd, RefusesATrainerWithoutExamples) {
  PrivacySetting setting = setting_for(10, 10);
  EXPECT_THAT(error_of([&] { mechanism("dp_sgd")->check(setting, 1, "privacy.mechanism"); }), HasSubstr("\"trainer\": {\"name\": \"dp_sgd\""));
  setting.example_steps = 1;
  EXPECT_EQ(error_of([&] { mechanism("dp_sgd")->check(setting, 1, "privacy.mechanism"); }), "");
}

}  // namespace
}  // namespace fl
