#pragma once

#include <cstdint>
#include <span>

#include "fl_core/base/buffer.h"

namespace fl {

/// Why ExactSum did not take a term. The sum is then unchanged.
enum class ExactSumError : std::uint8_t {
  none = 0,
  not_finite,     ///< a NaN or an infinity
  out_of_bound,   ///< some |value| >= the bound
};

/// A vector and its weight.
struct ExactTerm {
  std::span<const float> values;
  std::uint32_t weight = 1;
};

/// Order-free weighted sum of float vectors.
///
/// Each coordinate is an int64 that accumulates round(value · weight · 2^s). Integer addition is associative, so the
/// result does not depend on arrival order, threads, merges or vector width; a term can be taken out exactly; memory is
/// 8·N bytes for any number of terms. Weights are integers of at most 16 bits; |value| < 2^6 unless configured
/// otherwise. The product is exact in double (24-bit significand × 16 bits × a power of two) before its one rounding, so
/// fused multiply-add cannot change a bit. s is chosen so that neither a term (< 2^51, the rounding trick's limit) nor the
/// sum of `max_terms` terms can overflow. Resolution: one unit is 2^-s / weight.
///
/// Terms of weight at most kHalfWeight leave half of the range free. What fits there may be added as integers of the sum's
/// own grid (noise, see add_integers), and is then as exact and as free of order as everything else.
class ExactSum {
 public:
  static constexpr int kWeightBits = 16;
  static constexpr std::uint32_t kMaxWeight = (1U << kWeightBits) - 1;
  static constexpr std::uint32_t kHalfWeight = 1U << (kWeightBits - 1);
  static constexpr int kDefaultBoundBits = 6;

  /// `size` coordinates, at most `max_terms` terms (1 … 2^32), |value| < 2^bound_bits (-20 … 20). `coarser` (0 … 60) takes so
  /// many bits of resolution away, which leaves as many more for integers.
  ExactSum(std::size_t size, std::uint64_t max_terms, int bound_bits = kDefaultBoundBits, int coarser = 0);
  /// The s of such a sum.
  static int shift_of(std::uint64_t max_terms, int bound_bits, int coarser = 0);

  /// Adds value[i]·weight for all i, or nothing. REQUIRES: values.size() == size(), 1 <= weight <= kMaxWeight, and no more
  /// than max_terms terms in all (FL_CHECK: these are the caller's, not the peer's).
  ExactSumError add(std::span<const float> values, std::uint32_t weight);
  /// add() of each term, errors[i] is what became of terms[i]. Many terms at once pass through the memory once, and the sum as well: block
  /// by block, four terms at a time. REQUIRES: as add(), and errors.size() == terms.size().
  void add_all(std::span<const ExactTerm> terms, std::span<ExactSumError> errors);
  /// Takes a term out again, bit for bit. REQUIRES: it was added.
  void subtract(std::span<const float> values, std::uint32_t weight);
  /// sum[first + i] += values[i]: integers of 2^-s each, no term. REQUIRES: they fit; with terms of weight at most kHalfWeight
  /// everything does whose magnitude, over all calls since the last clear(), stays below 2^62.
  void add_integers(std::size_t first, std::span<const std::int64_t> values);
  /// Adds what `terms` terms of this weight in all come to: integers of 2^-s each, as raw() of another sum has them. REQUIRES: no more
  /// than max_terms terms in all, and a sum that terms within the bound can have (SumCode proves it; what a dishonest peer put into
  /// it wraps around).
  void add_sum(std::span<const std::int64_t> sum, std::uint64_t terms, std::uint64_t weight);
  /// Adds another sum of the same size, bound and max_terms.
  void merge(const ExactSum& other);
  /// out[i] = (float)(sum[i] / (Σ weight · 2^s)): one division in double, one rounding to float. REQUIRES: terms() > 0.
  void mean(std::span<float> out) const;
  /// mean() and clear() in one pass over the memory.
  void take_mean(std::span<float> out);
  /// out[i] = (float)(sum[i] · 2^-s / divisor), in double, also without terms: a mean over a number that is public, with the
  /// terms' weight in it. REQUIRES: divisor > 0.
  void quotient(double divisor, std::span<float> out) const;
  /// Forgets all terms and integers.
  void clear();

  std::size_t size() const { return sums_.size(); }
  std::uint64_t terms() const { return terms_; }
  std::uint64_t total_weight() const { return total_weight_; }
  int shift() const { return shift_; }
  std::span<const std::int64_t> raw() const { return sums_.span(); }

 private:
  double scale_of(const ExactTerm& term) const;
  double divisor() const;

  AlignedArray<std::int64_t> sums_;
  std::uint64_t max_terms_;
  int bound_bits_;
  int shift_;
  std::uint64_t terms_ = 0;
  std::uint64_t total_weight_ = 0;
};

}  // namespace fl
