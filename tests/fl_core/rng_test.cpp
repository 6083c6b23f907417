#include "fl_core/base/rng.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "tests/support/test_support.h"

namespace fl {
namespace {

using Block = std::array<std::uint32_t, 16>;
using Key = std::array<std::uint32_t, 8>;

/// Σ (observed - expected)² / expected for equally likely cells.
double chi_square(const std::vector<std::uint64_t>& counts, double expected) {
  double sum = 0;
  for (const std::uint64_t count : counts) {
    const double off = static_cast<double>(count) - expected;
    sum += off * off / expected;
  }
  return sum;
}

/// A chi-square variable of `df` degrees has mean df and variance 2·df; five deviations above.
double chi_square_limit(double df) { return df + 5 * std::sqrt(2 * df); }

TEST(ChaCha20, GivesTheBlockOfRfc8439Section232) {
  // Key bytes 00 01 … 1f. The RFC's counter 1 and 96-bit nonce 00:00:00:09 00:00:00:4a 00:00:00:00 fill words 12 to 15
  // as 1, 0x09000000, 0x4a000000, 0, which here are the halves of the 64-bit counter and of the 64-bit nonce.
  Key key;
  for (std::uint32_t i = 0; i < 8; ++i) key[i] = (4 * i) | (4 * i + 1) << 8 | (4 * i + 2) << 16 | (4 * i + 3) << 24;
  Block out;
  chacha20_block(key, 0x0900000000000001, 0x4a000000, out);
  EXPECT_THAT(out, testing::ElementsAre(0xe4e7f110, 0x15593bd1, 0x1fdd0f50, 0xc47120a3, 0xc7f4d1c7, 0x0368c033,
                                        0x9aaa2204, 0x4e6cd4c3, 0x466482d2, 0x09aa9f07, 0x05d7c214, 0xa2028bd9,
                                        0xd19c12b5, 0xb94e16de, 0xe883d0cb, 0x4e3c50a2));
}

TEST(ChaCha20, GivesTheZeroKeyStreamOfRfc8439AppendixA1) {
  // Test vectors 1 and 2: bytes 76 b8 e0 ad a0 f1 3d 90 … at counter 0, 9f 07 e7 be 55 51 38 7a … at counter 1.
  Block out;
  chacha20_block({}, 0, 0, out);
  EXPECT_EQ(out[0], 0xade0b876U);
  EXPECT_EQ(out[1], 0x903df1a0U);
  EXPECT_EQ(out[15], 0x8665eeb2U);
  chacha20_block({}, 1, 0, out);
  EXPECT_EQ(out[0], 0xbee7079fU);
  EXPECT_EQ(out[1], 0x7a385155U);
}

TEST(ChaCha20, CarriesTheCounterIntoItsUpperWord) {
  Block low;
  Block high;
  chacha20_block({}, 0, 0, low);
  chacha20_block({}, 1ULL << 32, 0, high);
  EXPECT_NE(low, high);
}

TEST(Rng, IsTheKeyStreamOfItsTuple) {
  // Key words: seed, purpose, round, client, 64 bits each, low half first; two blocks long.
  const Key key = {0x89abcdef, 0x01234567, static_cast<std::uint32_t>(Purpose::shuffle), 0, 7, 1,
                   0xfffffffe, 0xffffffff};
  Rng rng(0x0123456789abcdef, Purpose::shuffle, 0x100000007, 0xfffffffffffffffe);
  for (std::uint64_t counter = 0; counter < 2; ++counter) {
    Block block;
    chacha20_block(key, counter, 0, block);
    for (const std::uint32_t word : block) EXPECT_EQ(rng.next_u32(), word);
  }
}

TEST(Rng, GivesAnotherStreamForEveryTuple) {
  std::set<std::uint64_t> first_draws;
  std::size_t tuples = 0;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    for (const Purpose purpose : {Purpose::model_init, Purpose::sampling, Purpose::partition}) {
      for (std::uint64_t round = 0; round < 4; ++round) {
        for (std::uint64_t client = 0; client < 4; ++client, ++tuples) {
          first_draws.insert(Rng(seed, purpose, round, client).next_u64());
        }
      }
    }
  }
  EXPECT_EQ(first_draws.size(), tuples);
}

TEST(Rng, HasNoCorrelationBetweenNeighbouringTuples) {
  // Equal bits of two independent streams: Binomial(n, 1/2), deviation √n / 2.
  constexpr int kDraws = 4096;
  const auto equal_bits = [](Rng a, Rng b) {
    int equal = 0;
    for (int i = 0; i < kDraws; ++i) equal += 64 - std::popcount(a.next_u64() ^ b.next_u64());
    return static_cast<double>(equal);
  };
  constexpr double kBits = 64.0 * kDraws;
  const double tolerance = 5 * std::sqrt(kBits) / 2;
  const Rng base(1, Purpose::sampling, 1, 1);
  EXPECT_NEAR(equal_bits(base, Rng(2, Purpose::sampling, 1, 1)), kBits / 2, tolerance);
  EXPECT_NEAR(equal_bits(base, Rng(1, Purpose::partition, 1, 1)), kBits / 2, tolerance);
  EXPECT_NEAR(equal_bits(base, Rng(1, Purpose::sampling, 2, 1)), kBits / 2, tolerance);
  EXPECT_NEAR(equal_bits(base, Rng(1, Purpose::sampling, 1, 2)), kBits / 2, tolerance);
}

TEST(RngUniform, FillsTheUnitIntervalEvenly) {
  // Mean 1/2 with variance 1/12 a draw; E x² = 1/3 with variance 1/5 - 1/9 = 4/45.
  constexpr int kDraws = 200'000;
  Rng rng(1, Purpose::evaluation);
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = rng.uniform();
    ASSERT_GE(x, 0.0);
    ASSERT_LT(x, 1.0);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kDraws, 1.0 / 2, 5 * std::sqrt(1.0 / 12 / kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kDraws));
}

TEST(RngBelow, IsEvenOverEveryValue) {
  for (const std::uint64_t bound : {2U, 3U, 6U, 1000U}) {
    Rng rng(1, Purpose::sampling, bound);
    std::vector<std::uint64_t> counts(bound);
    const auto draws = static_cast<int>(bound * 500);
    for (int i = 0; i < draws; ++i) ++counts.at(rng.below(bound));
    EXPECT_LT(chi_square(counts, 500), chi_square_limit(static_cast<double>(bound - 1))) << "bound " << bound;
  }
}

TEST(RngBelow, HasNoModuloBiasForBoundsNearTheWordSize) {
  // Bounds 3·2^30 and 3·2^62. Without rejection, a word modulo the bound puts half of the draws into the first third,
  // and the upper half of word · bound makes half of them multiples of 3.
  constexpr int kDraws = 20'000;
  const double tolerance = 5 * std::sqrt(kDraws * (1.0 / 3) * (2.0 / 3));
  for (const int shift : {30, 62}) {
    Rng rng(1, Purpose::sampling, static_cast<std::uint64_t>(shift));
    int first_third = 0;
    int multiples_of_3 = 0;
    for (int i = 0; i < kDraws; ++i) {
      const std::uint64_t draw = rng.below(3ULL << shift);
      ASSERT_LT(draw, 3ULL << shift);
      if (draw < 1ULL << shift) ++first_third;
      if (draw % 3 == 0) ++multiples_of_3;
    }
    EXPECT_NEAR(multiples_of_3, kDraws / 3.0, tolerance) << "bound 3 * 2^" << shift;
    EXPECT_NEAR(first_third, kDraws / 3.0, tolerance) << "bound 3 * 2^" << shift;
  }
}

TEST(RngBelow, KnowsItsEdges) {
  Rng rng(1, Purpose::sampling);
  EXPECT_EQ(rng.below(1), 0U);
  EXPECT_LE(rng.below(~0ULL), ~0ULL - 1);
  EXPECT_LT(rng.below(1ULL << 32), 1ULL << 32);
  EXPECT_THAT(test::error_of([&] { rng.below(0); }), testing::HasSubstr("positive bound"));
}

TEST(RngNormal, HasTheMomentsOfTheStandardNormal) {
  // E x^k = 0, 1, 0, 3 with variances E x^2k - (E x^k)² = 1, 2, 15, 96; 68.27 % within one deviation.
  constexpr int kDraws = 200'000;
  const double moments[] = {0, 1, 0, 3};
  const double variances[] = {1, 2, 15, 96};
  double sums[4] = {};
  int within_one = 0;
  Rng rng(1, Purpose::evaluation);
  for (int i = 0; i < kDraws; ++i) {
    const double x = rng.normal();
    for (int k = 0; k < 4; ++k) sums[k] += std::pow(x, k + 1);
    if (std::abs(x) < 1) ++within_one;
  }
  for (int k = 0; k < 4; ++k) EXPECT_NEAR(sums[k] / kDraws, moments[k], 5 * std::sqrt(variances[k] / kDraws)) << k + 1;
  const double share = std::erf(1 / std::sqrt(2.0));
  EXPECT_NEAR(static_cast<double>(within_one) / kDraws, share, 5 * std::sqrt(share * (1 - share) / kDraws));
}

TEST(RngGamma, HasTheMomentsOfItsShape) {
  // E x^k = shape·(shape + 1)…(shape + k - 1).
  constexpr int kDraws = 100'000;
  for (const double shape : {0.1, 0.5, 1.0, 2.5, 40.0}) {
    Rng rng(1, Purpose::partition, static_cast<std::uint64_t>(10 * shape));
    double sum = 0;
    double squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const double x = rng.gamma(shape);
      ASSERT_GE(x, 0);
      sum += x;
      squares += x * x;
    }
    const double second = shape * (shape + 1);
    const double fourth = second * (shape + 2) * (shape + 3);
    EXPECT_NEAR(sum / kDraws, shape, 5 * std::sqrt(shape / kDraws)) << "shape " << shape;
    EXPECT_NEAR(squares / kDraws, second, 5 * std::sqrt((fourth - second * second) / kDraws)) << "shape " << shape;
  }
}

TEST(RngShuffle, ReachesEveryOrderEquallyOften) {
  // 4! = 24 orders, 500 expected of each.
  Rng rng(1, Purpose::shuffle);
  std::map<std::vector<std::uint32_t>, std::uint64_t> seen;
  for (int i = 0; i < 24 * 500; ++i) {
    std::vector<std::uint32_t> values = {0, 1, 2, 3};
    rng.shuffle(values);
    ++seen[values];
  }
  ASSERT_EQ(seen.size(), 24U);
  std::vector<std::uint64_t> counts;
  for (const auto& [order, count] : seen) counts.push_back(count);
  EXPECT_LT(chi_square(counts, 500), chi_square_limit(23));
}

TEST(RngShuffle, KeepsEveryValue) {
  std::vector<std::uint32_t> values(1000);
  std::iota(values.begin(), values.end(), 0U);
  const auto before = values;
  Rng(1, Purpose::shuffle).shuffle(values);
  EXPECT_NE(values, before);
  std::sort(values.begin(), values.end());
  EXPECT_EQ(values, before);
}

}  // namespace
}  // namespace fl
