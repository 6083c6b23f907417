#include "privacy/secagg/secure_vector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fl_core/wire/limits.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using testing::HasSubstr;

SecureVector vector_for(std::uint64_t terms, std::optional<std::int64_t> value_bits = std::nullopt, std::uint32_t weight = 0) {
  SecureAggregationPlan plan;
  plan.max_cohort = static_cast<std::int64_t>(terms);
  plan.section.value_bits = value_bits;
  return secure_vector_of(plan, nullptr, weight, 3);
}

/// `terms` clients with the same totals.
SecureTotalsSum summed(const SecureVector& vector, const SecureTotals& totals, std::uint64_t terms) {
  Rng rng(1, Purpose::secure_rounding);
  std::vector<std::uint64_t> one;
  EXPECT_EQ(vector.fill(std::vector<float>{1, -2, 0.5}, totals, rng, one), ExactSumError::none);
  EXPECT_EQ(one.size(), vector.length());
  const unsigned bits = vector.code().bits();
  const std::uint64_t mask = bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
  std::vector<std::uint64_t> sum(one.size());
  for (std::uint64_t i = 0; i < terms; ++i) {
    for (std::size_t k = 0; k < sum.size(); ++k) sum[k] = (sum[k] + (one[k] & mask)) & mask;
  }
  std::vector<std::int64_t> values(3);
  return vector.read(sum, values);
}

/// The largest claims of as many clients as there can be, in all widths from 12 bits to 64.
TEST(SecureVector, TotalsAreExactHoweverShortTheIntegersAre) {
  const SecureTotals largest{ExactSum::kMaxWeight, static_cast<std::uint64_t>(limits::kClientExamples), UINT32_MAX, INT64_MAX};
  for (const std::uint64_t terms : {1U, 3U, 10U, 16U, 1000U, 4096U}) {
    for (const std::optional<std::int64_t> bits : {std::optional<std::int64_t>(), std::optional<std::int64_t>(8), std::optional<std::int64_t>(16), std::optional<std::int64_t>(32)}) {
      const SecureTotalsSum sum = summed(vector_for(terms, bits), largest, terms);
      EXPECT_EQ(sum.weight, terms * largest.weight);
      EXPECT_EQ(sum.examples, terms * largest.examples);
      EXPECT_EQ(sum.steps, terms * largest.steps);
      EXPECT_TRUE(sum.loss_units == static_cast<SecureTotalsSum::Wide>(terms) * largest.loss_units) << terms;
    }
  }
}

TEST(SecureVector, ItsLengthIsTheModelAndFewDigits) {
  EXPECT_EQ(vector_for(10).length(), 3U + 1 + 1 + 1 + 2);  // digits of 52 bits
  EXPECT_EQ(vector_for(10, 8).length(), 3U + 2 + 6 + 4 + 8);  // digits of 8 bits
}

TEST(SecureVector, APlanSaysWhatTheSectionSays) {
  SecureAggregationPlan plan;
  plan.max_cohort = 10;
  plan.section.server = "curious";
  plan.section.minimum_survivors = 4;
  const SecureVector vector = secure_vector_of(plan, nullptr, 0, 100);
  const SecAggPlan protocol = secagg_plan(plan, vector, nullptr);
  EXPECT_EQ(protocol.server, ServerModel::curious);
  EXPECT_EQ(protocol.minimum_survivors, 4U);
  EXPECT_EQ(protocol.bits, 56U);
  EXPECT_EQ(protocol.length, vector.length());
  EXPECT_THAT(test::error_of([&] { check_cohort(protocol, 3); }), HasSubstr("round.cohort: got 3, expected at least 4"));
  check_cohort(protocol, 10);
}

TEST(SecureVector, TooManyClientsAreRefusedWithTheNumber) {
  EXPECT_THAT(test::error_of([&] { vector_for(65'537); }), HasSubstr("round.cohort: got 65537, expected at most 65536"));
}

TEST(SecureVector, SessionsDifferFromRunToRun) { EXPECT_NE(session_of("a"), session_of("b")); }

}  // namespace
}  // namespace fl
