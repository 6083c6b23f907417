#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>

#include "privacy/noise/seeded/seeded_noise_keys.h"
#include "tests/privacy/mechanism/rig.h"

namespace fl {
namespace {

using test::mechanism;
using test::random_update;
using test::released;

constexpr std::size_t kSize = 300;
constexpr std::uint64_t kClients = 6;

PrivacySetting contract_setting() {
  PrivacySetting setting = test::setting_for(kSize, kClients);
  setting.minimum_cohort = 1;
  setting.separation = 3;
  setting.rounds = 20;
  setting.example_steps = 10;
  return setting;
}

/// What every mechanism keeps to, whatever it is.
class MechanismContract : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<ServerMechanism> server(double noise_multiplier = 1) { return mechanism_->server(setting_, noise_multiplier, keys_); }
  /// As a server gets it: through the device's half, where there is one.
  std::vector<float> sent(std::uint64_t client, std::uint32_t round = 1) {
    std::vector<float> update = random_update(kSize, 1, client);
    if (const auto device = mechanism_->device(setting_, 1)) device->protect(update, round, keys_.key(NoisePurpose::device, round, client));
    return update;
  }

  std::unique_ptr<Mechanism> mechanism_ = mechanism(GetParam());
  PrivacySetting setting_ = contract_setting();
  SeededNoiseKeys keys_{1};
};

TEST_P(MechanismContract, ProtectsSomewhere) {
  EXPECT_TRUE(server() != nullptr || mechanism_->device(setting_, 1) != nullptr || mechanism_->example_noise(1).has_value());
  EXPECT_EQ(mechanism_->protects_examples(), mechanism_->example_noise(1).has_value());
  mechanism_->check(setting_, 1, "privacy.mechanism");
  mechanism_->check(setting_, 0, "privacy.mechanism");
}

TEST_P(MechanismContract, CostsMoreForMoreRoundsAndLessForMoreNoise) {
  const auto cost = [&](double noise_multiplier, std::uint32_t after) {
    double squares = 0;  // Σ count · (sensitivity / stddev)², what Gaussian composition adds up
    for (const PrivacyEvent& event : mechanism_->events(setting_, noise_multiplier, after)) {
      const bool continuous = event.kind == PrivacyEvent::Kind::gaussian;
      const double stddev = std::sqrt(static_cast<double>(event.clients)) * event.local_stddev;
      const double ratio = continuous ? 1 / event.noise_multiplier : event.l2_bound / stddev;
      squares += static_cast<double>(event.count) * ratio * ratio;
    }
    return squares;
  };
  EXPECT_TRUE(mechanism_->events(setting_, 1, 0).empty() || cost(1, 0) == 0);
  for (std::uint32_t after = 1; after < 20; ++after) EXPECT_LE(cost(1, after), cost(1, after + 1)) << after;
  EXPECT_LT(cost(1, 1), cost(1, 20));
  for (const double z : {0.1, 0.5, 1.0, 3.0}) EXPECT_GT(cost(z, 20), cost(z * 1.01, 20)) << z;
}

TEST_P(MechanismContract, ReleasesTheSameBitsInEveryOrder) {
  const auto first = server();
  const auto second = server();
  if (!first) return;
  for (std::uint64_t client = 0; client < kClients; ++client) {
    ASSERT_EQ(first->add(sent(client)), ExactSumError::none);
    ASSERT_EQ(second->add(sent(kClients - 1 - client)), ExactSumError::none);
  }
  EXPECT_EQ(released(*first, 1, kSize), released(*second, 1, kSize));
}

TEST_P(MechanismContract, AddsNothingOfAnUpdateThatItRefuses) {
  const auto first = server();
  const auto second = server();
  if (!first) return;
  ASSERT_EQ(first->add(sent(1)), ExactSumError::none);
  ASSERT_EQ(second->add(sent(1)), ExactSumError::none);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> update = sent(2);
    update.back() = bad;
    EXPECT_EQ(second->add(update), ExactSumError::not_finite);
  }
  EXPECT_EQ(released(*first, 1, kSize), released(*second, 1, kSize));
}

TEST_P(MechanismContract, ForgetsADiscardedRound) {
  const auto first = server();
  const auto second = server();
  if (!first) return;
  for (std::uint64_t client = 0; client < kClients; ++client) ASSERT_EQ(second->add(sent(client, 1)), ExactSumError::none);
  second->discard();
  ASSERT_EQ(first->add(sent(1, 2)), ExactSumError::none);
  ASSERT_EQ(second->add(sent(1, 2)), ExactSumError::none);
  EXPECT_EQ(released(*first, 2, kSize), released(*second, 2, kSize));
}

TEST_P(MechanismContract, GoesOnFromItsState) {
  const auto straight = server();
  if (!straight) return;
  for (std::uint32_t round = 1; round <= 4; ++round) {
    const auto resumed = server();
    resumed->set_state(nlohmann::json::parse(straight->state().dump()));
    for (std::uint64_t client = 0; client < kClients; ++client) {
      ASSERT_EQ(straight->add(sent(client, round)), ExactSumError::none);
      ASSERT_EQ(resumed->add(sent(client, round)), ExactSumError::none);
    }
    ASSERT_EQ(released(*straight, round, kSize), released(*resumed, round, kSize)) << "round " << round;
  }
}

TEST_P(MechanismContract, LeavesNothingOfAnUpdateBare) {
  // Two devices with the same update: with noise of their own on all of it, every coordinate that they send differs.
  const auto device = mechanism_->device(setting_, 1);
  if (!mechanism_->on_device() || device == nullptr) return;  // one device's share of the noise may be zero
  std::vector<float> first(kSize, 0.001F);
  std::vector<float> second = first;
  device->protect(first, 1, keys_.key(NoisePurpose::device, 1, 1));
  device->protect(second, 1, keys_.key(NoisePurpose::device, 1, 2));
  for (std::size_t i = 0; i < kSize; ++i) EXPECT_NE(first[i], second[i]) << i;
}

INSTANTIATE_TEST_SUITE_P(All, MechanismContract, testing::ValuesIn(mechanisms().names()), [](const auto& name) { return name.param; });

}  // namespace
}  // namespace fl
