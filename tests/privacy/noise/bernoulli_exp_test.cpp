#include "privacy/noise/bernoulli_exp.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/privacy/noise/statistics.h"

namespace fl {
namespace {

constexpr int kDraws = 200'000;

template <class Draw>
void expect_probability(double p, Draw draw, const std::string& what) {
  int count = 0;
  for (int i = 0; i < kDraws; ++i) count += draw() ? 1 : 0;
  EXPECT_NEAR(count, kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)) + 1e-9) << what;
}

TEST(BernoulliExp, HasTheProbabilityOfTheExponential) {
  RandomBits bits(test::key_of(1));
  struct Fraction {
    uint128 numerator;
    uint128 denominator;
    double value;
  };
  // Denominators of 1 to 122 bits, as the discrete Gaussian has them, and quotients on both sides of 1.
  const Fraction fractions[] = {{0, 1, 0}, {1, 1, 1}, {1, 3, 1.0 / 3}, {7, 2, 3.5}, {uint128{5} << 100, uint128{7} << 100, 5.0 / 7},
                                {uint128{1} << 127, uint128{1} << 122, 32}, {(uint128{1} << 121) - 1, uint128{1} << 122, 0.5},
                                {uint128{3} << 64, (uint128{1} << 66) + 1, 0.75}};
  for (const Fraction& f : fractions) {
    expect_probability(std::exp(-f.value), [&] { return bernoulli_exp(bits, f.numerator, f.denominator); }, std::to_string(f.value));
  }
  expect_probability(std::exp(-1.0), [&] { return bernoulli_inverse_e(bits); }, "1 / e");
}

TEST(BernoulliExp, ComparesWithAQuotientExactlyBeyondTheFirstWord) {
  RandomBits bits(test::key_of(2));
  const uint128 third = uint128{3} << 100;
  // 2^64 / 3 = 0x5555555555555555 and 1/3: with these first bits, U is below 1/3 for a third of what may follow.
  constexpr std::uint64_t kFirst = 0x5555555555555555;
  for (const uint128 denominator : {uint128{3}, third}) {
    const uint128 numerator = denominator / 3;
    expect_probability(1.0 / 3, [&] { return is_below_quotient(bits, kFirst, numerator, denominator, 1); }, "tie");
    EXPECT_TRUE(is_below_quotient(bits, kFirst - 1, numerator, denominator, 1));
    EXPECT_FALSE(is_below_quotient(bits, kFirst + 1, numerator, denominator, 1));
  }
  // U · 5 < 2/3: 2^64 · 2/15 = 2459565876494606882 + 2/15 · … = 0x2222222222222222 + 2/15.
  expect_probability(2.0 / 15, [&] { return is_below_quotient(bits, 0x2222222222222222, 2, 3, 5); }, "tie with a divisor");
  EXPECT_TRUE(is_below_quotient(bits, 0x2222222222222221, 2, 3, 5));
  EXPECT_FALSE(is_below_quotient(bits, 0x2222222222222223, 2, 3, 5));
  for (int i = 0; i < 1000; ++i) {
    EXPECT_TRUE(is_below_quotient(bits, ~std::uint64_t{0}, third, third, 1)) << "U < 1";
    EXPECT_FALSE(is_below_quotient(bits, 0, 0, third, 1)) << "U < 0";
  }
}

}  // namespace
}  // namespace fl
