#include "privacy/clip/clip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "fl_core/base/rng.h"

namespace fl {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kSmallest = std::numeric_limits<float>::denorm_min();
constexpr float kLargest = std::numeric_limits<float>::max();

/// The L2 norm in 64 bits of significand: exact to 1e-18 for the sizes here.
long double norm(std::span<const float> x) {
  long double squares = 0;
  for (const float value : x) squares += static_cast<long double>(value) * static_cast<long double>(value);
  return std::sqrt(squares);
}

struct Clipped {
  ClipResult result;
  std::vector<float> values;
};

Clipped clip(const std::vector<float>& in, double clip_norm) {
  Clipped out{ClipResult::within, std::vector<float>(in.size(), 7.0F)};
  out.result = clip_to(in, clip_norm, out.values);
  return out;
}

/// Values of either sign around `scale`, a fifth of them zero and a fifth subnormal.
std::vector<float> adversarial(std::size_t size, double scale, std::uint64_t stream) {
  Rng rng(1, Purpose::synthetic_data, 0, stream);
  std::vector<float> values(size);
  for (float& value : values) {
    const std::uint64_t kind = rng.below(5);
    if (kind == 0) value = kind % 2 == 0 ? 0.0F : -0.0F;
    if (kind == 1) value = static_cast<float>(rng.below(1000)) * kSmallest;
    if (kind > 1) value = static_cast<float>(scale * rng.normal());
  }
  return values;
}

TEST(ClipTo, ScalesTheWholeUpdateByOneFactor) {
  // ‖(6, 8)‖ = 10 to 5: (3, 4); the records of tensorflow/privacy's quantile_adaptive_clip_sum_query_test.py, L45 at 03035d5d.
  const auto [result, values] = clip({-6, 8}, 5);
  EXPECT_EQ(result, ClipResult::clipped);
  EXPECT_THAT(values, testing::ElementsAre(testing::FloatNear(-3, 1e-6F), testing::FloatNear(4, 1e-6F)));
}

TEST(ClipTo, LeavesWhatIsWithinBitForBit) {
  const std::vector<float> update{0.1F, -0.2F, kSmallest, -0.0F, 1e-20F};
  const auto [result, values] = clip(update, 1);
  EXPECT_EQ(result, ClipResult::within);
  EXPECT_EQ(values, update);
  EXPECT_TRUE(std::signbit(values[3]));
}

TEST(ClipTo, LeavesZerosWhateverTheClipNorm) {
  for (const double clip_norm : {0.0, 1e-38, 1.0}) {
    const auto [result, values] = clip({0, 0, 0}, clip_norm);
    EXPECT_EQ(result, ClipResult::within);
    EXPECT_THAT(values, testing::Each(0));
  }
  EXPECT_EQ(clip({}, 1).result, ClipResult::within);
}

TEST(ClipTo, MakesZerosForAClipNormOfZero) {
  const auto [result, values] = clip({1, -2}, 0);
  EXPECT_EQ(result, ClipResult::clipped);
  EXPECT_THAT(values, testing::Each(0));
}

TEST(ClipTo, RejectsWhatIsNotFinite) {
  for (const float bad : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    for (const std::size_t place : {0U, 7U, 16U}) {
      std::vector<float> update(17, 0.01F);
      update[place] = bad;
      EXPECT_EQ(clip(update, 1).result, ClipResult::not_finite) << bad << " at " << place;
    }
  }
}

TEST(ClipTo, ClipsValuesWhoseSquaresOverflowAFloat) {
  const auto [result, values] = clip(std::vector<float>(1000, kLargest), 1);
  EXPECT_EQ(result, ClipResult::clipped);
  // 1 / √1000 each.
  EXPECT_THAT(values, testing::Each(testing::FloatNear(0.0316227766F, 1e-8F)));
  EXPECT_LE(norm(values), 1.0L);
}

TEST(ClipTo, ClipsInPlace) {
  std::vector<float> update{3, 4};
  EXPECT_EQ(clip_to(update, 1, update), ClipResult::clipped);
  EXPECT_THAT(update, testing::ElementsAre(testing::FloatNear(0.6F, 1e-6F), testing::FloatNear(0.8F, 1e-6F)));
}

TEST(ClipTo, NeverLeavesANormAboveTheClipNorm) {
  Rng rng(2, Purpose::synthetic_data);
  for (std::uint64_t trial = 0; trial < 2000; ++trial) {
    const std::size_t size = 1 + rng.below(300);
    const double scale = std::pow(10, -38 + 68 * rng.uniform());
    const std::vector<float> update = adversarial(size, scale, trial);
    const auto exact = static_cast<double>(norm(update));
    // Now far off, now within an ulp of the norm, where rounding decides.
    const double near = exact * (1 + (rng.uniform() - 0.5) * 4 * std::numeric_limits<double>::epsilon());
    for (const double clip_norm : {1.0, near, std::nextafter(exact, 0.0), exact / 3, exact * 2}) {
      const auto [result, values] = clip(update, clip_norm);
      ASSERT_NE(result, ClipResult::not_finite);
      ASSERT_LE(norm(values), static_cast<long double>(clip_norm)) << "trial " << trial << ", clip norm " << clip_norm << ", norm " << exact;
      // Nothing is lost but roundings towards zero: 2^-23 of a normal float, less than the smallest one of a subnormal.
      const long double lost = 0x1p-22L * static_cast<long double>(clip_norm) + std::sqrt(static_cast<long double>(size)) * 0x1p-148L;
      ASSERT_GE(norm(values) + lost, std::min(static_cast<long double>(clip_norm), static_cast<long double>(exact) * (1 - 1e-15L)));
    }
  }
}

TEST(ClipTo, KeepsSignAndOrder) {
  const std::vector<float> update = adversarial(1000, 100, 3);
  const auto [result, values] = clip(update, 1);
  ASSERT_EQ(result, ClipResult::clipped);
  for (std::size_t i = 0; i < update.size(); ++i) {
    ASSERT_EQ(std::signbit(values[i]), std::signbit(update[i])) << i;
    ASSERT_LE(std::abs(values[i]), std::abs(update[i])) << i;
  }
}

}  // namespace
}  // namespace fl
