#pragma once

#include <cstdint>
#include <memory>

namespace fl {

/// A bell on the integers, g(k) = P(k) · stddev · √(2π): symmetric, falling in |k|, about e^(-k² / 2 stddev²).
class Bell {
 public:
  virtual ~Bell() = default;
  /// g(k) with a relative error below 2^-41 up to 8 standard deviations, 2^-30 beyond.
  virtual double rough(std::int64_t k) const = 0;
  /// g(k) · 2^62 with an absolute error below 6. REQUIRES: |k| < 16 standard deviations.
  virtual std::uint64_t precise(std::int64_t k) const = 0;
};

/// N(0, stddev²) rounded to the nearest integer. REQUIRES: 2^8 <= stddev <= 2^52.
std::unique_ptr<const Bell> rounded_gaussian_bell(double stddev);

/// Skellam, P(k) = e^-v I_|k|(v) with v = variance. REQUIRES: 2^20 <= variance <= 2^40.
std::unique_ptr<const Bell> large_skellam_bell(double variance);

}  // namespace fl
