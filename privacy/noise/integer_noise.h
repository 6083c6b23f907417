#pragma once

#include <cstdint>
#include <span>

#include "privacy/noise/random_bits.h"

namespace fl {

/// Exact discrete Gaussian on the integers, P(k) ∝ exp(-k² / 2σ²): Canonne, Kamath, Steinke 2004.00010, algorithms 1-3, in
/// integer arithmetic on a rational σ², so no float decides anything.
class DiscreteGaussian {
 public:
  /// `variance` is taken as a multiple of 2^-20, rounded up. Throws ConfigError unless 2^-20 <= variance <= 2^40.
  explicit DiscreteGaussian(double variance);
  std::int64_t draw(RandomBits& bits) const;
  void fill(RandomBits& bits, std::span<std::int64_t> out) const;
  double variance() const;

 private:
  std::uint64_t numerator_;  ///< of σ² over 2^20
};

/// Skellam: the difference of two Poissons of mean `variance` / 2, closed under addition.
class Skellam {
 public:
  /// Throws ConfigError unless 2^-20 <= variance <= 2^40.
  explicit Skellam(double variance);
  std::int64_t draw(RandomBits& bits) const;
  void fill(RandomBits& bits, std::span<std::int64_t> out) const;
  double variance() const { return variance_; }

 private:
  double variance_;
};

}  // namespace fl
