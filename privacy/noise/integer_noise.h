#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "privacy/noise/random_bits.h"

namespace fl {

class SkellamSampler;

/// Exact discrete Gaussian on the integers, P(k) ∝ exp(-k² / 2σ²): Canonne, Kamath, Steinke 2004.00010, algorithms 1-3, in
/// integer arithmetic on a rational σ², so no float decides anything. About 0.1 µs a draw for every σ above 1.
class DiscreteGaussian {
 public:
  /// `variance` is taken as a multiple of 2^-20, rounded up. Throws ConfigError unless 2^-20 <= variance <= 2^40.
  explicit DiscreteGaussian(double variance);
  std::int64_t draw(RandomBits& bits) const;
  void fill(RandomBits& bits, std::span<std::int64_t> out) const;
  /// σ², as drawn with; the variance of the draws is that for σ > 1, to 7 digits, and less below.
  double variance() const;

 private:
  std::uint64_t numerator_;  ///< of σ² over 2^20
  std::uint64_t scale_;      ///< of the discrete Laplace that draws are accepted from: floor(σ) + 1
};

/// Skellam: the difference of two Poissons of mean `variance` / 2, closed under addition. The total variation distance of one
/// draw to it is below 2^-50. Immutable and cheap to copy; making one takes up to 2 ms.
class Skellam {
 public:
  /// Throws ConfigError unless 2^-20 <= variance <= 2^40.
  explicit Skellam(double variance);
  std::int64_t draw(RandomBits& bits) const;
  void fill(RandomBits& bits, std::span<std::int64_t> out) const;
  double variance() const { return variance_; }

 private:
  double variance_;
  std::shared_ptr<const SkellamSampler> sampler_;
};

}  // namespace fl
