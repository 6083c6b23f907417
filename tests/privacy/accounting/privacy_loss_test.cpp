#include "privacy/accounting/privacy_loss.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "fl_core/base/error.h"
#include "privacy/accounting/analytic_gaussian.h"
#include "tests/privacy/accounting/vectors.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::Vector;
using test::vectors_of;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double total(const PrivacyLosses& losses) {
  return std::accumulate(losses.mass.begin(), losses.mass.end(), 0.0) + losses.infinity;
}

/// Losses with these masses at multiples of the interval.
PrivacyLosses losses_of(const nlohmann::json& vector) {
  PrivacyLosses losses;
  losses.interval = vector.at("interval");
  losses.infinity = vector.at("infinity_mass");
  std::map<std::int64_t, double> pmf;
  for (const auto& [key, mass] : vector.at("pmf").items()) pmf[std::stoll(key)] = mass;
  losses.first = pmf.begin()->first;
  losses.mass.assign(static_cast<std::size_t>(pmf.rbegin()->first - losses.first + 1), 0.0);
  for (const auto& [key, mass] : pmf) losses.mass[static_cast<std::size_t>(key - losses.first)] = mass;
  return losses;
}

// google/differential-privacy@b5b0286e313b:cc/accounting/privacy_loss_distribution_test.cc L363-L420.
TEST(PldLossVectors, RawDistributions) {
  for (const nlohmann::json& vector : test::privacy_vectors().at("raw_privacy_loss_distribution").at("vectors")) {
    const PrivacyLosses losses = losses_of(vector);
    const double epsilon = losses.epsilon(vector.at("delta"));
    if (!vector.contains("epsilon")) {
      // Theirs guards against overflow; ours rounds δ = 0.4 up, beyond a step of the curve.
      EXPECT_LE(epsilon, vector.at("epsilon_upper_bound").get<double>()) << vector;
      EXPECT_GE(epsilon, vector.at("exact").get<double>() - 1e-9) << vector;
    } else if (vector.at("epsilon") == "infinity") {
      EXPECT_EQ(epsilon, kInfinity) << vector;
    } else {
      EXPECT_NEAR(epsilon, vector.at("epsilon").get<double>(), 1e-8) << vector;
    }
    if (epsilon == kInfinity) continue;
    EXPECT_LE(losses.delta(epsilon), vector.at("delta").get<double>() + 1e-12) << vector;
  }
}

/// The direction that a vector names.
PrivacyLosses direction_of(const Vector& vector, double interval) {
  GaussianLossesShape shape{vector.q, vector.sigma, Adjacency::add_or_remove_one, interval};
  if (vector.adjacency == "replace_one") shape.adjacency = Adjacency::replace_one;
  GaussianLosses losses = losses_of_gaussian(shape);
  return vector.adjacency == "add" && vector.q < 1 ? losses.add : losses.remove;
}

TEST(PldLossVectors, HockeyStickOfOneSampledGaussianInEachDirection) {
  int seen = 0;
  for (const Vector& vector : vectors_of("delta_for_epsilon", "exact_hockey_stick")) {
    if (vector.mechanism != "poisson_subsampled_gaussian" && !(vector.mechanism == "gaussian" && vector.steps == 1))
      continue;
    EXPECT_NEAR(direction_of(vector, 1e-4).delta(vector.epsilon), vector.delta, vector.tolerance) << vector.id;
    ++seen;
  }
  EXPECT_EQ(seen, 14);  // V090 to V103
}

TEST(PldLossVectors, NoiseOfOneSampledGaussianInEachDirection) {
  int seen = 0;
  for (const Vector& vector : vectors_of("calibrate_sigma", "exact_hockey_stick")) {
    if (vector.adjacency == "add_or_remove_one") continue;
    // Their σ is right to the tolerance: less noise breaks the promise, more keeps it.
    Vector other = vector;
    other.sigma = vector.sigma * (1 + vector.tolerance);
    EXPECT_LE(direction_of(other, 1e-4).delta(vector.epsilon), vector.delta) << vector.id;
    other.sigma = vector.sigma * (1 - vector.tolerance);
    EXPECT_GT(direction_of(other, 1e-4).delta(vector.epsilon), vector.delta) << vector.id;
    ++seen;
  }
  EXPECT_EQ(seen, 11);  // V079 to V089
}

/// A discrete Gaussian on -bound … bound, shifted, as probabilities of the outcomes -bound … bound + room.
std::vector<double> truncated(double sigma, int bound, int shift, int room) {
  std::vector<double> pmf(static_cast<std::size_t>(2 * bound + room + 1), 0.0);
  double sum = 0;
  for (int x = -bound; x <= bound; ++x) sum += std::exp(-x * x / (2 * sigma * sigma));
  for (int x = -bound; x <= bound; ++x) {
    pmf[static_cast<std::size_t>(x + bound + shift)] = std::exp(-x * x / (2 * sigma * sigma)) / sum;
  }
  return pmf;
}

TEST(PldLossVectors, TruncatedDiscreteGaussian) {
  int seen = 0;
  for (const Vector& vector : vectors_of("delta_for_epsilon", "exact_hockey_stick")) {
    if (vector.mechanism != "discrete_gaussian_truncated") continue;
    const int bound = vector.params.at("truncation_bound");
    const int shift = vector.params.at("sensitivity");
    const std::vector<double> without = truncated(vector.sigma, bound, 0, shift);
    std::vector<double> with = truncated(vector.sigma, bound, shift, shift);
    for (std::size_t i = 0; i < with.size(); ++i) with[i] = (1 - vector.q) * without[i] + vector.q * with[i];
    const bool remove = vector.adjacency == "remove";
    const PrivacyLosses losses = losses_of_outcomes(remove ? with : without, remove ? without : with, 1e-4);
    EXPECT_NEAR(losses.delta(vector.epsilon), vector.delta, vector.tolerance) << vector.id;
    EXPECT_NEAR(total(losses), 1, 1e-14) << vector.id;
    ++seen;
  }
  EXPECT_EQ(seen, 4);  // V104 to V107
}

TEST(PrivacyLoss, ExactGaussianWithinEightDigitsAtAFineInterval) {
  for (const double sigma : {0.5, 1.0, 3.0, 20.0}) {
    const PrivacyLosses losses = losses_of_gaussian({1, sigma, Adjacency::add_or_remove_one, 1e-5}).remove;
    for (const double delta : {1e-2, 1e-5, 1e-9, 1e-12}) {
      const double exact = gaussian_epsilon(sigma, delta);
      EXPECT_NEAR(losses.epsilon(delta), exact, 1e-8 * std::max(1.0, exact)) << sigma << ' ' << delta;
      EXPECT_GE(losses.epsilon(delta), exact * (1 - 1e-12)) << sigma << ' ' << delta;
    }
    for (const double epsilon : {0.0, 0.01234567, 1.0, 3.3333333}) {
      const double exact = gaussian_delta(sigma, epsilon);
      EXPECT_NEAR(losses.delta(epsilon), exact, 1e-8 * exact + 1e-20) << sigma << ' ' << epsilon;
    }
  }
}

TEST(PrivacyLoss, ReplacingIsAddingWithTwiceTheSensitivityWhenAllTakePart) {
  const PrivacyLosses replace = losses_of_gaussian({1, 3, Adjacency::replace_one, 1e-4}).remove;
  const PrivacyLosses add = losses_of_gaussian({1, 1.5, Adjacency::add_or_remove_one, 1e-4}).remove;
  for (const double epsilon : {0.0, 0.5, 2.0}) EXPECT_NEAR(replace.delta(epsilon), add.delta(epsilon), 1e-12);
}

// δ_add(ε) = δ_remove(-ε) e^ε + 1 - e^ε holds for every pair (hockey-sticks of (Q, P) and (P, Q)).
TEST(PrivacyLoss, DirectionsAreDual) {
  for (const double sigma : {0.4, 1.0, 5.0}) {
    for (const double q : {1e-6, 0.01, 0.6}) {
      const GaussianLosses losses = losses_of_gaussian({q, sigma, Adjacency::add_or_remove_one, 1e-3});
      for (const double epsilon : {0.0, 0.005, 0.1, 0.5}) {
        const double dual = losses.remove.delta(-epsilon) * std::exp(epsilon) - std::expm1(epsilon);
        EXPECT_NEAR(losses.add.delta(epsilon), std::max(0.0, dual), 1e-10) << q << ' ' << sigma << ' ' << epsilon;
      }
    }
  }
}

TEST(PrivacyLoss, MassesSumToOneAndExplainTheOtherSide) {
  for (const double sigma : {0.05, 0.1, 1.0, 100.0}) {
    for (const double q : {1e-6, 0.01, 0.5, 1.0}) {
      for (const Adjacency adjacency : {Adjacency::add_or_remove_one, Adjacency::replace_one}) {
        const GaussianLossesShape shape{q, sigma, adjacency, 1e-2};
        const GaussianLosses losses = losses_of_gaussian(shape);
        for (const PrivacyLosses* one : {&losses.remove, &losses.add}) {
          if (one->mass.empty()) continue;
          EXPECT_NEAR(total(*one), 1, 1e-12) << q << ' ' << sigma;
          EXPECT_LE(one->infinity, 1e-28) << q << ' ' << sigma;
          double explained = 0;  // Q's probability of all outcomes: at most 1 for a pessimistic distribution
          for (std::size_t i = 0; i < one->mass.size(); ++i) {
            EXPECT_GE(one->mass[i], 0);
            explained += one->mass[i] *
                         std::exp(-static_cast<double>(one->first + static_cast<std::int64_t>(i)) * one->interval);
          }
          EXPECT_LE(explained, 1 + 1e-12) << q << ' ' << sigma;
        }
      }
    }
  }
}

TEST(PrivacyLoss, CoarserGridsAreMorePessimistic) {
  const PrivacyLosses fine = losses_of_gaussian({0.1, 0.8, Adjacency::add_or_remove_one, 1e-3}).remove;
  const PrivacyLosses coarse = losses_of_gaussian({0.1, 0.8, Adjacency::add_or_remove_one, 0.128}).remove;
  for (double epsilon = -0.1; epsilon < 8; epsilon += 0.0137) {
    EXPECT_GE(coarse.delta(epsilon), fine.delta(epsilon) * (1 - 1e-9)) << epsilon;
  }
  EXPECT_GT(coarse.delta(1.0), fine.delta(1.0) * 1.001);  // 1.0 is no multiple of 0.128
}

TEST(PrivacyLoss, OutcomesOfOneSideOnlyAreInfinite) {
  const std::vector<double> upper{0.25, 0.75, 0};
  const std::vector<double> lower{0, 0.75, 0.25};
  const PrivacyLosses losses = losses_of_outcomes(upper, lower, 0.1);
  EXPECT_EQ(losses.infinity, 0.25);
  EXPECT_NEAR(losses.delta(0), 0.25, 1e-12);
  EXPECT_EQ(losses.epsilon(0.2), kInfinity);
  EXPECT_EQ(losses.epsilon(0.26), 0);
}

TEST(PrivacyLoss, CompositionAddsLossesAndInfinities) {
  const PrivacyLosses a{0.5, 2, {0.5, 0.3}, 0.2};
  const PrivacyLosses b{0.5, -1, {0.9}, 0.1};
  const PrivacyLosses both = a.composed_with(b);
  EXPECT_EQ(both.first, 1);
  EXPECT_THAT(both.mass, testing::ElementsAre(testing::DoubleEq(0.45), testing::DoubleEq(0.27)));
  EXPECT_DOUBLE_EQ(both.infinity, 1 - 0.8 * 0.9);
}

TEST(PrivacyLoss, DistributionsOfUnlikeIntervalsRefuseToCompose) {
  const PrivacyLosses a{0.5, 0, {1.0}, 0};
  const PrivacyLosses b{0.25, 0, {1.0}, 0};
  EXPECT_THAT(test::error_of([&] { (void)a.composed_with(b); }), testing::HasSubstr("same interval"));
}

/// The losses of any (ε, δ)-private mechanism are at most these: randomised response that fails openly with probability
/// δ.
PrivacyLosses worst_of(double epsilon, double delta) {
  const double yes = (1 - delta) * std::exp(epsilon) / (1 + std::exp(epsilon));
  PrivacyLosses losses{epsilon, -1, {1 - delta - yes, 0, yes}, delta};
  return losses;
}

TEST(PldLossVectors, AdvancedComposition) {
  for (const Vector& vector : vectors_of("advanced_composition", "advanced_composition")) {
    const double step = vector.params.at("per_query_epsilon");
    const PrivacyLosses one = worst_of(step, vector.params.at("per_query_delta"));
    PrivacyLosses all = one;
    for (int i = 1; i < vector.steps; ++i) all = all.composed_with(one);
    // Theirs looks at sums of the steps only, 2 apart: it promises this one, and the next smaller one would be a lie.
    EXPECT_LE(all.delta(vector.epsilon), vector.delta + 1e-15) << vector.id;
    EXPECT_GT(all.delta(vector.epsilon - 2 * step), vector.delta) << vector.id;
    EXPECT_LE(all.epsilon(vector.delta), vector.epsilon + vector.tolerance) << vector.id;
    EXPECT_GT(all.epsilon(vector.delta), vector.epsilon - 2 * step) << vector.id;
  }
}

}  // namespace
}  // namespace fl
