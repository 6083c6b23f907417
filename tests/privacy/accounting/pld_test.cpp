#include "privacy/accounting/pld.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/base/rng.h"
#include "privacy/accounting/accountant.h"
#include "privacy/accounting/analytic_gaussian.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Adjacency kAdd = Adjacency::add_or_remove_one;
constexpr Adjacency kReplace = Adjacency::replace_one;

using Events = std::vector<PrivacyEvent>;

Events rounds(double q, double z, std::uint64_t count) { return {PrivacyEvent::gaussian(q, z, count)}; }

TEST(Pld, NothingReleasedCostsNothing) {
  PldComposer pld(1e-4);
  EXPECT_EQ(pld.epsilon({}, 1e-5, kAdd), 0);
  EXPECT_EQ(pld.epsilon(rounds(0, 1, 100), 1e-5, kAdd), 0);
  EXPECT_EQ(pld.epsilon(rounds(0, 0, 100), 1e-5, kAdd), 0);
  EXPECT_EQ(pld.epsilon(rounds(0.1, 1, 0), 1e-5, kAdd), 0);
  EXPECT_EQ(pld.delta({}, 0, kAdd), 0);
}

TEST(Pld, NoNoiseIsNoPromise) {
  PldComposer pld(1e-4);
  EXPECT_EQ(pld.epsilon(rounds(1e-6, 0, 1), 1e-5, kAdd), kInfinity);
  EXPECT_EQ(pld.delta(rounds(1e-6, 0, 1), 100, kAdd), 1);
  EXPECT_EQ(pld.epsilon(Events{PrivacyEvent::gaussian(0.1, 5, 10), PrivacyEvent::gaussian(0.1, 0, 1)}, 1e-5, kReplace),
            kInfinity);
}

TEST(Pld, GaussiansWithoutSamplingAreExactWhateverTheirNumber) {
  PldComposer pld(1e-4);
  const Events events{PrivacyEvent::gaussian(1, 10, 50), PrivacyEvent::gaussian(1, 40, 3'000),
                      PrivacyEvent::gaussian(1, 7, 1)};
  const double sigma = 1 / std::sqrt(50 / 100.0 + 3'000 / 1600.0 + 1 / 49.0);
  for (const double delta : {1e-3, 1e-5, 1e-12}) {
    EXPECT_NEAR(pld.epsilon(events, delta, kAdd), gaussian_epsilon(sigma, delta), 1e-7) << delta;
    EXPECT_NEAR(pld.epsilon(events, delta, kReplace), gaussian_epsilon(sigma / 2, delta), 1e-7) << delta;
  }
}

// Settings at the ends of every range: the answer is finite, never negative, and no less than for one of the hundred
// rounds.
TEST(Pld, ExtremeSettingsHaveSafeAnswers) {
  PldComposer pld(1e-3);
  for (const double q : {1e-6, 0.01, 0.9, 1.0}) {
    for (const double z : {0.1, 1.0, 100.0}) {
      for (const double delta : {1e-5, 1e-12}) {
        SCOPED_TRACE(testing::Message() << "q " << q << " z " << z << " delta " << delta);
        const double epsilon = pld.epsilon(rounds(q, z, 100), delta, kAdd);
        EXPECT_GE(epsilon, 0);
        EXPECT_LT(epsilon, 6000);
        EXPECT_GE(epsilon, pld.epsilon(rounds(q, z, 1), delta, kAdd) * (1 - 1e-9));
        // For rarer participation and δ near double's rounding, what both answers add for safety differs by more.
        if (q < 0.01) continue;
        EXPECT_LE(epsilon, pld.epsilon(rounds(q, z, 100), delta, kReplace) * (1 + 1e-9));
      }
    }
  }
}

// One round with q = 1e-6, σ = 0.1, a record removed. The outcome x has the loss ln(1 - q + q e^(100 x - 50)), which is
// 20 at x = 0.5 + 0.01 ln((e^20 - 1 + q) / q) = 0.8381551. So δ(20) = q Φ((1 - x) / σ) - (e^20 - 1 + q) Φ(-x / σ) =
// 1e-6 · 0.947217 - 4.85165e8 · 2.61174e-17 = 9.34546e-7. A million rounds see the record, mostly, with 1 - 1/e.
TEST(Pld, RareParticipationWithLittleNoise) {
  PldComposer pld(1e-3);
  EXPECT_NEAR(pld.delta(rounds(1e-6, 0.1, 1), 20, kAdd), 9.34546e-7, 1e-11);
  EXPECT_NEAR(pld.delta(rounds(1e-6, 0.1, 1'000'000), 10, kAdd), 1 - std::exp(-1), 1e-2);
  EXPECT_EQ(pld.epsilon(rounds(1e-6, 0.1, 1), 1e-5, kAdd), 0);
}

// One Gaussian round of σ = 10^4: exact 3e-5-ish ε, far below the default interval; a grid of 1e-4 alone would say
// 1e-4.
TEST(Pld, TinyEpsilonsGetAFinerGrid) {
  PldComposer pld(1e-4);
  for (const double sigma : {200.0, 1e4, 1e5}) {
    const double exact = gaussian_epsilon(sigma, 1e-9);
    EXPECT_NEAR(pld.epsilon(rounds(1, sigma, 1), 1e-9, kAdd), exact, 1e-4 * exact) << sigma;
    EXPECT_GE(pld.epsilon(rounds(1, sigma, 1), 1e-9, kAdd), exact * (1 - 1e-12)) << sigma;
  }
}

// A grid of 1e-4 would need 10^8 places and more; ε relative to the exact one, and to 10^6 rounds' Gaussian limit.
TEST(Pld, HugeEpsilonsGetACoarserGrid) {
  PldComposer pld(1e-4);
  for (const double sigma : {0.35, 0.1, 0.03}) {
    const double exact = gaussian_epsilon(sigma / std::sqrt(1000.0), 1e-5);
    const double found = pld.epsilon(rounds(1, sigma, 1000), 1e-5, kAdd);
    EXPECT_NEAR(found, exact, 1e-5 * exact) << sigma;
    EXPECT_GE(found, exact * (1 - 1e-12)) << sigma;
  }
  const double many = pld.epsilon(rounds(0.5, 1, 1'000'000), 1e-5, kAdd);
  EXPECT_LT(many, gaussian_epsilon(1 / std::sqrt(1e6), 1e-5));  // sampling helps
  EXPECT_GT(many, 1e4);
}

TEST(Pld, EpsilonAndDeltaAreInverse) {
  PldComposer pld(1e-3);
  for (const double delta : {0.1, 1e-3, 1e-6, 1e-10}) {
    const double epsilon = pld.epsilon(rounds(0.05, 1, 200), delta, kAdd);
    EXPECT_NEAR(pld.delta(rounds(0.05, 1, 200), epsilon, kAdd), delta, 1e-6 * delta);
  }
}

TEST(Pld, OrderAndGroupingOfEventsDoNotMatter) {
  PldComposer pld(1e-3);
  const PrivacyEvent a = PrivacyEvent::gaussian(0.01, 1, 300);
  const PrivacyEvent b = PrivacyEvent::gaussian(0.2, 4, 50);
  const PrivacyEvent c = PrivacyEvent::gaussian(1, 20, 7);
  const double epsilon = pld.epsilon(Events{a, b, c}, 1e-6, kAdd);
  EXPECT_EQ(pld.epsilon(Events{c, a, b}, 1e-6, kAdd), epsilon);
  Events singles{c, b};
  for (int i = 0; i < 300; ++i) singles.push_back(PrivacyEvent::gaussian(0.01, 1));
  EXPECT_NEAR(pld.epsilon(singles, 1e-6, kAdd), epsilon, 1e-9 * epsilon);
  EXPECT_GT(epsilon, pld.epsilon(Events{a, b}, 1e-6, kAdd));
}

TEST(Pld, EpsilonGrowsWithEveryRound) {
  PldComposer pld(1e-3);
  double last = 0;
  for (std::uint64_t t = 1; t <= 300; ++t) {
    const double epsilon = pld.epsilon(rounds(0.02, 0.9, t), 1e-5, kAdd);
    EXPECT_GE(epsilon, last) << t;
    // What was asked before must not change an answer.
    if (t % 100 == 0) {
      EXPECT_EQ(PldComposer(1e-3).epsilon(rounds(0.02, 0.9, t), 1e-5, kAdd), epsilon) << t;
    }
    last = epsilon;
  }
}

TEST(Pld, ManyUnlikeRoundsAreBetweenTheirExtremes) {
  PldComposer pld(1e-3);
  Events events;
  for (int i = 0; i < 40; ++i) events.push_back(PrivacyEvent::gaussian(0.05, 1 + 0.005 * i, 5));
  const double epsilon = pld.epsilon(events, 1e-6, kAdd);
  EXPECT_LT(epsilon, pld.epsilon(rounds(0.05, 1, 200), 1e-6, kAdd));
  EXPECT_GT(epsilon, pld.epsilon(rounds(0.05, 1.195, 200), 1e-6, kAdd));
}

TEST(Pld, OtherNoiseIsRefusedWithAnAccountantThatCan) {
  const auto pld = accountants().create({{"name", "pld"}}, "accountant");
  for (const auto kind : {PrivacyEvent::Kind::discrete_gaussian, PrivacyEvent::Kind::skellam}) {
    PrivacyEvent event;
    event.kind = kind;
    const std::string error = test::error_of([&] { (void)pld->epsilon(Events{event}, 1e-5, kAdd); });
    EXPECT_THAT(error, testing::StartsWith("accountant pld"));
    EXPECT_THAT(error, testing::HasSubstr("use rdp"));
  }
}

TEST(Pld, IntervalIsAnOption) {
  const auto coarse = accountants().create({{"name", "pld"}, {"interval", 0.05}}, "accountant");
  const auto fine = accountants().create({{"name", "pld"}}, "accountant");
  EXPECT_GT(coarse->epsilon(rounds(0.05, 1, 200), 1e-6, kAdd), fine->epsilon(rounds(0.05, 1, 200), 1e-6, kAdd) * 1.01);
  EXPECT_THAT(test::error_of([] {
                (void)accountants().create({{"name", "pld"}, {"interval", 0}}, "accountant");
              }),
              testing::HasSubstr("accountant.interval"));
}

/// Random settings, the same on every machine.
struct Setting {
  double q;
  double z;
  std::uint64_t count;
  double delta;
  double interval;  ///< small against one round's losses, so that the grid costs little
};

Setting random_setting(Rng& rng) {
  const auto between = [&](double low, double high) { return low * std::pow(high / low, rng.uniform()); };
  Setting setting{between(1e-3, 1.0), between(0.6, 20), 0, between(1e-9, 1e-3), 0};
  if (rng.below(8) == 0) setting.q = 1;
  setting.count = static_cast<std::uint64_t>(between(1, 1500));
  const double spread = setting.q * std::sqrt(std::expm1(1 / (setting.z * setting.z)));
  setting.interval = std::clamp(spread / 4, 1e-4, 2e-3);
  return setting;
}

TEST(PldProperties, HoldForAThousandRandomSettings) {
  const auto rdp = accountants().create({{"name", "rdp"}}, "accountant");
  Rng rng(2026, Purpose::evaluation);
  for (int i = 0; i < 1000; ++i) {
    const Setting s = random_setting(rng);
    PldComposer pld(s.interval);
    const Events events = rounds(s.q, s.z, s.count);
    const double epsilon = pld.epsilon(events, s.delta, kAdd);
    SCOPED_TRACE(testing::Message() << i << ": q " << s.q << " z " << s.z << " count " << s.count << " delta "
                                    << s.delta);
    ASSERT_GE(epsilon, 0);
    ASSERT_LE(epsilon, rdp->epsilon(events, s.delta, kAdd) + 1e-4);
    ASSERT_LE(epsilon, pld.epsilon(rounds(s.q, s.z, s.count + s.count / 10 + 1), s.delta, kAdd) + 1e-9);
    ASSERT_GE(epsilon, pld.epsilon(events, std::min(0.9, 2 * s.delta), kAdd) - 1e-9);
    switch (i % 4) {  // each needs a base of its own
      case 0:
        ASSERT_LE(epsilon, pld.epsilon(events, s.delta, kReplace) + 1e-9);
        break;
      case 1:
        ASSERT_LE(epsilon, pld.epsilon(rounds(std::min(1.0, 1.1 * s.q), s.z, s.count), s.delta, kAdd) + 1e-9);
        break;
      case 2:
        ASSERT_GE(epsilon, pld.epsilon(rounds(s.q, 1.1 * s.z, s.count), s.delta, kAdd) - 1e-9);
        break;
      default: {
        const PrivacyEvent other = PrivacyEvent::gaussian(0.3, 8, 20);
        const double both = pld.epsilon(Events{events[0], other}, s.delta, kAdd);
        ASSERT_NEAR(pld.epsilon(Events{other, events[0]}, s.delta, kAdd), both, 1e-9 * both);
        ASSERT_GE(both, epsilon - 1e-9);
      }
    }
  }
}

// Whatever the interval is, ε is that accountant's; a coarse one makes the thousand calibrations quick.
TEST(PldProperties, CalibrationNeverUnderNoisesInAThousandRandomSettings) {
  const auto pld = accountants().create({{"name", "pld"}, {"interval", 0.02}}, "accountant");
  Rng rng(2027, Purpose::evaluation);
  for (int i = 0; i < 1000; ++i) {
    const Setting s = random_setting(rng);
    const double target = 0.3 * std::pow(60, rng.uniform());
    const Adjacency adjacency = rng.below(2) == 0 ? kAdd : kReplace;
    SCOPED_TRACE(testing::Message() << i << ": q " << s.q << " count " << s.count << " delta " << s.delta << " target "
                                    << target);
    const auto events = [&](double z) { return rounds(s.q, z, s.count); };
    const double z = calibrate(*pld, events, target, s.delta, adjacency);
    ASSERT_LE(pld->epsilon(events(z), s.delta, adjacency), target);
    ASSERT_GT(pld->epsilon(events(0.999 * z), s.delta, adjacency), target);
  }
}

}  // namespace
}  // namespace fl
