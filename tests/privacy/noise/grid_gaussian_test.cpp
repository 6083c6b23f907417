#include "privacy/noise/grid_gaussian.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "fl_core/base/error.h"
#include "tests/privacy/noise/statistics.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::size_t kDraws = 1'000'000;

std::vector<std::int64_t> draws_of(const GridGaussian& noise, std::uint64_t key, std::size_t count = kDraws) {
  RandomBits bits(test::key_of(key));
  std::vector<std::int64_t> draws(count);
  noise.fill(bits, draws);
  return draws;
}

/// Draws over the standard deviation. Half a unit of jitter hides the grid from tests of a continuous distribution.
std::vector<double> standardised(const std::vector<std::int64_t>& draws, double units) {
  std::vector<double> values;
  RandomBits jitter(test::key_of(999));
  for (const std::int64_t k : draws) {
    const double shift = static_cast<double>(jitter.next_u64() >> 11) * 0x1p-53 - 0.5;
    values.push_back((static_cast<double>(k) + shift) / units);
  }
  return values;
}

TEST(GridGaussian, IsNormalAtEveryScale) {
  // One standard deviation of the mean of 10^6 draws is 0.001, of their variance √2 · 0.001, of their kurtosis √24 · 0.001;
  // the tolerances are 5 of them. 0.5 % of the standard deviation, which is promised, is 7.
  std::uint64_t key = 0;
  for (const double units : {256.0, 300.0, 511.9, 512.0, 1e5, 0x1p33, 1.99 * 0x1p40, 0x1p51, 0x1p52}) {
    const auto values = standardised(draws_of(GridGaussian(units, 0), ++key), units);
    const test::Moments moments = test::moments_of(values);
    EXPECT_NEAR(moments.mean, 0, 0.005) << units;
    EXPECT_NEAR(moments.variance, 1, 0.0071) << units;
    EXPECT_NEAR(std::sqrt(moments.variance), 1, 0.005) << units;
    EXPECT_NEAR(moments.kurtosis, 3, 0.0245) << units;
    EXPECT_LT(test::ks_statistic(values), 2.69) << units;
  }
}

TEST(GridGaussian, GivesEachIntegerItsProbability) {
  // At the least standard deviation single integers can be counted: P(k) = Φ((k + 1/2) / σ) - Φ((k - 1/2) / σ).
  constexpr double kStddev = 256;
  const auto draws = draws_of(GridGaussian(kStddev, 0), 1, 4 * kDraws);
  constexpr std::int64_t kEdge = 1200;
  std::vector<double> counts(2 * kEdge + 1);
  std::vector<double> expected(counts.size());
  const auto below = [](double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; };
  for (const std::int64_t k : draws) counts[static_cast<std::size_t>(std::clamp(k, -kEdge, kEdge) + kEdge)] += 1;
  for (std::int64_t k = -kEdge; k <= kEdge; ++k) {
    const double low = k == -kEdge ? 0 : below((static_cast<double>(k) - 0.5) / kStddev);
    const double high = k == kEdge ? 1 : below((static_cast<double>(k) + 0.5) / kStddev);
    expected[static_cast<std::size_t>(k + kEdge)] = static_cast<double>(draws.size()) * (high - low);
  }
  EXPECT_LT(test::chi_square_statistic(counts, expected), test::kOneInAMillion);
}

TEST(GridGaussian, UsesEveryLowBit) {
  // Each of the lowest 40 bits of draws of 2^44 is 1 half of the time: 5 standard deviations are 2500 of 10^6.
  const auto draws = draws_of(GridGaussian(0x1p44, 0), 2);
  for (int bit = 0; bit < 40; ++bit) {
    double ones = 0;
    for (const std::int64_t k : draws) ones += static_cast<double>(k >> bit & 1);
    EXPECT_NEAR(ones, 500'000, 2500) << bit;
  }
}

TEST(GridGaussian, HasTheTailsOfANormal) {
  // 2·10^7 draws beyond 3, 4 and 5 standard deviations: 2 Q(z) = 2.700e-3, 6.334e-5, 5.733e-7, so 53996, 1266.8 and 11.5 of
  // them. Tolerances: 5 standard deviations of a Poisson, √mean; for the last, P(Poisson(11.5) = 0 or > 33) < 2e-5.
  const auto draws = draws_of(GridGaussian(0x1p30, 0), 3, 20 * kDraws);
  double beyond[3] = {};
  for (const std::int64_t k : draws) {
    for (int z = 3; z <= 5; ++z) beyond[z - 3] += static_cast<double>(std::abs(k)) > z * 0x1p30 ? 1 : 0;
  }
  EXPECT_NEAR(beyond[0], 53996, 5 * 232.4);
  EXPECT_NEAR(beyond[1], 1266.8, 5 * 35.6);
  EXPECT_GT(beyond[2], 0);
  EXPECT_LT(beyond[2], 34);
}

TEST(GridGaussian, DrawsAreIndependent) {
  // The correlation of n pairs is 0 ± 1/√n: 5 standard deviations are 0.005. Squares, where a shared radius would show, too.
  const auto values = standardised(draws_of(GridGaussian(0x1p33, 0), 4), 0x1p33);
  for (const std::size_t lag : {1, 2, 3, 4, 64, 2048}) {
    double product = 0;
    double squares = 0;
    for (std::size_t i = 0; i + lag < values.size(); ++i) {
      product += values[i] * values[i + lag];
      squares += (values[i] * values[i] - 1) * (values[i + lag] * values[i + lag] - 1) / 2;
    }
    EXPECT_NEAR(product / kDraws, 0, 0.005) << lag;
    EXPECT_NEAR(squares / kDraws, 0, 0.005) << lag;
  }
}

TEST(GridGaussian, IsFixedForEver) {
  // Seeded runs must reproduce: these are what the first build drew.
  EXPECT_THAT(draws_of(GridGaussian(1.5, -30), 1, 4), ElementsAre(-3313528494, -318096883, 166247181, 1755852980));
  EXPECT_THAT(draws_of(GridGaussian(300, 0), 1, 4), ElementsAre(337, 196, 231, 180));
  std::int64_t sum = 0;
  for (const std::int64_t k : draws_of(GridGaussian(0x1p52, 0), 1)) sum += k >> 20;
  EXPECT_EQ(sum, 5888986694244);
}

TEST(GridGaussian, MeasuresStddevInUnitsOfTheGrid) {
  EXPECT_EQ(draws_of(GridGaussian(3.25, -20), 7, 1000), draws_of(GridGaussian(std::ldexp(3.25, 20), 0), 7, 1000));
  EXPECT_NE(draws_of(GridGaussian(3.25, -20), 7, 1000), draws_of(GridGaussian(3.25, -21), 7, 1000));
  EXPECT_EQ(GridGaussian(3.25, -20).grid(), -20);
  EXPECT_EQ(GridGaussian(3.25, -20).stddev(), 3.25);
}

TEST(GridGaussian, DrawsZerosForNoNoise) { EXPECT_THAT(draws_of(GridGaussian(0, -10), 1, 100), Each(0)); }

TEST(GridGaussian, RefusesWhatItCannotDraw) {
  EXPECT_NO_THROW(GridGaussian(256, 0));
  EXPECT_NO_THROW(GridGaussian(0x1p52, 0));
  EXPECT_THROW(GridGaussian(std::nextafter(256.0, 0.0), 0), ConfigError);
  EXPECT_THROW(GridGaussian(std::nextafter(0x1p52, 1e300), 0), ConfigError);
  EXPECT_THROW(GridGaussian(-1, -20), ConfigError);
  EXPECT_THROW(GridGaussian(std::numeric_limits<double>::quiet_NaN(), 0), ConfigError);
  EXPECT_THROW(GridGaussian(std::numeric_limits<double>::infinity(), 0), ConfigError);
  EXPECT_THROW(GridGaussian(0x1p-990, -1001), ConfigError);
  EXPECT_THAT(test::error_of([] { GridGaussian(1.0, 0); }), HasSubstr("expected 2^8 to 2^52"));
}

TEST(GridGaussian, TheGridOfFloatsIsFarFinerThanTheNoise) {
  for (const double stddev : {1.0, 1.5, 0.75, 1e-6, 1e6, 0x1p-900}) {
    const double units = std::ldexp(stddev, -GridGaussian::float_grid(stddev));
    EXPECT_GT(units, 0x1p43) << stddev;
    EXPECT_LE(units, 0x1p44) << stddev;
    EXPECT_NO_THROW(GridGaussian(stddev, GridGaussian::float_grid(stddev))) << stddev;
  }
  EXPECT_EQ(GridGaussian::float_grid(1.0), -44);
  EXPECT_EQ(GridGaussian::float_grid(1.5), -43);
  EXPECT_EQ(GridGaussian::float_grid(0), -149);
  EXPECT_THROW(GridGaussian::float_grid(-1), ConfigError);
  EXPECT_THROW(GridGaussian::float_grid(1e-300), ConfigError);
}

TEST(AddGaussian, AddsDrawsToValuesOnTheGrid) {
  const GridGaussian noise(1.0, -10);
  std::vector<float> values = {0.0F, 1.0F, -2.00048828125F, 1e6F, 0.3F, 0x1.234568p60F};
  RandomBits bits(test::key_of(8));
  add_gaussian(noise, bits, values);
  const auto draws = draws_of(noise, 8, 6);
  // In units of 1/1024: 0, 1024, -2048.5 (a tie, to even), 1.024e9, 307.2, and a large one.
  const double before[] = {0, 1024, -2048, 1.024e9, 307, 0x1.234568p70};
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(values[i], static_cast<float>((before[i] + static_cast<double>(draws[i])) / 1024)) << i;
  }
}

TEST(AddGaussian, ConvertsLargeAndSmallDrawsAlike) {
  // Up to 2^44 units a standard deviation there is a quicker conversion; beyond, the plain one.
  for (const int bits : {30, 44, 45, 52}) {
    const GridGaussian noise(1.0, -bits);
    std::vector<float> values = {0.0F, 1.0F, -0.25F, 3e4F, 1e9F, -1e-9F};
    RandomBits random(test::key_of(8));
    std::vector<float> out(values.size());
    add_gaussian(noise, random, values, 0.125, out);
    const auto draws = draws_of(noise, 8, values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double units = std::nearbyint(std::ldexp(static_cast<double>(values[i]), bits)) + static_cast<double>(draws[i]);
      EXPECT_EQ(out[i], static_cast<float>(units * std::ldexp(0.125, -bits))) << bits << " " << i;
    }
  }
}

TEST(AddGaussian, HidesWhatTheLowBitsOfAFloatWouldTell) {
  // Mironov 2012: sums of a float and unrounded noise can be told apart by their low bits. Here every sum is a multiple of the
  // grid, whatever was added to (sums below 2^24 units are held exactly).
  const GridGaussian noise(0.25, -12);
  for (const float value : {0.0F, 0.1F, 1.0F / 3, 1e-30F}) {
    std::vector<float> values(10'000, value);
    RandomBits bits(test::key_of(9));
    add_gaussian(noise, bits, values);
    for (const float sum : values) ASSERT_EQ(std::ldexp(sum, 12), std::nearbyint(std::ldexp(sum, 12)));
  }
}

TEST(AddGaussian, LeavesFloatsAloneWithoutNoise) {
  const GridGaussian noise(0, GridGaussian::float_grid(0));
  const std::vector<float> before = {0.1F, -1e38F, std::numeric_limits<float>::denorm_min(), 0.0F};
  std::vector<float> after = before;
  RandomBits bits(test::key_of(1));
  add_gaussian(noise, bits, after);
  EXPECT_EQ(after, before);
}

TEST(AddGaussian, HasTheStddevThatWasAskedFor) {
  const double stddev = 0.037;
  std::vector<float> values(kDraws, 1.0F);
  RandomBits bits(test::key_of(10));
  add_gaussian(GridGaussian(stddev, GridGaussian::float_grid(stddev)), bits, values);
  std::vector<double> noise;
  for (const float value : values) noise.push_back((static_cast<double>(value) - 1) / stddev);
  const test::Moments moments = test::moments_of(noise);
  EXPECT_NEAR(moments.mean, 0, 0.005);
  EXPECT_NEAR(std::sqrt(moments.variance), 1, 0.005) << "7 standard deviations of 10^6 draws";
}

}  // namespace
}  // namespace fl
