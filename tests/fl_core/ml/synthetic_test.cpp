#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "fl_core/ml/dataset.h"
#include "tests/support/data_files.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using test::example;
using ::testing::ElementsAre;
using ::testing::StartsWith;

DataSplits load(json options, std::uint64_t seed = 1) {
  options["name"] = "synthetic";
  return data_sources().create(options, "data")->load(seed);
}

TEST(Synthetic, HasTheShapeAndSizeAskedFor) {
  const DataSplits splits = load({{"examples", 7}, {"test_examples", 3}, {"input", {2, 3}}, {"classes", 3}});
  EXPECT_THAT(splits.train->labels(), ElementsAre(0, 1, 2, 0, 1, 2, 0));
  EXPECT_EQ(splits.test->size(), 3U);
  EXPECT_THAT(splits.test->shape().input, ElementsAre(2, 3));
}

TEST(Synthetic, DependsOnTheSeedOnly) {
  EXPECT_EQ(load({}, 5).train->fingerprint(), load({}, 5).train->fingerprint());
  EXPECT_NE(load({}, 5).train->fingerprint(), load({}, 6).train->fingerprint());
  const DataSplits splits = load({{"examples", 50}, {"test_examples", 50}});
  EXPECT_NE(splits.train->fingerprint(), splits.test->fingerprint());
}

TEST(Synthetic, PutsEveryClassMeanAtTheSeparation) {
  // Without noise an example is its class mean, in both parts.
  const DataSplits splits = load({{"separation", 2.5}, {"noise", 0}, {"input", {7}}});
  for (std::uint32_t label = 0; label < 4; ++label) {
    const auto mean = example(*splits.train, label);
    double squares = 0;
    for (const float value : mean) squares += static_cast<double>(value) * value;
    EXPECT_NEAR(std::sqrt(squares), 2.5, 1e-5);
    EXPECT_EQ(mean, example(*splits.test, label));
  }
}

TEST(Synthetic, AddsNoiseOfTheGivenDeviation) {
  // 4000 × 10 draws of N(0, 0.5²): the variance has the standard error 0.25 · √(2 / 40000) = 0.0018; four of them.
  const DataSplits splits = load({{"examples", 4000}, {"separation", 0}, {"noise", 0.5}});
  double sum = 0, squares = 0;
  for (std::uint32_t i = 0; i < 4000; ++i) {
    for (const float value : example(*splits.train, i)) {
      sum += value;
      squares += static_cast<double>(value) * value;
    }
  }
  EXPECT_NEAR(sum / 40000, 0, 4 * 0.5 / 200);
  EXPECT_NEAR(squares / 40000, 0.25, 4 * 0.0018);
}

TEST(Synthetic, RejectsWhatDoesNotFitIntoMemory) {
  EXPECT_THAT(error_of([] { load({{"examples", 4000000000}, {"input", {100, 100}}}); }),
              StartsWith("data.examples: got 4000000000, expected examples × the product of 'input' to be at most 2^32"));
  EXPECT_THAT(error_of([] { load({{"input", json::array()}}); }), StartsWith("data.input: got []"));
}

}  // namespace
}  // namespace fl
