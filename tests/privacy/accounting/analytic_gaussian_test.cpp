#include "privacy/accounting/analytic_gaussian.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fl_core/base/rng.h"
#include "tests/privacy/accounting/vectors.h"

namespace fl {
namespace {

using test::Vector;
using test::vectors_of;

TEST(AnalyticGaussian, DeltaIsExactFarIntoTheTails) {
  // Φ(1/(2σ) − εσ) − e^ε Φ(−1/(2σ) − εσ) in 120 digits (mpmath 1.3).
  const struct {
    double sigma, epsilon, delta;
  } cases[] = {
      {1, 1, 0.1269367375066439},
      {1, 0, 0.3829249225480262},
      {0.05, 150, 0.9927919565629028},
      {0.2474873734152916, 24.716, 1.000085353900688e-5},
      {10, 0.9, 1.918491206889951e-21},
      {10, 1.15, 1.003166357197989e-32},
      {1000, 0.0001, 0.0003509528620156659},
      {1e6, 1e-06, 8.33155122454254e-8},
      {1e6, 6e-06, 1.563574486687203e-16},
      {0.0075, 10000, 3.69547686979151e-17},
      {0.0075, 8000, 0.9999999999862126},
      {0.001, 500000, 0.4996010581185313},
  };
  for (const auto& c : cases) {
    const double found = gaussian_delta(c.sigma, c.epsilon);
    EXPECT_GE(found, c.delta * (1 - 1e-12)) << c.sigma << " " << c.epsilon;
    EXPECT_LE(found, c.delta * (1 + 1e-9)) << c.sigma << " " << c.epsilon;
    // Near 1, δ does not say ε and σ to eight digits.
    if (c.delta > 0.999) continue;
    if (c.epsilon > 0) {
      EXPECT_NEAR(gaussian_epsilon(c.sigma, c.delta) / c.epsilon, 1, 1e-8) << c.sigma << " " << c.epsilon;
    }
    EXPECT_NEAR(gaussian_sigma(c.epsilon, c.delta) / c.sigma, 1, 1e-8) << c.sigma << " " << c.epsilon;
  }
  // 7.5e-1225 and 6.8e-1758 are nothing for a double.
  EXPECT_EQ(gaussian_delta(0.02, 5000), 0);
  EXPECT_EQ(gaussian_delta(3, 30), 0);
}

TEST(AnalyticGaussian, TailsKeepWhatTheComplementLoses) {
  // σ 0.35, twice: normal tails from ½ (1 + erf) give 24.608, which is less than is spent (tensorflow/privacy@03035d5d
  // compute_dp_sgd_privacy_test.py:L91 and 120 digits of mpmath: 24.716077860).
  EXPECT_NEAR(gaussian_epsilon(0.35 / std::sqrt(2.0), 1e-5), 24.716077860, 1e-8);
}

TEST(AnalyticGaussian, EdgesAreWhatTheyMustBe) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(gaussian_delta(0, 5), 1);
  EXPECT_EQ(gaussian_delta(infinity, 5), 0);
  EXPECT_EQ(gaussian_delta(1, infinity), 0);
  EXPECT_TRUE(std::isinf(gaussian_epsilon(0, 0.5)));
  EXPECT_EQ(gaussian_epsilon(infinity, 1e-9), 0);
  // δ(0) = 2Φ(½) − 1 = 0.3829…: whoever allows more spends no ε.
  EXPECT_EQ(gaussian_epsilon(1, 0.39), 0);
  EXPECT_GT(gaussian_epsilon(1, 0.38), 0);
}

TEST(AnalyticGaussian, InversesNeverClaimLessThanIsSpent) {
  Rng rng(5, Purpose::synthetic_data);
  for (int i = 0; i < 1000; ++i) {
    const double sigma = std::pow(10, -2 + 5 * rng.uniform());
    const double delta = std::pow(10, -20 * rng.uniform() - 0.01);
    const double epsilon = gaussian_epsilon(sigma, delta);
    EXPECT_LE(gaussian_delta(sigma, epsilon), delta * (1 + 1e-13)) << sigma << " " << delta;
    if (epsilon > 0) {
      EXPECT_GT(gaussian_delta(sigma, epsilon * (1 - 1e-8)), delta) << sigma << " " << delta;
    }
    const double target = std::pow(10, -4 + 6 * rng.uniform());
    const double needed = gaussian_sigma(target, delta);
    EXPECT_LE(gaussian_delta(needed, target), delta * (1 + 1e-13)) << target << " " << delta;
    EXPECT_GT(gaussian_delta(needed * (1 - 1e-8), target), delta) << target << " " << delta;
  }
}

/// The vectors that have one Gaussian without sampling; replacing moves the sum twice as far.
bool is_gaussian(const Vector& vector) { return vector.mechanism == "gaussian" && vector.q == 1; }
double factor(const Vector& vector) { return vector.adjacency == "replace_one" ? 2 : 1; }

TEST(GaussianVectors, DeltaIsThatOfOtherLibraries) {
  int tested = 0;
  for (const Vector& vector : vectors_of("delta_for_epsilon", "exact_hockey_stick")) {
    if (!is_gaussian(vector)) continue;
    const double sigma = vector.sigma / std::sqrt(vector.steps) / factor(vector);
    EXPECT_NEAR(gaussian_delta(sigma, vector.epsilon), vector.delta, vector.tolerance) << vector.id;
    ++tested;
  }
  EXPECT_EQ(tested, 7);
}

TEST(GaussianVectors, CalibrationIsThatOfOtherLibraries) {
  int tested = 0;
  for (const Vector& vector : vectors_of("calibrate_sigma", "exact_hockey_stick")) {
    if (!is_gaussian(vector)) continue;
    EXPECT_NEAR(factor(vector) * gaussian_sigma(vector.epsilon, vector.delta), vector.sigma, vector.tolerance)
        << vector.id;
    ++tested;
  }
  EXPECT_EQ(tested, 7);
}

TEST(GaussianVectors, UnlikeEventsAreOne) {
  const auto gaussian = accountants().create({{"name", "gaussian"}}, "accountant");
  for (const Vector& vector : vectors_of("delta_for_epsilon_heterogeneous", "exact_hockey_stick")) {
    const double found = gaussian->delta(vector.events(), vector.epsilon, Adjacency::add_or_remove_one);
    EXPECT_NEAR(found, vector.delta, vector.tolerance) << vector.id;
  }
}

TEST(GaussianVectors, NumericalCompositionsAgreeWithTheExactOne) {
  // V141 is 400 compositions; its exact δ is in the vector.
  for (const Vector& vector : vectors_of("delta_for_epsilon", "pld")) {
    if (!is_gaussian(vector)) continue;
    EXPECT_NEAR(gaussian_delta(vector.sigma / std::sqrt(vector.steps), vector.epsilon), vector.delta, vector.tolerance)
        << vector.id;
    if (vector.params.contains("exact")) {
      const double exact = vector.params.at("exact");
      EXPECT_NEAR(gaussian_delta(vector.sigma / std::sqrt(vector.steps), vector.epsilon), exact, 1e-8 * exact)
          << vector.id;
    }
  }
}

TEST(CltVectors, ExactCompositionExceedsTheCentralLimit) {
  const auto pld = accountants().create({{"name", "pld"}}, "accountant");
  for (const Vector& vector : vectors_of("forward", "gdp_clt")) {
    // Opacus' central limit theorem is no bound: what is spent is more.
    EXPECT_GT(pld->epsilon(std::vector{vector.event()}, vector.delta, Adjacency::add_or_remove_one), vector.epsilon)
        << vector.id;
  }
}

TEST(CltVectors, CalibrationByTheCentralLimitIsTooLittleNoise) {
  const auto pld = accountants().create({{"name", "pld"}}, "accountant");
  for (const Vector& vector : vectors_of("calibrate_sigma", "gdp_clt")) {
    EXPECT_GT(pld->epsilon(std::vector{vector.event()}, vector.delta, Adjacency::add_or_remove_one), vector.epsilon)
        << vector.id;
  }
}

}  // namespace
}  // namespace fl
