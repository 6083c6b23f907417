#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "aggregator/strategy/strategy.h"
#include "fl_core/base/rng.h"
#include "tests/contracts/variants.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;

/// 90 weights and 10 statistics.
SharedLayout small_layout() {
  return std::make_shared<const Layout>(
      std::vector<Slot>{{"weight", {9, 10}, SlotKind::weight}, {"mean", {10}, SlotKind::statistic}});
}

std::vector<float> random_delta(std::uint64_t stream) {
  Rng rng(1, Purpose::synthetic_data, 0, stream);
  std::vector<float> delta(100);
  for (float& value : delta) value = static_cast<float>(0.1 * rng.normal());
  return delta;
}

class StrategyContract : public testing::TestWithParam<json> {
 protected:
  std::unique_ptr<Strategy> make() const { return strategies().create(GetParam(), "strategy", {layout_, 16}); }
  ParameterVector model() const {
    ParameterVector global(layout_);
    for (std::size_t i = 0; i < global.size(); ++i) global.values()[i] = static_cast<float>(i) / 50;
    return global;
  }
  static void add(Strategy& strategy, const std::vector<float>& delta, std::uint32_t weight) {
    ASSERT_EQ(strategy.add(delta, weight), ExactSumError::none);
  }
  /// One round whose updates are numbered from `first`.
  static void run_round(Strategy& strategy, ParameterVector& global, std::uint64_t first) {
    for (std::uint32_t i = 0; i < 3; ++i) add(strategy, random_delta(first + i), 10 + i);
    strategy.step(global, strategy.finish());
  }
  static std::vector<float> values(const ParameterVector& vector) {
    return {vector.values().begin(), vector.values().end()};
  }

  SharedLayout layout_ = small_layout();
};

TEST_P(StrategyContract, GivesOneClientItsOwnDelta) {
  // Up to fixed point: half a unit of 2^-s with s >= 29 at weight 100, and one rounding to float.
  const auto strategy = make();
  const auto delta = random_delta(1);
  add(*strategy, delta, 100);
  const Aggregate aggregate = strategy->finish();
  EXPECT_EQ(aggregate.contributors, 1U);
  EXPECT_EQ(aggregate.total_weight, 100U);
  for (std::size_t i = 0; i < delta.size(); ++i) {
    ASSERT_NEAR(aggregate.mean_delta.values()[i], delta[i], 0x1p-30 / 100 + std::abs(delta[i]) * 0x1p-23F);
  }
}

TEST_P(StrategyContract, GivesEqualDeltasThatDelta) {
  const auto strategy = make();
  const auto delta = random_delta(1);
  add(*strategy, delta, 100);
  const auto one = values(strategy->finish().mean_delta);
  for (int i = 0; i < 10; ++i) add(*strategy, delta, 100);
  const Aggregate ten = strategy->finish();
  EXPECT_EQ(values(ten.mean_delta), one);
  EXPECT_EQ(ten.contributors, 10U);
  EXPECT_EQ(ten.total_weight, 1000U);
}

TEST_P(StrategyContract, DoesNotDependOnTheOrderOfUpdates) {
  std::vector<std::uint32_t> order(8);
  std::iota(order.begin(), order.end(), 0U);
  Rng rng(1, Purpose::shuffle);
  std::vector<float> first;
  for (int i = 0; i < 5; ++i) {
    const auto strategy = make();
    ParameterVector global = model();
    for (const std::uint32_t client : order) add(*strategy, random_delta(client), 1 + 100 * client);
    strategy->step(global, strategy->finish());
    if (first.empty()) first = values(global);
    EXPECT_EQ(values(global), first);
    rng.shuffle(order);
  }
}

TEST_P(StrategyContract, MovesTheModelAndTheStatisticsByTheirMean) {
  const auto strategy = make();
  ParameterVector global = model();
  const ParameterVector before = model();
  add(*strategy, random_delta(1), 5);
  const Aggregate aggregate = strategy->finish();
  strategy->step(global, aggregate);
  EXPECT_NE(values(global), values(before));
  for (std::size_t i = layout_->weight_count(); i < layout_->size(); ++i) {
    EXPECT_EQ(global.values()[i], before.values()[i] + aggregate.mean_delta.values()[i]);
  }
  for (const float value : global.values()) EXPECT_TRUE(std::isfinite(value));
}

TEST_P(StrategyContract, MovesEveryWeightTheWayOfItsMeanInTheFirstRound) {
  const auto strategy = make();
  ParameterVector global = model();
  const ParameterVector before = model();
  add(*strategy, random_delta(1), 5);
  const Aggregate aggregate = strategy->finish();
  strategy->step(global, aggregate);
  for (std::size_t i = 0; i < layout_->weight_count(); ++i) {
    const float moved = global.values()[i] - before.values()[i];
    EXPECT_GE(moved * aggregate.mean_delta.values()[i], 0.0F) << i;
  }
}

TEST_P(StrategyContract, ForgetsADiscardedRound) {
  const auto disturbed = make();
  const auto undisturbed = make();
  ParameterVector one = model();
  ParameterVector other = model();
  for (std::uint64_t round = 0; round < 3; ++round) {
    add(*disturbed, random_delta(77 + round), 9);
    disturbed->discard();
    run_round(*disturbed, one, 10 * round);
    run_round(*undisturbed, other, 10 * round);
    EXPECT_EQ(values(one), values(other)) << "round " << round;
  }
}

TEST_P(StrategyContract, IsUnchangedByARefusedUpdate) {
  const auto disturbed = make();
  const auto undisturbed = make();
  ParameterVector one = model();
  ParameterVector other = model();
  auto bad = random_delta(5);
  bad.back() = std::nanf("");
  EXPECT_EQ(disturbed->add(bad, 9), ExactSumError::not_finite);
  bad.back() = 64;
  EXPECT_EQ(disturbed->add(bad, 9), ExactSumError::out_of_bound);
  run_round(*disturbed, one, 0);
  run_round(*undisturbed, other, 0);
  EXPECT_EQ(values(one), values(other));
}

TEST_P(StrategyContract, GoesOnFromASavedStateAsIfNothingHappened) {
  const auto original = make();
  ParameterVector global = model();
  for (std::uint64_t round = 0; round < 3; ++round) run_round(*original, global, 10 * round);

  const auto restored = make();
  ParameterVector copy = global.clone();
  const auto from = original->state();
  const auto to = restored->state();
  ASSERT_EQ(from.size(), to.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    ASSERT_EQ(from[i].first, to[i].first);
    ASSERT_EQ(from[i].second.size(), to[i].second.size());
    std::copy(from[i].second.begin(), from[i].second.end(), to[i].second.begin());
  }
  restored->set_steps(original->steps());
  EXPECT_EQ(restored->steps(), original->steps());
  for (std::uint64_t round = 3; round < 6; ++round) {
    run_round(*original, global, 10 * round);
    run_round(*restored, copy, 10 * round);
    EXPECT_EQ(values(copy), values(global)) << "round " << round;
  }
}

TEST_P(StrategyContract, HasStateOfFixedPlaceAndLength) {
  const auto strategy = make();
  const auto before = strategy->state();
  ParameterVector global = model();
  run_round(*strategy, global, 0);
  const auto after = strategy->state();
  ASSERT_EQ(before.size(), after.size());
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(before[i].second.size(), layout_->weight_count()) << before[i].first;
    EXPECT_EQ(before[i].second.data(), after[i].second.data()) << before[i].first;
  }
}

TEST_P(StrategyContract, RefusesToFinishWithoutUpdates) {
  const auto strategy = make();
  EXPECT_THAT(test::error_of([&] { strategy->finish(); }), testing::HasSubstr("nothing was added"));
  add(*strategy, random_delta(1), 1);
  strategy->finish();
  EXPECT_THAT(test::error_of([&] { strategy->finish(); }), testing::HasSubstr("nothing was added"))
      << "finish() consumes";
}

INSTANTIATE_TEST_SUITE_P(All, StrategyContract, testing::ValuesIn(test::variants(strategies())),
                         [](const auto& variant) { return test::variant_name(variant.param); });

}  // namespace
}  // namespace fl
