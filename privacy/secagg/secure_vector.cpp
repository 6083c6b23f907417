#include "privacy/secagg/secure_vector.h"

#include <algorithm>
#include <array>
#include <bit>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

/// Bits of weight, examples, steps and loss_units of one client.
constexpr std::array<unsigned, 4> kTotalsBits = {16, 41, 32, 63};

std::size_t digits(unsigned bits, unsigned digit_bits) { return (bits + digit_bits - 1) / digit_bits; }

std::uint64_t low_bits(unsigned bits) { return bits >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1; }

}  // namespace

SecureVector::SecureVector(SumCode code, std::uint64_t parameters, bool with_totals) : code_(code), parameters_(parameters), length_(parameters) {
  if (!with_totals) return;
  // max_terms digits below 2^d add up to less than 2^bits.
  const auto log2_terms = static_cast<unsigned>(std::bit_width(code.max_terms() - 1));
  FL_CHECK(code.bits() > log2_terms, "a code's bits hold a sign and all terms");
  digit_bits_ = std::min(63U, code.bits() - log2_terms);
  for (const unsigned bits : kTotalsBits) length_ += digits(bits, digit_bits_);
}

ExactSumError SecureVector::fill(std::span<const float> values, const SecureTotals& totals, Rng& rng, std::vector<std::uint64_t>& vector) const {
  FL_CHECK(values.size() == parameters_, "SecureVector::fill: wrong length");
  vector.assign(length_, 0);
  const auto weight = code_.weight() != 0 ? code_.weight() : static_cast<std::uint32_t>(totals.weight);
  const ExactSumError error = code_.encode(values, weight, rng, std::span(vector).first(parameters_));
  if (error != ExactSumError::none || !has_totals()) return error;
  std::size_t place = parameters_;
  const std::array<std::uint64_t, 4> numbers = {weight, totals.examples, totals.steps, totals.loss_units};
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    FL_CHECK((numbers[i] & ~low_bits(kTotalsBits[i])) == 0, "a total that is longer than its digits");
    std::uint64_t rest = numbers[i];
    for (std::size_t k = digits(kTotalsBits[i], digit_bits_); k > 0; --k) {
      vector[place++] = rest & low_bits(digit_bits_);
      rest >>= digit_bits_;
    }
  }
  return ExactSumError::none;
}

SecureTotalsSum SecureVector::read(std::span<const std::uint64_t> sum, std::span<std::int64_t> values) const {
  FL_CHECK(sum.size() == length_ && values.size() == parameters_, "SecureVector::read: wrong length");
  code_.decode(sum.first(parameters_), values);
  SecureTotalsSum totals;
  if (!has_totals()) return totals;
  std::array<SecureTotalsSum::Wide, 4> numbers{};
  std::size_t place = parameters_;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const std::size_t count = digits(kTotalsBits[i], digit_bits_);
    for (std::size_t k = 0; k < count; ++k) {
      numbers[i] += static_cast<SecureTotalsSum::Wide>(sum[place++] & low_bits(code_.bits())) << (k * digit_bits_);
    }
  }
  totals.weight = static_cast<std::uint64_t>(numbers[0]);
  totals.examples = static_cast<std::uint64_t>(numbers[1]);
  totals.steps = static_cast<std::uint64_t>(numbers[2]);
  totals.loss_units = numbers[3];
  return totals;
}

SecureVector secure_vector_of(const SecureAggregationPlan& plan, const Promise* promise, std::uint32_t weight, std::uint64_t parameters) {
  const auto terms = static_cast<std::uint64_t>(plan.max_cohort);
  const auto& value_bits = plan.section.value_bits;
  if (terms > kMaximumSecAggClients) {
    bad_value("round.cohort", terms, "at most " + std::to_string(kMaximumSecAggClients) + " clients a round under secure aggregation, over-selection and chance included");
  }
  if (promise != nullptr) {
    if (value_bits) bad_value("secure_aggregation.value_bits", *value_bits, "null under privacy: the mechanism says on which grid its updates are");
    return {promise->mechanism().sum_code(promise->setting(), promise->noise_multiplier(), "privacy.mechanism"), parameters, false};
  }
  const auto bound_bits = static_cast<int>(plan.bound_bits);
  if (!value_bits) return {SumCode::grid(terms, bound_bits, weight), parameters, true};
  return {SumCode::rounded(terms, bound_bits, weight, static_cast<unsigned>(*value_bits)), parameters, true};
}

SecAggPlan secagg_plan(const SecureAggregationPlan& plan, const SecureVector& vector, const Promise* promise) {
  const SecureAggregationOptions& section = plan.section;
  SecAggPlan result;
  result.adversary_rate = section.adversary_rate;
  result.dropout_rate = section.dropout_rate;
  result.server = section.server == "curious" ? ServerModel::curious : ServerModel::semi_malicious;
  result.security_bits = static_cast<int>(section.security_bits);
  result.correctness_bits = static_cast<int>(section.correctness_bits);
  result.minimum_survivors = static_cast<std::uint32_t>(section.minimum_survivors);
  if (promise != nullptr) {
    const std::uint64_t fewest = std::min<std::uint64_t>(promise->setting().minimum_cohort, kMaximumSecAggClients);
    result.minimum_survivors = std::max(result.minimum_survivors, static_cast<std::uint32_t>(fewest));
  }
  result.bits = vector.code().bits();
  result.length = vector.length();
  check_plan(result);
  return result;
}

void check_cohort(const SecAggPlan& plan, std::uint64_t cohort) {
  if (cohort < plan.minimum_survivors) {
    bad_value("round.cohort", cohort, "at least " + std::to_string(plan.minimum_survivors) + " (secure_aggregation.minimum_survivors): a sum of fewer updates would show them");
  }
  planned_graph(plan, static_cast<std::uint32_t>(std::min<std::uint64_t>(cohort, kMaximumSecAggClients)));
}

SessionId session_of(const std::string& run) { return Sha256().add("tributary secagg 1 session\n" + run).finish(); }

}  // namespace fl
