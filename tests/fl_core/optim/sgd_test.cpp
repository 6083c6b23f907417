#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "fl_core/optim/optimizer.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<Optimizer> sgd(json options = json::object()) {
  options["name"] = "sgd";
  return optimizers().create(options, "optimizer");
}

TEST(Sgd, StepsAgainstTheGradient) {
  std::vector<float> w = {1, 2};
  sgd()->step(0.5, w, std::vector<float>{2, -4});
  EXPECT_THAT(w, ElementsAre(0, 4));
}

TEST(Sgd, AddsUpMomentum) {
  // g = 1, momentum 1/2: m = 1, 1.5, 1.75; with rate 1, w = -1, -2.5, -4.25.
  std::vector<float> w = {0};
  const auto optimizer = sgd({{"momentum", 0.5}});
  for (const float expected : {-1.0F, -2.5F, -4.25F}) {
    optimizer->step(1, w, std::vector<float>{1});
    EXPECT_EQ(w[0], expected);
  }
  EXPECT_EQ(optimizer->steps(), 3U);
  EXPECT_THAT(optimizer->moments().at(0).second, ElementsAre(1.75F));
}

TEST(Sgd, LooksAheadWithNesterov) {
  // g = 1, momentum 1/2: m = 1, 1.5; steps of g + m/2 = 1.5, 1.75.
  std::vector<float> w = {0};
  const auto optimizer = sgd({{"momentum", 0.5}, {"nesterov", true}});
  optimizer->step(1, w, std::vector<float>{1});
  EXPECT_EQ(w[0], -1.5F);
  optimizer->step(1, w, std::vector<float>{1});
  EXPECT_EQ(w[0], -3.25F);
}

TEST(Sgd, DampsTheGradientFromTheFirstStepOn) {
  // dampening 1/4: m = 0.75, 0.75/2 + 0.75 = 1.125.
  std::vector<float> w = {0};
  const auto optimizer = sgd({{"momentum", 0.5}, {"dampening", 0.25}});
  optimizer->step(1, w, std::vector<float>{1});
  EXPECT_EQ(w[0], -0.75F);
  optimizer->step(1, w, std::vector<float>{1});
  EXPECT_EQ(w[0], -1.875F);
}

TEST(Sgd, DecaysWeights) {
  // g + w/2 = 2 with g = 1, w = 2.
  std::vector<float> w = {2};
  sgd({{"weight_decay", 0.5}})->step(0.25, w, std::vector<float>{1});
  EXPECT_EQ(w[0], 1.5F);
  sgd({{"weight_decay", 0.5}, {"momentum", 0.9}})->step(1, w, std::vector<float>{0});
  EXPECT_EQ(w[0], 0.75F);
}

TEST(Sgd, KeepsNoMomentWithoutMomentum) {
  const auto optimizer = sgd();
  optimizer->prepare(5);
  EXPECT_TRUE(optimizer->moments().empty());
}

TEST(Sgd, RefusesOptionsThatDoNotFitTogether) {
  EXPECT_THAT(test::error_of([] {
                sgd({{"nesterov", true}});
              }),
              HasSubstr("optimizer.nesterov: got true, expected false"));
  EXPECT_THAT(test::error_of([] {
                sgd({{"nesterov", true}, {"momentum", 0.9}, {"dampening", 0.1}});
              }),
              HasSubstr("optimizer.nesterov"));
  EXPECT_THAT(test::error_of([] { sgd({{"dampening", 0.1}}); }), HasSubstr("optimizer.dampening: got 0.1, expected 0"));
  EXPECT_THAT(test::error_of([] { sgd({{"momentum", -0.1}}); }), HasSubstr("optimizer.momentum: got -0.1"));
}

}  // namespace
}  // namespace fl
