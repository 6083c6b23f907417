#include "fl_core/params/exact_sum.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "fl_core/base/error.h"
#include "fl_core/params/kernels.h"

namespace fl {
namespace {

/// Floats a block: its sums (128 KiB) stay in a second-level cache while deltas stream past.
constexpr std::size_t kBlock = 16 * 1024;
constexpr std::size_t kAtOnce = 4;

}  // namespace

ExactSum::ExactSum(std::size_t size, std::uint64_t max_terms, int bound_bits, int coarser)
    : sums_(size), max_terms_(max_terms), bound_bits_(bound_bits), shift_(shift_of(max_terms, bound_bits, coarser)) {}

int ExactSum::shift_of(std::uint64_t max_terms, int bound_bits, int coarser) {
  FL_CHECK(max_terms >= 1 && max_terms <= (1ULL << 32), "ExactSum takes 1 to 2^32 terms");
  FL_CHECK(bound_bits >= -20 && bound_bits <= 20, "ExactSum's bound is 2^-20 to 2^20");
  FL_CHECK(coarser >= 0 && coarser <= 60, "ExactSum gives up 0 to 60 bits");
  const int term_bits = bound_bits + kWeightBits;
  const int log2_terms = static_cast<int>(std::bit_width(max_terms - 1));
  return std::min(51 - term_bits, 63 - term_bits - log2_terms) - coarser;
}

double ExactSum::scale_of(const ExactTerm& term) const { return std::ldexp(static_cast<double>(term.weight), shift_); }
double ExactSum::divisor() const { return std::ldexp(static_cast<double>(total_weight_), shift_); }

ExactSumError ExactSum::add(std::span<const float> values, std::uint32_t weight) {
  const ExactTerm term{values, weight};
  ExactSumError error{};
  add_all({&term, 1}, {&error, 1});
  return error;
}

void ExactSum::add_all(std::span<const ExactTerm> terms, std::span<ExactSumError> errors) {
  FL_CHECK(errors.size() == terms.size() && terms_ + terms.size() <= max_terms_, "ExactSum::add: more terms than announced");
  for (std::size_t i = 0; i < terms.size(); ++i) {
    FL_CHECK(terms[i].values.size() == size(), "ExactSum::add: wrong length");
    FL_CHECK(terms[i].weight >= 1 && terms[i].weight <= kMaxWeight, "ExactSum::add: weight out of range");
    errors[i] = ExactSumError::none;
  }
  const auto bound = static_cast<float>(std::ldexp(1.0, bound_bits_));
  const auto sums = sums_.span();
  for (std::size_t start = 0; start < size(); start += kBlock) {
    const auto block = sums.subspan(start, std::min(kBlock, size() - start));
    const auto take_out = [&](std::size_t i) {
      kernels::exact_subtract(terms[i].values.first(start + block.size()), scale_of(terms[i]), sums.first(start + block.size()));
      errors[i] = kernels::all_finite(terms[i].values) ? ExactSumError::out_of_bound : ExactSumError::not_finite;
    };
    std::array<std::size_t, kAtOnce> group{};
    std::array<const float*, kAtOnce> deltas{};
    std::array<double, kAtOnce> scales{};
    std::size_t grouped = 0;
    for (std::size_t i = 0; i < terms.size(); ++i) {
      if (errors[i] != ExactSumError::none) continue;  // an earlier block had its bad value
      group[grouped] = i;
      deltas[grouped] = terms[i].values.data() + start;
      scales[grouped] = scale_of(terms[i]);
      if (++grouped < kAtOnce) continue;
      const std::uint32_t bad = kernels::exact_add_four(deltas, scales, bound, block);
      for (std::size_t k = 0; k < kAtOnce; ++k) {
        if ((bad >> k & 1U) != 0) take_out(group[k]);
      }
      grouped = 0;
    }
    for (std::size_t k = 0; k < grouped; ++k) {
      if (!kernels::exact_add({deltas[k], block.size()}, scales[k], bound, block)) take_out(group[k]);
    }
  }
  for (std::size_t i = 0; i < terms.size(); ++i) {
    if (errors[i] != ExactSumError::none) continue;
    ++terms_;
    total_weight_ += terms[i].weight;
  }
}

void ExactSum::subtract(std::span<const float> values, std::uint32_t weight) {
  FL_CHECK(values.size() == size() && terms_ > 0 && total_weight_ >= weight, "ExactSum::subtract: no such term");
  kernels::exact_subtract(values, std::ldexp(static_cast<double>(weight), shift_), sums_.span());
  --terms_;
  total_weight_ -= weight;
}

void ExactSum::add_integers(std::size_t first, std::span<const std::int64_t> values) {
  FL_CHECK(first <= size() && values.size() <= size() - first, "ExactSum::add_integers: beyond the end");
  std::int64_t* const sums = sums_.data() + first;
  for (std::size_t i = 0; i < values.size(); ++i) sums[i] += values[i];
}

void ExactSum::add_sum(std::span<const std::int64_t> sum, std::uint64_t terms, std::uint64_t weight) {
  FL_CHECK(sum.size() == size(), "ExactSum::add_sum: wrong length");
  FL_CHECK(terms_ + terms <= max_terms_, "ExactSum::add_sum: more terms than announced");
  std::int64_t* const sums = sums_.data();
  for (std::size_t i = 0; i < size(); ++i) sums[i] = static_cast<std::int64_t>(static_cast<std::uint64_t>(sums[i]) + static_cast<std::uint64_t>(sum[i]));
  terms_ += terms;
  total_weight_ += weight;
}

void ExactSum::merge(const ExactSum& other) {
  FL_CHECK(other.size() == size() && other.shift_ == shift_ && other.bound_bits_ == bound_bits_, "ExactSum::merge: unlike sums");
  FL_CHECK(terms_ + other.terms_ <= max_terms_, "ExactSum::merge: more terms than announced");
  for (std::size_t i = 0; i < size(); ++i) sums_[i] += other.sums_[i];
  terms_ += other.terms_;
  total_weight_ += other.total_weight_;
}

void ExactSum::mean(std::span<float> out) const {
  FL_CHECK(out.size() == size() && terms_ > 0, "ExactSum::mean: nothing was added");
  kernels::exact_mean(raw(), divisor(), out);
}

void ExactSum::take_mean(std::span<float> out) {
  FL_CHECK(out.size() == size() && terms_ > 0, "ExactSum::mean: nothing was added");
  const auto sums = sums_.span();
  for (std::size_t start = 0; start < size(); start += kBlock) {
    const auto block = sums.subspan(start, std::min(kBlock, size() - start));
    kernels::exact_mean(block, divisor(), out.subspan(start, block.size()));
    std::fill(block.begin(), block.end(), 0);
  }
  terms_ = 0;
  total_weight_ = 0;
}

void ExactSum::quotient(double divisor, std::span<float> out) const {
  FL_CHECK(out.size() == size() && divisor > 0, "ExactSum::quotient: wrong length or divisor");
  const double unit = std::ldexp(1.0, -shift_);
  for (std::size_t i = 0; i < size(); ++i) out[i] = static_cast<float>(static_cast<double>(sums_[i]) * unit / divisor);
}

void ExactSum::clear() {
  std::fill(sums_.span().begin(), sums_.span().end(), 0);
  terms_ = 0;
  total_weight_ = 0;
}

}  // namespace fl
