#pragma once

#include <cstdint>
#include <span>

#include "fl_core/base/rng.h"
#include "fl_core/params/exact_sum.h"

namespace fl {

/// How a float update becomes integers that add up modulo 2^bits() and are a float vector again once they are summed: what
/// secure aggregation sums. Client and server derive the same code from the same plan. Immutable.
///
/// That a sum fits is proved when the code is made: a term is an integer of magnitude at most M, at most `max_terms` of them are
/// added, and bits() is the smallest m with max_terms · M < 2^(m-1), so that the signed sum is the residue nearest to 0.
class SumCode {
 public:
  /// Integers on the grid of ExactSum(_, max_terms, bound_bits, coarser): its sum, bit for bit. `weight`: of every update; 0: each
  /// has its own. Bits: 56 for 10 updates, at most 64.
  static SumCode grid(std::uint64_t max_terms, int bound_bits, std::uint32_t weight, int coarser = 0);
  /// value · weight rounded up or down at random, without bias, to integers of `value_bits` (8 … 32) bits with their sign: shorter
  /// messages for more noise. A value within 2^-value_bits of the bound is cut to it.
  static SumCode rounded(std::uint64_t max_terms, int bound_bits, std::uint32_t weight, unsigned value_bits);
  /// Updates that hold integers of 0 … 2^bits - 1 themselves, with a meaning only modulo 2^bits (1 … 24): distributed noise.
  static SumCode residues(std::uint64_t max_terms, unsigned bits);

  unsigned bits() const { return bits_; }
  std::uint64_t max_terms() const { return max_terms_; }
  /// Of every update, or 0.
  std::uint32_t weight() const { return weight_; }

  /// out[i] = the integer of values[i] · weight, in 64-bit two's complement. `rng` is used where rounding is random. What a value
  /// must be for `none` ExactSum says, or (residues) an integer in range. REQUIRES: equal lengths, 1 <= weight <= kMaxWeight.
  ExactSumError encode(std::span<const float> values, std::uint32_t weight, Rng& rng, std::span<std::uint64_t> out) const;
  /// The sum of encoded updates, known modulo 2^bits(), as integers: of the grid of ExactSum(_, max_terms, bound_bits, coarser)
  /// (rounded: coarser 0), or residues in 0 … 2^bits - 1. REQUIRES: equal lengths.
  void decode(std::span<const std::uint64_t> sum, std::span<std::int64_t> out) const;

 private:
  enum class Kind : std::uint8_t { grid, rounded, residues };

  SumCode(Kind kind, std::uint64_t max_terms, int bound_bits, std::uint32_t weight, int shift)
      : kind_(kind), max_terms_(max_terms), bound_bits_(bound_bits), weight_(weight), shift_(shift) {}

  Kind kind_;
  std::uint64_t max_terms_;
  int bound_bits_;
  std::uint32_t weight_;
  int shift_;                  ///< one unit of an integer is 2^-shift
  int coarser_ = 0;            ///< rounded: bits that ExactSum's grid has more
  std::int64_t largest_ = 0;   ///< M
  unsigned bits_ = 0;
};

}  // namespace fl
