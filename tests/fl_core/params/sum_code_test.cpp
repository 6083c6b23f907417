#include "fl_core/params/sum_code.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace fl {
namespace {

Rng rng_of(std::uint64_t index) { return Rng(7, Purpose::synthetic_data, index); }

std::vector<float> random_update(std::size_t size, double bound, std::uint64_t index) {
  Rng rng = rng_of(index);
  std::vector<float> values(size);
  for (float& value : values) value = static_cast<float>((2 * rng.uniform() - 1) * bound * std::exp(-8 * rng.uniform()));
  return values;
}

std::vector<std::uint64_t> encoded(const SumCode& code, const std::vector<float>& values, std::uint32_t weight, std::uint64_t stream = 0) {
  Rng rng(9, Purpose::secure_rounding, stream);
  std::vector<std::uint64_t> out(values.size());
  EXPECT_EQ(code.encode(values, weight, rng, out), ExactSumError::none);
  return out;
}

/// Adds as whoever sums masked vectors does: modulo 2^bits.
void add_mod(const SumCode& code, const std::vector<std::uint64_t>& term, std::vector<std::uint64_t>& sum) {
  const std::uint64_t mask = code.bits() == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << code.bits()) - 1;
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = (sum[i] + (term[i] & mask)) & mask;
}

TEST(SumCode, TheGridsSumIsThatOfExactSum) {
  constexpr std::size_t kSize = 1000;
  for (const std::uint64_t terms : {1U, 3U, 10U, 1000U}) {
    for (const int bound_bits : {-4, 6, 12}) {
      const SumCode code = SumCode::grid(terms, bound_bits, 0);
      ExactSum direct(kSize, terms, bound_bits);
      std::vector<std::uint64_t> sum(kSize);
      for (std::uint64_t i = 0; i < std::min<std::uint64_t>(terms, 7); ++i) {
        const auto update = random_update(kSize, std::ldexp(0.999, bound_bits), i);
        const auto weight = static_cast<std::uint32_t>(1 + 9000 * i);
        ASSERT_EQ(direct.add(update, weight), ExactSumError::none);
        add_mod(code, encoded(code, update, weight), sum);
      }
      std::vector<std::int64_t> decoded(kSize);
      code.decode(sum, decoded);
      EXPECT_TRUE(std::equal(decoded.begin(), decoded.end(), direct.raw().begin())) << terms << " terms, bound 2^" << bound_bits;
      ExactSum again(kSize, terms, bound_bits);
      again.add_sum(decoded, direct.terms(), direct.total_weight());
      std::vector<float> a(kSize);
      std::vector<float> b(kSize);
      direct.mean(a);
      again.mean(b);
      EXPECT_EQ(a, b);
    }
  }
}

/// The largest terms, as many as were announced, on both ends: what the proof of bits() says must hold to the last integer.
TEST(SumCode, TheLargestSumsFit) {
  struct Case {
    SumCode code;
    std::uint64_t terms;
    int bound_bits;
  };
  const std::vector<Case> cases = {{SumCode::grid(1, 6, 0), 1, 6},           {SumCode::grid(10, 6, 0), 10, 6},         {SumCode::grid(16, 6, 0), 16, 6},
                                   {SumCode::grid(4096, 6, 0), 4096, 6},     {SumCode::grid(4097, 6, 0), 4097, 6},     {SumCode::grid(1000, -3, ExactSum::kMaxWeight), 1000, -3},
                                   {SumCode::rounded(10, 6, 0, 8), 10, 6},   {SumCode::rounded(16, 6, 0, 16), 16, 6},  {SumCode::rounded(1000, -6, 0, 32), 1000, -6},
                                   {SumCode::grid(10, 0, 1U << 15U), 10, 0}, {SumCode::grid(10, 0, 1U << 15U, 20), 10, 0}};
  for (const auto& [code, terms, bound_bits] : cases) {
    for (const float sign : {1.0F, -1.0F}) {
      const float largest = sign * std::nextafter(std::ldexp(1.0F, bound_bits), 0.0F);
      const std::uint32_t weight = code.weight() != 0 ? code.weight() : ExactSum::kMaxWeight;
      const auto term = encoded(code, {largest}, weight);
      std::vector<std::uint64_t> sum(1);
      for (std::uint64_t i = 0; i < terms; ++i) add_mod(code, term, sum);
      std::vector<std::int64_t> decoded(1);
      std::vector<std::int64_t> one(1);
      code.decode(sum, decoded);
      std::vector<std::uint64_t> single(1);
      add_mod(code, term, single);
      code.decode(single, one);
      EXPECT_EQ(decoded[0], one[0] * static_cast<std::int64_t>(terms)) << code.bits() << " bits, " << terms << " terms";
      EXPECT_EQ(decoded[0] > 0, sign > 0);
    }
    EXPECT_LE(code.bits(), 64U);
  }
}

TEST(SumCode, BitsAreTheFewestThatHoldEverySum) {
  // 2^51 a term: 10 of them need 55 bits and a sign.
  EXPECT_EQ(SumCode::grid(10, 6, 0).bits(), 56U);
  EXPECT_EQ(SumCode::grid(4096, 6, 0).bits(), 64U);
  EXPECT_EQ(SumCode::grid(65'536, 6, 0).bits(), 64U);
  // 127 · 10 = 1270 < 2^11.
  EXPECT_EQ(SumCode::rounded(10, 6, 0, 8).bits(), 12U);
  EXPECT_EQ(SumCode::rounded(10, 6, 0, 16).bits(), 20U);
  EXPECT_EQ(SumCode::residues(1000, 16).bits(), 16U);
}

TEST(SumCode, RandomRoundingIsWithoutBias) {
  constexpr std::size_t kSize = 200'000;
  const SumCode code = SumCode::rounded(10, 0, ExactSum::kMaxWeight, 8);
  // One unit is 2^-7 · 2^16 / 65535: a fifth of one.
  const auto value = static_cast<float>(0.2 * 0x1p-7);
  const auto integers = encoded(code, std::vector<float>(kSize, value), ExactSum::kMaxWeight);
  double sum = 0;
  for (const std::uint64_t integer : integers) {
    ASSERT_LE(integer, 1U);
    sum += static_cast<double>(integer);
  }
  const double p = 0.2 * 65535 / 65536;
  EXPECT_NEAR(sum / kSize, p, 5 * std::sqrt(p * (1 - p) / kSize));
  EXPECT_NE(encoded(code, random_update(100, 0.9, 0), ExactSum::kMaxWeight, 1), encoded(code, random_update(100, 0.9, 0), ExactSum::kMaxWeight, 2));
}

TEST(SumCode, ARoundedSumIsOnExactSumsGrid) {
  constexpr std::size_t kSize = 5000;
  const SumCode code = SumCode::rounded(10, 0, ExactSum::kMaxWeight, 20);
  std::vector<std::uint64_t> sum(kSize);
  ExactSum exact(kSize, 10, 0);
  for (std::uint64_t i = 0; i < 10; ++i) {
    const auto update = random_update(kSize, 0.99, i);
    ASSERT_EQ(exact.add(update, ExactSum::kMaxWeight), ExactSumError::none);
    add_mod(code, encoded(code, update, ExactSum::kMaxWeight, i), sum);
  }
  std::vector<std::int64_t> decoded(kSize);
  code.decode(sum, decoded);
  ExactSum rounded(kSize, 10, 0);
  rounded.add_sum(decoded, 10, exact.total_weight());
  std::vector<float> a(kSize);
  std::vector<float> b(kSize);
  exact.mean(a);
  rounded.mean(b);
  for (std::size_t i = 0; i < kSize; ++i) EXPECT_NEAR(a[i], b[i], 0x1p-19F);
}

TEST(SumCode, RefusesWhatDoesNotFit) {
  Rng rng = rng_of(0);
  std::vector<std::uint64_t> out(1);
  const auto result = [&](const SumCode& code, float value) { return code.encode(std::vector{value}, ExactSum::kMaxWeight, rng, out); };
  for (const SumCode& code : {SumCode::grid(10, 6, 0), SumCode::rounded(10, 6, 0, 16)}) {
    EXPECT_EQ(result(code, 64), ExactSumError::out_of_bound);
    EXPECT_EQ(result(code, -64), ExactSumError::out_of_bound);
    EXPECT_EQ(result(code, std::numeric_limits<float>::infinity()), ExactSumError::not_finite);
    EXPECT_EQ(result(code, std::numeric_limits<float>::quiet_NaN()), ExactSumError::not_finite);
    EXPECT_EQ(result(code, std::nextafter(64.0F, 0.0F)), ExactSumError::none);
  }
  const SumCode residues = SumCode::residues(10, 8);
  EXPECT_EQ(result(residues, 255), ExactSumError::none);
  EXPECT_EQ(result(residues, 256), ExactSumError::out_of_bound);
  EXPECT_EQ(result(residues, -1), ExactSumError::out_of_bound);
  EXPECT_EQ(result(residues, 0.5), ExactSumError::out_of_bound);
}

}  // namespace
}  // namespace fl
