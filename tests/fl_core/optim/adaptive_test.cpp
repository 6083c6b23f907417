#include "fl_core/optim/adaptive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<Optimizer> make(const std::string& name, json options = json::object()) {
  options["name"] = name;
  return optimizers().create(options, "optimizer");
}

/// The published formulas in double, for one weight.
struct Reference {
  std::string name;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double epsilon = 1e-3;
  bool bias_correction = false;
  double m = 0;
  double v = 1e-6;
  int t = 0;

  double step(double rate, double w, double g) {
    ++t;
    const double g2 = g * g;
    m = beta1 * m + (1 - beta1) * g;
    if (name == "adam") v = beta2 * v + (1 - beta2) * g2;
    if (name == "yogi") v = v - (1 - beta2) * g2 * (v > g2 ? 1 : v < g2 ? -1 : 0);
    if (name == "adagrad") v = v + g2;
    const double m_hat = bias_correction ? m / (1 - std::pow(beta1, t)) : m;
    const double v_hat = bias_correction ? v / (1 - std::pow(beta2, t)) : v;
    return w - rate * m_hat / (std::sqrt(v_hat) + epsilon);
  }
  json options() const {
    json all = {{"beta1", beta1}, {"epsilon", epsilon}, {"initial_accumulator", v}};
    if (name != "adagrad") {
      all["beta2"] = beta2;
      all["bias_correction"] = bias_correction;
    }
    return all;
  }
};

/// 50 steps with gradients of changing size and sign; floats round each of a handful of operations a step.
void expect_follows(Reference reference) {
  const auto optimizer = make(reference.name, reference.options());
  std::vector<float> w = {1};
  double expected = 1;
  for (int i = 0; i < 50; ++i) {
    const float g = static_cast<float>(std::sin(i) * (i % 7 == 0 ? 5 : 0.1));
    optimizer->step(0.01, w, std::vector<float>{g});
    expected = reference.step(0.01, expected, g);
    ASSERT_NEAR(w[0], expected, 2e-6) << "step " << i;
  }
}

TEST(AdaptiveOptimizer, FollowsAlgorithm2OfFedOpt) {
  // Reddi et al. 2021, Algorithm 2, lines for FedAdagrad, FedYogi and FedAdam; no bias correction, v starts at tau².
  expect_follows({"adam"});
  expect_follows({"yogi"});
  expect_follows({"adagrad"});
}

TEST(AdaptiveOptimizer, CorrectsBiasOnRequest) {
  expect_follows({"adam", 0.9, 0.999, 1e-8, true, 0, 0});
  expect_follows({"yogi", 0.9, 0.99, 1e-3, true});
}

TEST(AdaptiveOptimizer, NeedsNoFirstMomentWhenBeta1IsZero) {
  expect_follows({"adagrad", 0});
  expect_follows({"adam", 0});
  const auto optimizer = make("adam", {{"beta1", 0}});
  optimizer->prepare(3);
  ASSERT_EQ(optimizer->moments().size(), 1U);
  EXPECT_EQ(optimizer->moments()[0].first, "second_moment");
}

TEST(Adam, MovesByTheRateInItsFirstStep) {
  // With bias correction m/(1 - beta1) = g and v/(1 - beta2) = g², so the step is rate·g/(|g| + eps) = ±rate.
  std::vector<float> w = {0, 0};
  make("adam")->step(0.125, w, std::vector<float>{3, -0.5F});
  EXPECT_FLOAT_EQ(w[0], -0.125F);
  EXPECT_FLOAT_EQ(w[1], 0.125F);
}

TEST(Adagrad, DividesByTheRootOfTheSum) {
  // v = 9, 25: steps 3/3 and 4/5.
  std::vector<float> w = {0};
  const auto optimizer = make("adagrad");
  optimizer->step(1, w, std::vector<float>{3});
  EXPECT_FLOAT_EQ(w[0], -1);
  optimizer->step(1, w, std::vector<float>{4});
  EXPECT_FLOAT_EQ(w[0], -1.8F);
}

TEST(Yogi, MovesItsSecondMomentTowardsTheSquaredGradient) {
  // beta2 = 1/2, v = 4. g² = 4 = v leaves it; g² = 1 < v: v = 4 - 0.5·1 = 3.5; g² = 9 > v: v = 3.5 + 0.5·9 = 8.
  std::vector<float> w = {0};
  const auto optimizer = make("yogi", {{"beta2", 0.5}, {"initial_accumulator", 4}});
  const auto second = [&] { return optimizer->moments().back().second[0]; };
  optimizer->step(0.1, w, std::vector<float>{2});
  EXPECT_EQ(second(), 4.0F);
  optimizer->step(0.1, w, std::vector<float>{1});
  EXPECT_EQ(second(), 3.5F);
  optimizer->step(0.1, w, std::vector<float>{3});
  EXPECT_EQ(second(), 8.0F);
}

TEST(AdaptiveOptimizer, DecaysWeights) {
  // Gradient 0 and w = 2, decay 1/2: g = 1, so v = 1 and the step is 1/1.
  std::vector<float> w = {2};
  make("adagrad", {{"weight_decay", 0.5}})->step(1, w, std::vector<float>{0});
  EXPECT_FLOAT_EQ(w[0], 1);
}

TEST(AdaptiveOptimizer, StartsFromItsInitialAccumulatorAgainAfterReset) {
  std::vector<float> w = {0, 0};
  const auto optimizer = make("yogi", {{"initial_accumulator", 0.25}});
  optimizer->step(0.1, w, std::vector<float>{1, 2});
  optimizer->reset();
  EXPECT_EQ(optimizer->steps(), 0U);
  EXPECT_THAT(optimizer->moments().at(0).second, ElementsAre(0, 0));
  EXPECT_THAT(optimizer->moments().at(1).second, ElementsAre(0.25F, 0.25F));
}

TEST(AdaptiveOptimizer, RefusesBetasOfOneAndAZeroEpsilon) {
  EXPECT_THAT(test::error_of([] {
                make("adam", {{"beta1", 1}});
              }),
              HasSubstr("optimizer.beta1: got 1.0, expected a number from 0 to below 1"));
  EXPECT_THAT(test::error_of([] { make("yogi", {{"beta2", 1}}); }), HasSubstr("optimizer.beta2: got 1.0"));
  EXPECT_THAT(test::error_of([] { make("adam", {{"epsilon", 0}}); }), HasSubstr("optimizer.epsilon: got 0"));
  EXPECT_THAT(test::error_of([] { make("adagrad", {{"beta2", 0.9}}); }), HasSubstr("optimizer.beta2: unknown key"));
}

}  // namespace
}  // namespace fl
