#include "privacy/noise/bells.h"

#include <gtest/gtest.h>

#include <cmath>

#include "privacy/noise/exponential.h"

namespace fl {
namespace {

struct Point {
  double scale;  ///< standard deviation, or variance
  std::int64_t k;
  std::uint64_t value;  ///< g(k) · 2^62
};

void expect_close(const Bell& bell, const Point& point) {
  const auto difference = static_cast<std::int64_t>(bell.precise(point.k) - point.value);
  EXPECT_LE(std::abs(difference), 6) << point.scale << " " << point.k;
  const double exact = static_cast<double>(point.value) * 0x1p-62;
  // The table's own rounding shows where the value is small.
  EXPECT_NEAR(bell.rough(point.k), exact, exact * 0x1p-41 + 0x1p-62) << point.scale << " " << point.k;
  EXPECT_EQ(bell.precise(point.k), bell.precise(-point.k));
  EXPECT_EQ(bell.rough(point.k), bell.rough(-point.k));
}

TEST(RoundedGaussianBell, IsTheIntegralOfTheDensity) {
  // mpmath, 400 bits: quad(exp(-t²/2)) from (k - 1/2) / σ to (k + 1/2) / σ, times σ.
  for (const Point& point : {Point{256, 0, 4611683086398058222}, Point{256, 255, 2808055178607280572}, Point{300.5, -1000, 18160887036282339},
                             Point{1e6, 3, 4611686018406443163}, Point{1e6, 1234567, 2152254036598983742},
                             Point{0x1p52, std::int64_t{1} << 52, 2797128963144291325},
                             Point{3.7e15, 10'000'000'000'000'000, 119587443698623814}}) {
    expect_close(*rounded_gaussian_bell(point.scale), point);
  }
}

TEST(LargeSkellamBell, IsTheBesselFunction) {
  // mpmath, 400 bits: exp(-v) besseli(k, v) sqrt(2 pi v).
  for (const Point& point : {Point{0x1p20, 0, 4611686568183496704}, Point{0x1p20, 1024, 2797128740848218708}, Point{1.5e6, -3000, 229602346224118908},
                             Point{0x1p20, 9000, 78}, Point{1e9, 40'000, 2072164101145038000}, Point{0x1p40, 1 << 20, 2797128963144079327}}) {
    expect_close(*large_skellam_bell(point.scale), point);
  }
}

TEST(Bells, AgreeWithThemselvesRoughlyAndPrecisely) {
  for (const double stddev : {256.0, 1023.7, 0x1p33, 0x1p52}) {
    const auto bell = rounded_gaussian_bell(stddev);
    for (int i = 0; i < 2000; ++i) {
      const auto k = static_cast<std::int64_t>(stddev * i / 400);
      const auto precise = static_cast<double>(bell->precise(k)) * 0x1p-62;
      ASSERT_NEAR(bell->rough(k), precise, precise * 0x1p-41 + 0x1p-59) << stddev << " " << k;
    }
  }
  for (const double variance : {0x1p20, 3e6, 1e9, 0x1p40}) {
    const auto bell = large_skellam_bell(variance);
    for (int i = 0; i < 2000; ++i) {
      const auto k = static_cast<std::int64_t>(std::sqrt(variance) * i / 400);
      const auto precise = static_cast<double>(bell->precise(k)) * 0x1p-62;
      ASSERT_NEAR(bell->rough(k), precise, precise * 0x1p-41 + 0x1p-59) << variance << " " << k;
    }
  }
}

TEST(Exponential, IsExactToItsWord) {
  // e^-x · 2^62, mpmath.
  struct Value {
    double x;
    std::uint64_t value;
  };
  for (const Value& known : {Value{0, 4611686018427387904}, Value{0.5, 2797128963144291325}, Value{1, 1696544475317221319},
                             Value{3.25, 178814472133150117}, Value{17.125, 168487128436}, Value{40, 20}}) {
    const auto x = static_cast<uint128>(known.x * 0x1p60) << 60;
    EXPECT_LE(std::abs(static_cast<std::int64_t>(exponential_precise(x) - known.value)), 1) << known.x;
  }
  EXPECT_EQ(exponential_precise(uint128{127} << 120), 0U);
  for (int i = 0; i < 70'000; ++i) {
    const double x = 0.01 * i;
    // std::exp is off by less than one unit in the last place, 2^-52.
    ASSERT_NEAR(exponential_rough(x) / std::exp(-x), 1, 0x1p-50) << x;
  }
  EXPECT_EQ(exponential_rough(701), 0);
}

}  // namespace
}  // namespace fl
