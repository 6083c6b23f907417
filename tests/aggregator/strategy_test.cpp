#include "aggregator/strategy/strategy.h"

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

/// Two weights and one statistic.
SharedLayout tiny_layout() {
  return std::make_shared<const Layout>(
      std::vector<Slot>{{"w", {2}, SlotKind::weight}, {"mean", {1}, SlotKind::statistic}});
}

std::unique_ptr<Strategy> make(json options) { return strategies().create(options, "strategy", {tiny_layout(), 8}); }

ParameterVector model(const std::vector<float>& values) {
  ParameterVector global(tiny_layout());
  std::copy(values.begin(), values.end(), global.values().begin());
  return global;
}

void run_round(Strategy& strategy, ParameterVector& global, const std::vector<float>& delta) {
  ASSERT_EQ(strategy.add(delta, 1), ExactSumError::none);
  strategy.step(global, strategy.finish());
}

TEST(FedAvg, AddsTheWeightedMeanToWeightsAndStatistics) {
  // (1·1 + 3·2)/4 = 1.75, (1·0 + 3·4)/4 = 3, (1·8 + 3·0)/4 = 2.
  const auto fedavg = make({{"name", "fedavg"}});
  ParameterVector global = model({10, 20, 30});
  EXPECT_EQ(fedavg->add(std::vector<float>{1, 0, 8}, 1), ExactSumError::none);
  EXPECT_EQ(fedavg->add(std::vector<float>{2, 4, 0}, 3), ExactSumError::none);
  const Aggregate aggregate = fedavg->finish();
  EXPECT_EQ(aggregate.total_weight, 4U);
  EXPECT_EQ(aggregate.contributors, 2U);
  EXPECT_THAT(aggregate.mean_delta.values(), ElementsAre(1.75F, 3, 2));
  fedavg->step(global, aggregate);
  EXPECT_THAT(global.values(), ElementsAre(11.75F, 23, 32));
}

TEST(FedAvg, ScalesTheMeanByTheServerLearningRate) {
  const auto fedavg = make({{"name", "fedavg"}, {"server_learning_rate", 0.5}});
  ParameterVector global = model({10, 20, 30});
  run_round(*fedavg, global, {1, 2, 4});
  EXPECT_THAT(global.values(), ElementsAre(10.5F, 21, 32));
}

TEST(FedOpt, IsServerMomentumWithAvgm) {
  // Hsu et al. 2019: m = β·m + Δ, w += m. With β = 1/2 and Δ = 1, then 2: m = 1, 2.5. The statistic just adds up.
  const auto fedopt = make({{"name", "fedopt"}, {"optimizer", "avgm"}, {"momentum", 0.5}});
  ParameterVector global = model({0, 10, 100});
  run_round(*fedopt, global, {1, -1, 3});
  EXPECT_THAT(global.values(), ElementsAre(1, 9, 103));
  run_round(*fedopt, global, {2, -2, 3});
  EXPECT_THAT(global.values(), ElementsAre(3.5F, 6.5F, 106));
}

TEST(FedOpt, WithAvgmWithoutMomentumIsFedAvg) {
  const auto fedopt = make({{"name", "fedopt"}, {"optimizer", "avgm"}, {"momentum", 0}});
  const auto fedavg = make({{"name", "fedavg"}});
  ParameterVector one = model({0.1F, 0.2F, 0.3F});
  ParameterVector other = one.clone();
  for (const float delta : {0.3F, -0.7F, 0.01F}) {
    run_round(*fedopt, one, {delta, 2 * delta, delta});
    run_round(*fedavg, other, {delta, 2 * delta, delta});
    EXPECT_TRUE(std::ranges::equal(one.values(), other.values()));
  }
}

/// Algorithm 2 of Reddi et al. 2021 for one weight, in double: m and v are updated from Δ, x += η·m / (√v + τ).
struct Algorithm2 {
  std::string name;
  double beta1 = 0.9;
  double eta = 0.1;
  double tau = 0.01;
  double beta2 = 0.99;
  double m = 0;
  double v = 0.0001;  // v_{-1} = τ²

  double step(double x, double delta) {
    const double square = delta * delta;
    m = beta1 * m + (1 - beta1) * delta;
    if (name == "adagrad") v = v + square;
    if (name == "yogi") v = v - (1 - beta2) * square * (v > square ? 1 : v < square ? -1 : 0);
    if (name == "adam") v = beta2 * v + (1 - beta2) * square;
    return x + eta * m / (std::sqrt(v) + tau);
  }
};

TEST(FedOpt, IsAlgorithm2OfThePaper) {
  for (const std::string name : {"adam", "yogi", "adagrad"}) {
    Algorithm2 paper{name};
    const auto fedopt = make({{"name", "fedopt"},
                              {"optimizer", name},
                              {"learning_rate", 0.1},
                              {"beta1", 0.9},
                              {"beta2", 0.99},
                              {"tau", 0.01}});
    ParameterVector global = model({1, 0, 0});
    double expected = 1;
    float statistic = 0;
    for (int round = 0; round < 30; ++round) {
      const float delta = static_cast<float>(std::ldexp(std::round(64 * std::sin(round)), -8));  // exact in fixed point
      run_round(*fedopt, global, {delta, 0, delta});
      expected = paper.step(expected, delta);
      statistic += delta;
      ASSERT_NEAR(global.values()[0], expected, 3e-6) << name << ", round " << round;
      ASSERT_EQ(global.values()[1], 0.0F) << name;
      ASSERT_EQ(global.values()[2], statistic) << name << ": statistics are averaged, not optimised";
    }
  }
}

json resolved(const std::string& optimizer) {
  return strategies().resolve({{"name", "fedopt"}, {"optimizer", optimizer}}, "strategy");
}

TEST(FedOpt, HasDefaultsThatSuitItsOptimizer) {
  // §4 of the paper: β1 = 0.9 for Adam and Yogi, 0 for Adagrad.
  EXPECT_EQ(resolved("avgm").at("learning_rate"), 1.0);
  EXPECT_EQ(resolved("adam").at("learning_rate"), 0.01);
  EXPECT_EQ(resolved("adam").at("beta1"), 0.9);
  EXPECT_EQ(resolved("yogi").at("beta1"), 0.9);
  EXPECT_EQ(resolved("adagrad").at("beta1"), 0.0);
  const json chosen = {{"name", "fedopt"}, {"optimizer", "adagrad"}, {"beta1", 0.5}, {"learning_rate", 0.25}};
  EXPECT_EQ(strategies().resolve(chosen, "strategy").at("beta1"), 0.5);
  EXPECT_EQ(strategies().resolve(chosen, "strategy").at("learning_rate"), 0.25);
  const json once = resolved("adagrad");
  EXPECT_EQ(strategies().resolve(once, "strategy"), once) << "the resolved form resolves to itself";
}

TEST(FedOpt, ExposesItsMomentsFromTheStart) {
  const auto names = [](const json& options) {
    std::vector<std::string> all;
    for (const auto& [name, values] : make(options)->state()) all.push_back(name + ":" + std::to_string(values.size()));
    return all;
  };
  EXPECT_THAT(names({{"name", "fedopt"}}), ElementsAre("first_moment:2", "second_moment:2"));
  EXPECT_THAT(names({{"name", "fedopt"}, {"optimizer", "avgm"}}), ElementsAre("momentum:2"));
  EXPECT_THAT(names({{"name", "fedopt"}, {"optimizer", "adagrad"}}), ElementsAre("second_moment:2"));
}

TEST(FedOpt, RefusesBadOptionsByPath) {
  const auto failure = [](json options) {
    options["name"] = "fedopt";
    return test::error_of([&] { make(options); });
  };
  EXPECT_THAT(failure({{"optimizer", "adm"}}),
              HasSubstr("strategy.optimizer: got \"adm\", expected one of \"avgm\", \"adam\""));
  EXPECT_THAT(failure({{"beta1", 1}}), HasSubstr("strategy.beta1: got 1.0, expected a number from 0 to below 1"));
  EXPECT_THAT(failure({{"tau", 0}}), HasSubstr("strategy.tau: got 0"));
  EXPECT_THAT(failure({{"learning_rate", -1}}), HasSubstr("strategy.learning_rate: got -1"));
}

}  // namespace
}  // namespace fl
