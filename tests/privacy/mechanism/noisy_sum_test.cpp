#include "privacy/mechanism/noisy_sum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "fl_core/base/rng.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using testing::HasSubstr;

/// Any finite float: random bits, with zeros, subnormals and the largest.
float any_float(Rng& rng) {
  for (;;) {
    const std::uint64_t kind = rng.below(8);
    if (kind == 0) return 0.0F;
    if (kind == 1) return std::bit_cast<float>(static_cast<std::uint32_t>(rng.below(1U << 23)) | (rng.next_u32() & 0x80000000U));
    const auto value = std::bit_cast<float>(rng.next_u32());
    if (std::isfinite(value)) return value;
  }
}

std::vector<float> adversarial(std::size_t size, double scale, Rng& rng) {
  std::vector<float> values(size, static_cast<float>(scale));  // all alike, so that all round the same way
  const std::uint64_t kind = rng.below(4);
  for (float& value : values) {
    if (kind == 0) value = any_float(rng);
    if (kind > 1) value = static_cast<float>(scale * rng.normal());
  }
  return values;
}

std::vector<std::int64_t> sum_of(const std::vector<std::vector<float>>& updates, const SumGrid& grid, double clip_norm) {
  NoisySum sum(updates.front().size(), grid);
  for (const auto& update : updates) EXPECT_NE(sum.add(update, clip_norm), ClipResult::not_finite);
  return {sum.raw().begin(), sum.raw().end()};
}

/// Exact but for the last root.
long double distance(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b, double unit) {
  long double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto difference = static_cast<long double>(a[i] - b[i]);
    squares += difference * difference;
  }
  return std::sqrt(squares) * static_cast<long double>(unit);
}

TEST(NoisySum, IsMovedByOneClientByAtMostTheClipNorm) {
  // The sums with and without one client, the others in another order each time. A float sum fails this: its rounding depends on
  // the order and on what is in it already (google/differential-privacy issue 126; Casacuberta et al. 2207.10635).
  Rng rng(3, Purpose::synthetic_data);
  for (int trial = 0; trial < 400; ++trial) {
    const std::size_t size = 1 + rng.below(200);
    const std::uint64_t clients = 2 + rng.below(20);
    const double clip_norm = std::pow(10, -6 + 12 * rng.uniform());
    // Down to grids so coarse that rounding decides.
    const int stddev_bits = 10 + static_cast<int>(rng.below(39));
    const SumGrid grid = SumGrid::choose(clients, clip_norm, clip_norm * std::pow(10, -2 + 4 * rng.uniform()), stddev_bits);
    std::vector<std::vector<float>> updates;
    for (std::uint64_t i = 0; i < clients; ++i) updates.push_back(adversarial(size, std::pow(10, -38 + 68 * rng.uniform()), rng));
    const auto with = sum_of(updates, grid, clip_norm);
    const std::size_t one = rng.below(clients);
    std::swap(updates[one], updates.back());
    updates.pop_back();
    for (std::size_t i = updates.size(); i > 1; --i) std::swap(updates[i - 1], updates[rng.below(i)]);
    const auto without = sum_of(updates, grid, clip_norm);
    ASSERT_LE(distance(with, without, grid.unit()), static_cast<long double>(clip_norm)) << "trial " << trial;
  }
}

TEST(NoisySum, LosesNextToNothingOfAnUpdateAtTheClipNorm) {
  constexpr std::size_t kSize = 100'000;
  const SumGrid grid = SumGrid::choose(1000, 1, 1, 48);
  const std::vector<std::vector<float>> updates{std::vector<float>(kSize, 1.0F)};
  const std::vector<std::int64_t> nothing(kSize, 0);
  EXPECT_GT(distance(sum_of(updates, grid, 1), nothing, grid.unit()), 1 - 1e-6L);
}

TEST(NoisySum, HasTheSameBitsInEveryOrder) {
  Rng rng(4, Purpose::synthetic_data);
  const SumGrid grid = SumGrid::choose(10, 2, 3, 48);
  std::vector<std::vector<float>> updates;
  for (int i = 0; i < 10; ++i) updates.push_back(adversarial(100, 1, rng));
  const auto first = sum_of(updates, grid, 2);
  std::reverse(updates.begin(), updates.end());
  EXPECT_EQ(sum_of(updates, grid, 2), first);
}

TEST(NoisySum, TakesNothingOfAnUpdateThatIsNotFinite) {
  NoisySum sum(40'000, SumGrid::choose(4, 1, 1, 48));
  std::vector<float> update(40'000, 0.001F);
  update[39'999] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(sum.add(update, 1), ClipResult::not_finite);
  EXPECT_THAT(sum.raw(), testing::Each(0));
}

TEST(NoisySum, TellsWhetherAnUpdateWasCut) {
  NoisySum sum(2, SumGrid::choose(4, 1, 1, 48));
  EXPECT_EQ(sum.add(std::vector<float>{0.6F, 0.7F}, 1), ClipResult::within);
  EXPECT_EQ(sum.add(std::vector<float>{0.8F, 0.7F}, 1), ClipResult::clipped);
}

TEST(NoisySum, AddsNoiseToEveryCoordinateOnce) {
  constexpr std::size_t kSize = 2 * NoisySum::kBlock + 17;
  NoisySum sum(kSize, SumGrid::choose(4, 1, 1, 48));
  std::int64_t next = 0;
  sum.add_noise([&](std::span<std::int64_t> block) {
    for (std::int64_t& value : block) value = next++;
  });
  for (std::size_t i = 0; i < kSize; ++i) ASSERT_EQ(sum.raw()[i], static_cast<std::int64_t>(i));
}

TEST(NoisySum, ReleasesTheSumOverTheDivisorAndForgetsIt) {
  NoisySum sum(2, SumGrid::choose(4, 1, 1, 48));
  sum.add(std::vector<float>{0.25F, -0.5F}, 1);
  sum.add(std::vector<float>{0.25F, 0.0F}, 1);
  std::vector<float> mean(2);
  sum.release(4, mean);
  EXPECT_THAT(mean, testing::ElementsAre(0.125F, -0.125F));
  sum.release(4, mean);
  EXPECT_THAT(mean, testing::ElementsAre(0, 0));
}

TEST(SumGrid, IsAPowerOfTwoThatHoldsTermsAndNoise) {
  for (const std::uint64_t terms : {1ULL, 100ULL, 1ULL << 20, 1ULL << 32}) {
    for (const double clip_norm : {1e-6, 0.7, 1.0, 1e6}) {
      for (const double multiplier : {0.01, 1.0, 100.0, 1e5}) {
        for (const int bits : {36, 48}) {
          const SumGrid grid = SumGrid::choose(terms, clip_norm, multiplier * clip_norm, bits);
          EXPECT_EQ(grid.unit(), std::ldexp(1.0, grid.exponent()));
          EXPECT_LE(multiplier * clip_norm / grid.unit(), std::ldexp(1.0, bits));
          // All terms together, of the largest norm, are at most half of an int64's range.
          EXPECT_LE(static_cast<double>(terms) * clip_norm / grid.unit(), 0x1p62);
          EXPECT_LT(clip_norm, std::ldexp(1.0, grid.bound_bits));
        }
      }
    }
  }
}

TEST(SumGrid, IsAsFineAsExactSumAllows) {
  // Bound 2^1 for a clip of 1: s = 51 - 17 = 34 with weights of 2^15 gives units of 2^-49; 2^48 units are a half.
  EXPECT_EQ(SumGrid::choose(1, 1, 0, 48).exponent(), -49);
  EXPECT_EQ(SumGrid::choose(1, 1, 0.49, 48).exponent(), -49);
  EXPECT_EQ(SumGrid::choose(1, 1, 0.51, 48).exponent(), -48);
  EXPECT_EQ(SumGrid::choose(1, 1, 1.5, 48).exponent(), -47);
}

TEST(SumGrid, RefusesWhatItCannotHold) {
  const SumGrid grid = SumGrid::choose(10, 1, 1, 48);
  EXPECT_EQ(error_of([&] { grid.check(1000, 1, 0, "p"); }), "");
  EXPECT_EQ(error_of([&] { grid.check(1000, 1, 1, "p"); }), "");
  EXPECT_THAT(error_of([&] { grid.check(1000, 1, 1e-13, "p"); }), HasSubstr("p: noise of standard deviation 1e-13 is too small"));
  EXPECT_THAT(error_of([&] { grid.check(1000, 1e-12, 0, "p"); }), HasSubstr("p.clip_norm: got 1e-12, expected at least"));
  EXPECT_THAT(error_of([&] { grid.check(1000, 1, std::numeric_limits<double>::infinity(), "p"); }), HasSubstr("expected a finite number"));
  EXPECT_THAT(error_of([&] { grid.check(1000, 1, -1, "p"); }), HasSubstr("expected a finite number"));
}

}  // namespace
}  // namespace fl
