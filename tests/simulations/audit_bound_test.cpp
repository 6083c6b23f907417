#include "simulations/audit_bound.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "fl_core/base/rng.h"

namespace fl {
namespace {

TEST(ClopperPearson, HasTheKnownUpperEnds) {
  // None of n: (1 - p)^n = level. All but one: 1 - p^n = level.
  EXPECT_NEAR(clopper_pearson_upper(0, 100, 0.025), 1 - std::pow(0.025, 0.01), 1e-11);
  EXPECT_NEAR(clopper_pearson_upper(9, 10, 0.025), std::pow(0.975, 0.1), 1e-11);
  EXPECT_EQ(clopper_pearson_upper(10, 10, 0.025), 1);
  // 1 of 10 and 5 of 10: the 95 % intervals (0.0025, 0.4450) and (0.1871, 0.8129) of any table (Clopper, Pearson 1934).
  EXPECT_NEAR(clopper_pearson_upper(1, 10, 0.025), 0.4450, 5e-5);
  EXPECT_NEAR(clopper_pearson_upper(5, 10, 0.025), 0.8129, 5e-5);
}

TEST(EpsilonLowerBound, IsTheMostForATestThatNeverErrs) {
  const std::vector<double> with(100, 1.0);
  const std::vector<double> without(100, -1.0);
  const EpsilonBound bound = epsilon_lower_bound(with, without, 0.01, 0.95);
  EXPECT_EQ(bound.evaluated, 50U);
  EXPECT_EQ(bound.false_positives + bound.false_negatives, 0U);
  // No error in 50 at 97.5 %: a rate of at most 1 - 0.025^(1/50) = 0.07112; ln((1 - 0.01 - 0.07112) / 0.07112) = 2.5588.
  EXPECT_NEAR(bound.epsilon, 2.5588, 1e-4);
  EXPECT_EQ(bound.epsilon, most_epsilon(100, 0.01, 0.95));
}

TEST(EpsilonLowerBound, CountsErrorsInTheSecondHalvesOnly) {
  // The first halves part at 0.5 without an error. In the second: 1 of 50 is seen falsely, 10 of 50 are missed.
  std::vector<double> with(100, 1.0);
  std::vector<double> without(100, 0.0);
  std::fill(with.begin() + 50, with.begin() + 60, 0.0);
  without[70] = 1;
  const EpsilonBound bound = epsilon_lower_bound(with, without, 0, 0.95);
  EXPECT_EQ(bound.false_positives, 1U);
  EXPECT_EQ(bound.false_negatives, 10U);
  const double fpr = clopper_pearson_upper(1, 50, 0.025);
  const double fnr = clopper_pearson_upper(10, 50, 0.025);
  EXPECT_DOUBLE_EQ(bound.epsilon, std::log((1 - fnr) / fpr));
  // The canary may be what a missing one looks like: the mirrored test is as good.
  const EpsilonBound mirrored = epsilon_lower_bound(with, without, 0.02, 0.95);
  EXPECT_LT(mirrored.epsilon, bound.epsilon) << "what delta allows is no leak";
}

TEST(EpsilonLowerBound, SaysNothingOfScoresThatAreAlike) {
  std::vector<double> scores(400);
  std::iota(scores.begin(), scores.end(), 0.0);
  EXPECT_LT(epsilon_lower_bound(scores, scores, 0, 0.95).epsilon, 0.2);
  const std::vector<double> constant(400, 3.0);
  EXPECT_EQ(epsilon_lower_bound(constant, constant, 0, 0.95).epsilon, 0);
}

/// Randomised response with ε = 1 says the truth with chance e / (1 + e) and leaks no more than 1.
TEST(EpsilonLowerBound, ExceedsTheTruthNoMoreOftenThanItsConfidenceSays) {
  const double truth = std::exp(1.0) / (1 + std::exp(1.0));
  Rng rng(1, Purpose::synthetic_data);
  constexpr int kAudits = 1000;
  int exceeded = 0;
  double mean = 0;
  for (int i = 0; i < kAudits; ++i) {
    std::vector<double> with(400);
    std::vector<double> without(400);
    for (double& one : with) one = rng.uniform() < truth ? 1 : 0;
    for (double& one : without) one = rng.uniform() < truth ? 0 : 1;
    const double bound = epsilon_lower_bound(with, without, 0, 0.95).epsilon;
    exceeded += bound > 1 ? 1 : 0;
    mean += bound / kAudits;
  }
  // At most 5 % with 4 standard deviations of a count of 1000: 50 + 4 · 6.9.
  EXPECT_LE(exceeded, 77);
  // 54 of 200 err at either side: rates below 0.337, ln(0.663 / 0.337) = 0.68.
  EXPECT_GT(mean, 0.55);
  EXPECT_LT(mean, 0.85);
}

}  // namespace
}  // namespace fl
