#include "privacy/accounting/loss_power.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace fl {
namespace {

/// losses^count by plain convolutions: all terms positive, so every mass is right to about 1e-12, however small.
PrivacyLosses power(const PrivacyLosses& losses, std::uint64_t count) {
  if (count == 1) return losses;
  const PrivacyLosses half = power(losses, count / 2);
  const PrivacyLosses even = half.composed_with(half);
  return count % 2 == 0 ? even : even.composed_with(losses);
}

struct Setting {
  double q;
  double sigma;
  std::uint64_t count;
  double interval;
  double sharp_to;  ///< the smallest δ that must be right, not only safe
};

// The third has a tail so heavy that the tilted distribution is wider than any window of the bulk. The fourth loses
// hardly anything but, with probability 1e-10, a lot: between the two its δ is smaller than what doubles resolve beside
// both. The last is nearly a Gaussian.
const Setting kSettings[] = {{0.1, 1, 32, 0.02, 1e-24},    {0.01, 0.7, 100, 0.03, 1e-24}, {1e-3, 0.35, 50, 0.1, 1e-24},
                             {1e-6, 0.8, 64, 0.02, 1e-10}, {0.5, 2, 2, 0.01, 1e-24},      {1, 3, 20, 0.01, 1e-24}};

class PowersOf : public testing::TestWithParam<Setting> {
 protected:
  static GaussianLosses losses() {
    const Setting& setting = GetParam();
    return losses_of_gaussian({setting.q, setting.sigma, Adjacency::add_or_remove_one, setting.interval});
  }
  /// check(exact, composition): the power by plain convolutions beside the one by FFT, for removing and for adding a record.
  template <class Check>
  static void for_each_direction(Check check) {
    const GaussianLosses both = losses();
    for (const PrivacyLosses* one : {&both.remove, &both.add}) {
      if (one->mass.empty()) continue;
      FftCache ffts;
      LossComposition composition({{std::make_shared<LossBase>(*one), GetParam().count}}, ffts);
      check(power(*one, GetParam().count), composition);
    }
  }
};

TEST_P(PowersOf, DeltaIsThatOfPlainConvolutionsAndNeverBelow) {
  for_each_direction([](const PrivacyLosses& exact, LossComposition& composition) {
    for (const double epsilon : {0.0, 0.011, 0.1, 0.5, 1.0, 2.5, 6.0, 12.0}) {
      const double want = exact.delta(epsilon);
      const double got = composition.delta(epsilon).value();
      EXPECT_GE(got, want * (1 - 1e-11)) << epsilon;
      EXPECT_LE(got, want * (1 + 1e-5) + GetParam().sharp_to) << epsilon;
    }
  });
}

TEST_P(PowersOf, EpsilonIsThatOfPlainConvolutionsAndNeverBelow) {
  for_each_direction([](const PrivacyLosses& exact, LossComposition& composition) {
    for (const double delta : {0.3, 1e-2, 1e-3, 1e-5, 1e-7, 1e-9, 1e-12, 1e-15, 1e-20}) {
      const double want = exact.epsilon(delta);
      const double got = composition.epsilon(delta).value();
      EXPECT_GE(got, want - 1e-10) << delta;
      EXPECT_LE(got, want + (delta >= GetParam().sharp_to ? 1e-6 : 1)) << delta;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Settings, PowersOf, testing::ValuesIn(kSettings));

TEST(LossComposition, UnlikeBasesComposeAsPlainConvolutions) {
  const PrivacyLosses a = losses_of_gaussian({0.1, 1, Adjacency::add_or_remove_one, 0.02}).remove;
  const PrivacyLosses b = losses_of_gaussian({0.5, 4, Adjacency::add_or_remove_one, 0.02}).remove;
  const PrivacyLosses exact = power(a, 8).composed_with(power(b, 10));
  FftCache ffts;
  LossComposition composition({{std::make_shared<LossBase>(a), 8}, {std::make_shared<LossBase>(b), 10}}, ffts);
  for (const double delta : {0.1, 1e-5, 1e-10}) {
    EXPECT_NEAR(composition.epsilon(delta).value(), exact.epsilon(delta), 1e-7) << delta;
    EXPECT_GE(composition.epsilon(delta).value(), exact.epsilon(delta) - 1e-10) << delta;
  }
}

TEST(LossComposition, InfiniteMassAddsUp) {
  PrivacyLosses losses{0.1, -1, {0.2, 0.5, 0.29}, 0.01};
  FftCache ffts;
  LossComposition composition({{std::make_shared<LossBase>(losses), 5}}, ffts);
  const double infinite = 1 - std::pow(0.99, 5);
  EXPECT_EQ(composition.epsilon(infinite * 0.999).value(), std::numeric_limits<double>::infinity());
  EXPECT_LE(composition.epsilon(infinite * 1.001).value(), 0.5 + 1e-9);
  EXPECT_NEAR(composition.delta(0.6).value(), infinite, 1e-12);
}

TEST(LossComposition, AnswersBelowTheFloorAreTheFloor) {
  const PrivacyLosses losses = losses_of_gaussian({0.1, 1, Adjacency::add_or_remove_one, 0.02}).remove;
  FftCache ffts;
  LossComposition composition({{std::make_shared<LossBase>(losses), 8}}, ffts);
  const double epsilon = composition.epsilon(1e-5).value();
  EXPECT_EQ(composition.epsilon(1e-5, epsilon + 5), epsilon + 5);
  EXPECT_EQ(composition.epsilon(1e-5, epsilon / 2), epsilon);
  EXPECT_EQ(composition.delta(epsilon, 0.9), 0.9);
}

TEST(LossComposition, SaysWhenItsWindowWouldBeTooLarge) {
  const PrivacyLosses losses = losses_of_gaussian({0.5, 1, Adjacency::add_or_remove_one, 1e-4}).remove;
  FftCache ffts;
  LossComposition composition({{std::make_shared<LossBase>(losses), 100'000}}, ffts);
  EXPECT_FALSE(composition.epsilon(1e-5).has_value());
  EXPECT_GT(composition.places(), static_cast<double>(LossComposition::kMaxWindow));
}

TEST(LossBase, MomentsAreSumsOverTheMasses) {
  const PrivacyLosses losses = losses_of_gaussian({0.2, 1.5, Adjacency::add_or_remove_one, 0.013}).remove;
  LossBase base(losses);
  for (const int i : {-60, -45, -20, 0, 1, 30, 45, 53, 60}) {
    double sum = 0;
    for (std::size_t j = 0; j < losses.mass.size(); ++j) {
      sum += losses.mass[j] *
             std::exp(LossBase::order(i) * static_cast<double>(losses.first + static_cast<std::int64_t>(j)) * 0.013);
    }
    EXPECT_NEAR(base.log_moment(i), std::log(sum), 1e-12 * (1 + std::abs(std::log(sum)))) << i;
  }
  // E_P[Q/P] = 1, less nothing: what the grid moved up lowers it.
  EXPECT_LE(base.log_moment(-45), 1e-12);
}

}  // namespace
}  // namespace fl
