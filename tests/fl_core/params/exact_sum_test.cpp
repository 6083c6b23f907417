#include "fl_core/params/exact_sum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <thread>

#include "fl_core/params/kernels.h"
#include "tests/fl_core/params/random_values.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using test::random_values;
using testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
/// Three blocks of ExactSum::add, the last one short.
constexpr std::size_t kThreeBlocks = 40'001;

struct Term {
  std::vector<float> delta;
  std::uint32_t weight = 1;
};

/// Terms whose values reach from subnormal to the default bound 2^6.
std::vector<Term> random_terms(std::size_t count, std::size_t size) {
  Rng rng(1, Purpose::synthetic_data, 1);
  std::vector<Term> terms;
  for (std::size_t i = 0; i < count; ++i) {
    terms.push_back({random_values(size, 6, i), static_cast<std::uint32_t>(1 + rng.below(ExactSum::kMaxWeight))});
  }
  return terms;
}

void add(ExactSum& sum, const Term& term) { ASSERT_EQ(sum.add(term.delta, term.weight), ExactSumError::none); }

std::vector<std::int64_t> raw(const ExactSum& sum) { return {sum.raw().begin(), sum.raw().end()}; }

std::vector<float> mean(const ExactSum& sum) {
  std::vector<float> out(sum.size());
  sum.mean(out);
  return out;
}

ExactSum sum_of(const std::vector<Term>& terms, std::uint64_t max_terms = 64) {
  ExactSum sum(terms.front().delta.size(), max_terms);
  for (const Term& term : terms) add(sum, term);
  return sum;
}

TEST(ExactSum, IsTheWeightedMean) {
  // (1·1 + 3·2) / 4 = 1.75 and (1·-4 + 3·0.5) / 4 = -0.625; all of them exact in binary.
  ExactSum sum(2, 2);
  add(sum, {{1.0F, -4.0F}, 1});
  add(sum, {{2.0F, 0.5F}, 3});
  EXPECT_EQ(mean(sum), (std::vector<float>{1.75F, -0.625F}));
  EXPECT_EQ(sum.terms(), 2U);
  EXPECT_EQ(sum.total_weight(), 4U);
}

TEST(ExactSum, CountsInUnitsOfTwoToTheMinusShift) {
  // Bound 2^6, weights 2^16: a term has 22 bits before the point, so s = 51 - 22 = 29 for few terms (up to 2^12, where
  // 63 - 22 - 12 = 29 too) and 63 - 22 - 32 = 9 for 2^32 of them. Bound 2^-20: s = 51 + 4 = 55.
  EXPECT_EQ(ExactSum(1, 1).shift(), 29);
  EXPECT_EQ(ExactSum(1, 4096).shift(), 29);
  EXPECT_EQ(ExactSum(1, 4097).shift(), 28);
  EXPECT_EQ(ExactSum(1, 1ULL << 32).shift(), 9);
  EXPECT_EQ(ExactSum(1, 1, -20).shift(), 55);
  ExactSum sum(3, 1);
  add(sum, {{1.0F, 0x1p-29F, -0x1p-31F}, 3});  // 3·2^29 units, 3 units, -3/4 unit
  EXPECT_EQ(raw(sum), (std::vector<std::int64_t>{3LL << 29, 3, -1}));
}

TEST(ExactSum, RoundsEachTermToTheNearestUnitTiesToEven) {
  // Units of 2^-29: 0.5, 1.5, 2.5, -0.5, -1.5 and just above 0.5.
  ExactSum sum(6, 1);
  const float unit = 0x1p-29F;
  add(sum, {{0.5F * unit, 1.5F * unit, 2.5F * unit, -0.5F * unit, -1.5F * unit, std::nextafter(0.5F * unit, 1.0F)}, 1});
  EXPECT_EQ(raw(sum), (std::vector<std::int64_t>{0, 2, 2, 0, -2, 1}));
}

TEST(ExactSum, AgreesWithLongDoubleAndWithFusedMultiplyAdd) {
  for (const Term& term : random_terms(8, 4096)) {
    ExactSum sum(term.delta.size(), 1);
    add(sum, term);
    const double scale = std::ldexp(static_cast<double>(term.weight), sum.shift());
    const double magic = 6755399441055744.0;  // 1.5·2^52
    for (std::size_t i = 0; i < term.delta.size(); ++i) {
      const auto product = static_cast<long double>(term.delta[i]) * static_cast<long double>(scale);
      ASSERT_EQ(sum.raw()[i], std::llrint(product)) << term.delta[i] << " * " << scale;
      const double fused = std::fma(static_cast<double>(term.delta[i]), scale, magic) - magic;
      ASSERT_EQ(sum.raw()[i], static_cast<std::int64_t>(fused)) << term.delta[i] << " * " << scale;
    }
  }
}

TEST(ExactSum, IsTheSameForEveryOrder) {
  auto terms = random_terms(12, 1001);
  const auto expected = raw(sum_of(terms));
  const auto expected_mean = mean(sum_of(terms));
  std::vector<std::uint32_t> order(terms.size());
  std::iota(order.begin(), order.end(), 0U);
  Rng rng(1, Purpose::shuffle);
  for (int i = 0; i < 10; ++i) {
    rng.shuffle(order);
    ExactSum sum(1001, 64);
    for (const std::uint32_t index : order) add(sum, terms[index]);
    EXPECT_EQ(raw(sum), expected);
    EXPECT_EQ(mean(sum), expected_mean);
  }
}

TEST(ExactSum, IsTheSameForEverySplitAndMerge) {
  const auto terms = random_terms(9, 1001);
  const auto expected = raw(sum_of(terms));
  for (std::size_t split = 0; split <= terms.size(); ++split) {
    ExactSum left(1001, 64);
    ExactSum right(1001, 64);
    for (std::size_t i = 0; i < terms.size(); ++i) add(i < split ? left : right, terms[i]);
    right.merge(left);
    EXPECT_EQ(raw(right), expected) << "split at " << split;
    EXPECT_EQ(right.terms(), terms.size());
    EXPECT_EQ(right.total_weight(), sum_of(terms).total_weight());
  }
}

TEST(ExactSum, IsTheSameOnAnyNumberOfThreads) {
  const auto terms = random_terms(12, 5003);
  const auto expected = raw(sum_of(terms));
  for (std::size_t threads = 1; threads <= 4; ++threads) {
    std::vector<ExactSum> partial;
    for (std::size_t t = 0; t < threads; ++t) partial.emplace_back(5003, 64);
    std::vector<std::thread> workers;
    for (std::size_t t = 0; t < threads; ++t) {
      workers.emplace_back([&, t] {
        for (std::size_t i = t; i < terms.size(); i += threads) add(partial[t], terms[i]);
      });
    }
    for (std::thread& worker : workers) worker.join();
    for (std::size_t t = 1; t < threads; ++t) partial[0].merge(partial[t]);
    EXPECT_EQ(raw(partial[0]), expected) << threads << " threads";
  }
}

TEST(ExactSum, IsTheSameOnEveryInstructionSet) {
  const auto terms = random_terms(3, kThreeBlocks);
  std::vector<std::int64_t> first;
  std::vector<float> first_mean;
  for (const std::string_view set : kernels::instruction_sets()) {
    kernels::use_instruction_set(set);
    const ExactSum sum = sum_of(terms);
    if (first.empty()) {
      first = raw(sum);
      first_mean = mean(sum);
    }
    EXPECT_EQ(raw(sum), first) << set;
    EXPECT_EQ(mean(sum), first_mean) << set;
  }
}

TEST(ExactSum, OfManyTermsAtOnceIsThatOfOneAfterTheOther) {
  for (const std::string_view set : kernels::instruction_sets()) {
    kernels::use_instruction_set(set);
    for (std::size_t count = 0; count <= 11; ++count) {
      const auto terms = random_terms(count, kThreeBlocks + count);
      ExactSum one_by_one(kThreeBlocks + count, 64);
      ExactSum at_once(kThreeBlocks + count, 64);
      std::vector<ExactTerm> batch;
      for (const Term& term : terms) {
        add(one_by_one, term);
        batch.push_back({term.delta, term.weight});
      }
      std::vector<ExactSumError> errors(count, ExactSumError::not_finite);
      at_once.add_all(batch, errors);
      EXPECT_THAT(errors, testing::Each(ExactSumError::none));
      ASSERT_EQ(raw(at_once), raw(one_by_one)) << count << " terms, " << set;
      EXPECT_EQ(at_once.terms(), count);
      EXPECT_EQ(at_once.total_weight(), one_by_one.total_weight());
    }
  }
}

TEST(ExactSum, LeavesOutRefusedTermsOfMany) {
  // Bad values in the first, a middle and the last block, in every place of a group of four and in what is left over.
  const auto terms = random_terms(7, kThreeBlocks);
  for (const std::string_view set : kernels::instruction_sets()) {
    kernels::use_instruction_set(set);
    for (std::uint32_t refused = 0; refused < (1U << terms.size()); refused += 3) {
      auto changed = terms;
      std::vector<ExactTerm> batch;
      std::vector<ExactSumError> expected;
      ExactSum without(kThreeBlocks, 64);
      for (std::size_t i = 0; i < terms.size(); ++i) {
        const bool bad = (refused >> i & 1U) != 0;
        const bool finite = i % 2 == 0;
        if (bad) changed[i].delta[(i % 3) * (kThreeBlocks - 1) / 2] = finite ? -64.0F : kInfinity;
        batch.push_back({changed[i].delta, changed[i].weight});
        expected.push_back(!bad ? ExactSumError::none : finite ? ExactSumError::out_of_bound : ExactSumError::not_finite);
        if (!bad) add(without, terms[i]);
      }
      ExactSum sum(kThreeBlocks, 64);
      std::vector<ExactSumError> errors(batch.size());
      sum.add_all(batch, errors);
      ASSERT_EQ(errors, expected) << refused;
      ASSERT_EQ(raw(sum), raw(without)) << refused << ", " << set;
      ASSERT_EQ(sum.total_weight(), without.total_weight());
    }
  }
}

TEST(ExactSum, GivesItsMeanAwayAndIsEmpty) {
  const auto terms = random_terms(3, kThreeBlocks);
  ExactSum sum = sum_of(terms);
  const auto expected = mean(sum);
  std::vector<float> taken(kThreeBlocks);
  sum.take_mean(taken);
  EXPECT_EQ(taken, expected);
  EXPECT_EQ(sum.terms(), 0U);
  EXPECT_EQ(sum.total_weight(), 0U);
  EXPECT_THAT(sum.raw(), testing::Each(0));
  add(sum, terms[0]);
  EXPECT_EQ(raw(sum), raw(sum_of({terms[0]})));
}

TEST(ExactSum, ForgetsASubtractedTermExactly) {
  const auto terms = random_terms(5, 2003);
  ExactSum sum = sum_of({terms[0], terms[1], terms[2], terms[3], terms[4]});
  sum.subtract(terms[1].delta, terms[1].weight);
  sum.subtract(terms[4].delta, terms[4].weight);
  const ExactSum without = sum_of({terms[3], terms[0], terms[2]});
  EXPECT_EQ(raw(sum), raw(without));
  EXPECT_EQ(mean(sum), mean(without));
  EXPECT_EQ(sum.terms(), 3U);
}

TEST(ExactSum, IsUnchangedByARefusedTermWhereverItsBadValueLies) {
  const float quiet = std::numeric_limits<float>::quiet_NaN();
  const float payload = std::bit_cast<float>(0xffc12345U);
  const float signalling = std::bit_cast<float>(0x7f812345U);
  const auto terms = random_terms(2, kThreeBlocks);
  for (const std::string_view set : kernels::instruction_sets()) {
    kernels::use_instruction_set(set);
    ExactSum sum = sum_of({terms[0]});
    const auto before = raw(sum);
    for (const std::size_t place : {std::size_t{0}, kThreeBlocks / 2, kThreeBlocks - 1}) {
      for (const float bad : {quiet, payload, signalling, kInfinity, -kInfinity, 64.0F, -64.0F, 3e38F}) {
        Term term = terms[1];
        term.delta[place] = bad;
        const auto expected = std::isfinite(bad) ? ExactSumError::out_of_bound : ExactSumError::not_finite;
        ASSERT_EQ(sum.add(term.delta, term.weight), expected) << bad << " at " << place;
        ASSERT_EQ(raw(sum), before) << bad << " at " << place;
      }
    }
    EXPECT_EQ(sum.terms(), 1U);
    EXPECT_EQ(sum.total_weight(), terms[0].weight);
  }
}

TEST(ExactSum, CallsATermNotFiniteThatIsAlsoOutOfBound) {
  ExactSum sum(2, 1);
  EXPECT_EQ(sum.add(std::vector<float>{100.0F, std::nanf("")}, 1), ExactSumError::not_finite);
}

TEST(ExactSum, TakesEveryValueBelowTheBound) {
  for (const int bits : {-20, 0, 6, 20}) {
    const float bound = std::ldexp(1.0F, bits);
    ExactSum sum(1, 3, bits);
    EXPECT_EQ(sum.add(std::vector<float>{std::nextafter(bound, 0.0F)}, ExactSum::kMaxWeight), ExactSumError::none);
    EXPECT_EQ(sum.add(std::vector<float>{-std::nextafter(bound, 0.0F)}, ExactSum::kMaxWeight), ExactSumError::none);
    EXPECT_EQ(sum.add(std::vector<float>{bound}, 1), ExactSumError::out_of_bound);
    EXPECT_EQ(sum.add(std::vector<float>{-bound}, 1), ExactSumError::out_of_bound);
    EXPECT_EQ(mean(sum).front(), 0.0F);
  }
}

TEST(ExactSum, CannotOverflowAtItsExtremes) {
  // max_terms terms of the largest weight and value, of either sign: one term is below 2^51 and max_terms of them are
  // below 2^63, for every bound and on both sides of a power of two.
  for (int bits = -20; bits <= 20; ++bits) {
    const float largest = std::nextafter(std::ldexp(1.0F, bits), 0.0F);
    for (const std::uint64_t max_terms :
         {1ULL, 2ULL, 3ULL, 4096ULL, 4097ULL, 65'535ULL, (1ULL << 31) + 1, 1ULL << 32}) {
      for (const float value : {largest, -largest}) {
        ExactSum sum(1, max_terms, bits);
        add(sum, {{value}, ExactSum::kMaxWeight});
        const std::int64_t term = sum.raw()[0];
        std::int64_t total = 0;
        ASSERT_FALSE(__builtin_mul_overflow(term, static_cast<std::int64_t>(max_terms), &total))
            << bits << " " << max_terms;
        ASSERT_LT(std::abs(term), 1LL << 51);
      }
    }
  }
}

TEST(ExactSum, HoldsTwoToThe32TermsOfTheLargestWeightAndValue) {
  // A sum merged with itself doubles, so 32 merges are 2^32 terms. Each is exact in the units of the sum (2^-9): the
  // value (2^24 - 1)·2^-18 times 65535 is rounded to a unit, and the mean is that of one term.
  const float value = std::nextafter(64.0F, 0.0F);
  ExactSum sum(1, 1ULL << 32);
  add(sum, {{value}, ExactSum::kMaxWeight});
  const std::int64_t term = sum.raw()[0];
  const auto one_mean = mean(sum);
  for (int i = 0; i < 32; ++i) sum.merge(sum);
  EXPECT_EQ(sum.terms(), 1ULL << 32);
  EXPECT_GT(sum.raw()[0], 0);
  EXPECT_EQ(sum.raw()[0] >> 32, term);
  EXPECT_EQ(mean(sum), one_mean);
  EXPECT_THAT(error_of([&] { sum.add(std::vector<float>{value}, 1); }), HasSubstr("more terms than announced"));
}

TEST(ExactSum, OfIdenticalClientsIsOneClientExactly) {
  // n·r / (n·W·2^s) with n·r exact in double is the same quotient as r / (W·2^s), and is rounded the same way.
  const auto term = random_terms(1, 10'007).front();
  const auto one = mean(sum_of({term}, 4096));
  for (const std::size_t clients : {2U, 3U, 7U, 10U, 100U, 4096U}) {
    ExactSum sum(term.delta.size(), 4096);
    for (std::size_t i = 0; i < clients; ++i) add(sum, term);
    EXPECT_EQ(mean(sum), one) << clients << " clients";
  }
}

TEST(ExactSum, IsWithinHalfAUnitOfTheTrueMean) {
  // The error of the mean of n terms is at most n · (half a unit) / (ΣW · 2^s), plus one rounding to float.
  const auto terms = random_terms(10, 1000);
  const ExactSum sum = sum_of(terms);
  const auto result = mean(sum);
  const long double unit = std::ldexp(1.0L, -sum.shift());
  for (std::size_t i = 0; i < result.size(); ++i) {
    long double exact = 0;
    for (const Term& term : terms) exact += static_cast<long double>(term.delta[i]) * term.weight;
    exact /= static_cast<long double>(sum.total_weight());
    const long double fixed_point = 10 * unit / 2 / static_cast<long double>(sum.total_weight());
    ASSERT_NEAR(static_cast<double>(result[i]), static_cast<double>(exact),
                static_cast<double>(fixed_point + std::abs(exact) * 0x1p-23L));
  }
}

TEST(ExactSum, StartsAnewAfterClear) {
  const auto terms = random_terms(2, 100);
  ExactSum sum = sum_of({terms[0]});
  sum.clear();
  EXPECT_EQ(sum.terms(), 0U);
  add(sum, terms[1]);
  EXPECT_EQ(raw(sum), raw(sum_of({terms[1]})));
}

TEST(ExactSum, OfNoParametersIsEmpty) {
  ExactSum sum(0, 1);
  EXPECT_EQ(sum.add({}, 1), ExactSumError::none);
  EXPECT_TRUE(mean(sum).empty());
}

TEST(ExactSum, RefusesWhatItsCallerMustNotDo) {
  const std::vector<float> two = {1, 2};
  ExactSum sum(2, 1);
  EXPECT_THAT(error_of([&] { sum.add(std::vector<float>{1}, 1); }), HasSubstr("wrong length"));
  EXPECT_THAT(error_of([&] { sum.add(two, 0); }), HasSubstr("weight out of range"));
  EXPECT_THAT(error_of([&] { sum.add(two, ExactSum::kMaxWeight + 1); }), HasSubstr("weight out of range"));
  EXPECT_THAT(error_of([&] { mean(sum); }), HasSubstr("nothing was added"));
  EXPECT_THAT(error_of([&] { sum.subtract(two, 1); }), HasSubstr("no such term"));
  EXPECT_THAT(error_of([&] { sum.merge(ExactSum(3, 1)); }), HasSubstr("unlike sums"));
  EXPECT_THAT(error_of([&] { sum.merge(ExactSum(2, 1, 5)); }), HasSubstr("unlike sums"));
  EXPECT_EQ(sum.add(two, 1), ExactSumError::none);
  EXPECT_THAT(error_of([&] { sum.add(two, 1); }), HasSubstr("more terms than announced"));
  EXPECT_THAT(error_of([&] { sum.merge(sum); }), HasSubstr("more terms than announced"));
  EXPECT_THAT(error_of([&] { ExactSum(1, 0); }), HasSubstr("1 to 2^32"));
  EXPECT_THAT(error_of([&] { ExactSum(1, (1ULL << 32) + 1); }), HasSubstr("1 to 2^32"));
  EXPECT_THAT(error_of([&] { ExactSum(1, 1, 21); }), HasSubstr("2^-20 to 2^20"));
}

TEST(ExactSum, TakesIntegersOfItsOwnGrid) {
  // Bound 2^0, 4 terms: s = min(51 - 16, 63 - 16 - 2) = 35, so a term of weight 2^15 has units of 2^-50.
  ExactSum sum(3, 4, 0);
  ASSERT_EQ(sum.shift(), 35);
  EXPECT_EQ(ExactSum::shift_of(4, 0), 35);
  add(sum, {{0.5F, 0, 0}, ExactSum::kHalfWeight});
  const std::vector<std::int64_t> noise{3, -5};
  sum.add_integers(1, noise);
  EXPECT_THAT(raw(sum), testing::ElementsAre(std::int64_t{1} << 49, 3, -5));
  std::vector<float> out(3);
  sum.quotient(2.0 * ExactSum::kHalfWeight, out);
  EXPECT_THAT(out, testing::ElementsAre(0.25F, 3 * 0x1p-51F, -5 * 0x1p-51F));
  sum.clear();
  EXPECT_THAT(raw(sum), testing::Each(0));
}

TEST(ExactSum, HasAQuotientWithoutTerms) {
  ExactSum sum(2, 4);
  const std::vector<std::int64_t> noise{std::int64_t{1} << sum.shift(), 0};
  sum.add_integers(0, noise);
  std::vector<float> out(2);
  sum.quotient(4, out);
  EXPECT_THAT(out, testing::ElementsAre(0.25F, 0));
}

TEST(ExactSum, GivesUpResolutionForRoom) {
  EXPECT_EQ(ExactSum(1, 4, 0, 10).shift(), 25);
  ExactSum sum(1, 1, 0, 35);
  add(sum, {{0.75F}, 1});
  EXPECT_THAT(raw(sum), testing::ElementsAre(1)) << "rounded to whole numbers";
}

TEST(ExactSum, LeavesHalfItsRangeToIntegersWhenWeightsAreHalf) {
  // The largest terms that are taken, as many as may be, and 2^62 - 1 on top still fit.
  const float largest = std::nextafter(1.0F, 0.0F);
  for (const std::uint64_t terms : {1U, 3U, 64U, 5000U}) {
    ExactSum sum(1, terms, 0);
    for (std::uint64_t i = 0; i < terms; ++i) add(sum, {{largest}, ExactSum::kHalfWeight});
    const std::int64_t before = raw(sum)[0];
    ASSERT_LE(before, std::int64_t{1} << 62) << terms;
    const std::vector<std::int64_t> most{(std::int64_t{1} << 62) - 1};
    sum.add_integers(0, most);
    EXPECT_EQ(raw(sum)[0] - most[0], before) << terms;
  }
}

}  // namespace
}  // namespace fl
