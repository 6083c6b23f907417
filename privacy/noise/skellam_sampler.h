#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "privacy/noise/alias_table.h"
#include "privacy/noise/cell_sampler.h"
#include "privacy/noise/random_bits.h"

namespace fl {

/// Draws from P(k) = e^-v I_|k|(v), v the variance, I the modified Bessel function of the first kind.
///
/// Up to v = 2^20: a table of all probabilities within 12 √v + 16 of zero (what is beyond is below 2^-100). They follow from
/// I_(k-1) = I_(k+1) + (2k / v) I_k, downwards (Miller), where all terms are positive and nothing cancels, in pairs of doubles
/// with 2^-100 of relative error a step; that they sum to 1 gives the factor. Rounded to 2^-79: 2^-64 in total variation.
/// Above: CellSampler with the uniform expansion of I_k(v) in 1 / v (NIST DLMF 10.41.3), whose first term left out is 2^-80.
class SkellamSampler {
 public:
  /// REQUIRES: 2^-20 <= variance <= 2^40.
  explicit SkellamSampler(double variance);
  void fill(RandomBits& bits, std::span<std::int64_t> out) const;

 private:
  std::optional<AliasTable> table_;
  std::int64_t middle_ = 0;  ///< the table's index of k = 0
  std::optional<CellSampler> cells_;
};

}  // namespace fl
