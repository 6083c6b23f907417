#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fl_core/base/rng.h"
#include "fl_core/optim/optimizer.h"
#include "tests/contracts/variants.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;

constexpr std::size_t kSize = 37;

std::vector<float> random_values(std::uint64_t stream) {
  Rng rng(1, Purpose::synthetic_data, 0, stream);
  std::vector<float> values(kSize);
  for (float& value : values) value = static_cast<float>(rng.normal());
  return values;
}

void take_steps(Optimizer& optimizer, std::vector<float>& weights, std::uint64_t from, std::uint64_t to) {
  for (std::uint64_t i = from; i < to; ++i) optimizer.step(0.01, weights, random_values(100 + i));
}

class OptimizerContract : public testing::TestWithParam<json> {
 protected:
  static std::unique_ptr<Optimizer> make() { return optimizers().create(GetParam(), "optimizer"); }
};

TEST_P(OptimizerContract, StaysWhereItIsWithoutAGradient) {
  auto weights = random_values(1);
  make()->step(0.1, weights, std::vector<float>(kSize));
  EXPECT_EQ(weights, random_values(1));
}

TEST_P(OptimizerContract, StaysWhereItIsAtRateZero) {
  auto weights = random_values(1);
  make()->step(0, weights, random_values(2));
  EXPECT_EQ(weights, random_values(1));
}

TEST_P(OptimizerContract, MovesAgainstTheFirstGradient) {
  const auto before = random_values(1);
  const auto gradient = random_values(2);
  auto weights = before;
  make()->step(0.01, weights, gradient);
  for (std::size_t i = 0; i < kSize; ++i) EXPECT_LT((weights[i] - before[i]) * gradient[i], 0) << i;
}

TEST_P(OptimizerContract, ComesCloserToTheBottomOfABowl) {
  // f(w) = |w|²/2 has the gradient w.
  auto weights = random_values(1);
  const auto optimizer = make();
  const auto height = [&] {
    double sum = 0;
    for (const float w : weights) sum += static_cast<double>(w) * static_cast<double>(w);
    return sum;
  };
  const double start = height();
  for (int i = 0; i < 200; ++i) optimizer->step(0.02, weights, std::vector<float>(weights));
  EXPECT_LT(height(), 0.9 * start);
}

TEST_P(OptimizerContract, CountsItsSteps) {
  const auto optimizer = make();
  auto weights = random_values(1);
  EXPECT_EQ(optimizer->steps(), 0U);
  take_steps(*optimizer, weights, 0, 3);
  EXPECT_EQ(optimizer->steps(), 3U);
}

TEST_P(OptimizerContract, GoesOnFromSavedMomentsAsIfNothingHappened) {
  const auto original = make();
  auto weights = random_values(1);
  take_steps(*original, weights, 0, 5);

  const auto restored = make();
  restored->prepare(kSize);
  const auto from = original->moments();
  const auto to = restored->moments();
  ASSERT_EQ(from.size(), to.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    ASSERT_EQ(from[i].first, to[i].first);
    ASSERT_EQ(to[i].second.size(), kSize);
    std::copy(from[i].second.begin(), from[i].second.end(), to[i].second.begin());
  }
  restored->set_steps(original->steps());
  auto copy = weights;
  take_steps(*original, weights, 5, 10);
  take_steps(*restored, copy, 5, 10);
  EXPECT_EQ(copy, weights);
}

TEST_P(OptimizerContract, IsAsNewAfterReset) {
  const auto used = make();
  auto ignored = random_values(3);
  take_steps(*used, ignored, 0, 4);
  used->reset();
  EXPECT_EQ(used->steps(), 0U);
  auto weights = random_values(1);
  auto expected = random_values(1);
  take_steps(*used, weights, 7, 10);
  take_steps(*make(), expected, 7, 10);
  EXPECT_EQ(weights, expected);
}

TEST_P(OptimizerContract, KeepsItsMomentsWhenPreparedAgain) {
  const auto optimizer = make();
  auto weights = random_values(1);
  take_steps(*optimizer, weights, 0, 2);
  const auto undisturbed = make();
  auto expected = random_values(1);
  take_steps(*undisturbed, expected, 0, 2);
  optimizer->prepare(kSize);
  take_steps(*optimizer, weights, 2, 4);
  take_steps(*undisturbed, expected, 2, 4);
  EXPECT_EQ(weights, expected);
}

TEST_P(OptimizerContract, RefusesAGradientOfAnotherLength) {
  const auto optimizer = make();
  auto weights = random_values(1);
  EXPECT_THAT(test::error_of([&] { optimizer->step(0.1, weights, std::vector<float>(kSize + 1)); }),
              testing::HasSubstr("length"));
}

INSTANTIATE_TEST_SUITE_P(All, OptimizerContract, testing::ValuesIn(test::variants(optimizers())),
                         [](const auto& variant) { return test::variant_name(variant.param); });

}  // namespace
}  // namespace fl
