#include "privacy/noise/bells.h"

#include <cmath>
#include <cstdlib>

#include "privacy/noise/exponential.h"

namespace fl {
namespace {

/// bell · (1 + correction), for corrections below 2^-8.
std::uint64_t corrected(std::uint64_t bell, double correction) {
  return bell + static_cast<std::uint64_t>(static_cast<std::int64_t>(static_cast<double>(bell) * correction));
}

/// P(k) = Φ((k + ½) / σ) - Φ((k - ½) / σ). With z = k / σ, Taylor's series of the integral over the unit around k is
/// φ(z) / σ · (1 + He2(z) / 24σ² + He4(z) / 1920σ⁴ + He6(z) / 322560σ⁶ + …); σ >= 2^8 makes what follows less than 2^-80.
class RoundedGaussian final : public Bell {
 public:
  explicit RoundedGaussian(double stddev) : stddev_(stddev) {
    int exponent = 0;
    mantissa_ = static_cast<std::uint64_t>(std::frexp(stddev, &exponent) * 0x1p53);
    shift_ = 53 - exponent;  // σ = mantissa · 2^-shift
  }

  double rough(std::int64_t k) const override {
    const double z = static_cast<double>(k) / stddev_;
    return exponential_rough(z * z / 2) * (1 + rounding(z));
  }

  std::uint64_t precise(std::int64_t k) const override {
    const auto distance = static_cast<std::uint64_t>(std::abs(k));
    // |z| · 2^60 < 2^64, off by 1/2, which moves e^(-z²/2) by at most 0.61 · 2^-61.
    const auto z = static_cast<std::uint64_t>(((uint128{distance} << (60 + shift_)) + mantissa_ / 2) / mantissa_);
    const std::uint64_t bell = exponential_precise(uint128{z} * z >> 1);
    return corrected(bell, rounding(static_cast<double>(k) / stddev_));
  }

 private:
  double rounding(double z) const {
    const double y = z * z;
    const double u = 1 / (stddev_ * stddev_);
    const double he2 = y - 1;
    const double he4 = (y - 6) * y + 3;
    const double he6 = ((y - 15) * y + 45) * y - 15;
    return u * (he2 / 24 + u * (he4 / 1920 + u * he6 / 322560));
  }

  double stddev_;
  std::uint64_t mantissa_;
  int shift_;
};

/// With ε = k / v, s = √(v² + k²), DLMF 10.41.3 reads
///   √(2πv) e^-v I_k(v) = e^(-v ψ(ε)) (1 + ε²)^(-1/4) (1 + U1 / k + U2 / k² + U3 / k³ + …),
/// ψ(ε) = ε asinh ε - √(1 + ε²) + 1 = ε²/2 (1 - ε²/12 + ε⁴/40 - 5ε⁶/448 + 7ε⁸/1152 - …),
/// U1 / k = (3 - 5p²) / 24s, U2 / k² = (81 - 462p² + 385p⁴) / 1152s², U3 / k³ = (30375 - 369603p² + …) / 414720s³, p = k / s.
/// For v >= 2^20, all but e^(-k² / 2v) is within 2^-8 of 1 up to 16 standard deviations.
class LargeSkellam final : public Bell {
 public:
  explicit LargeSkellam(double variance) : variance_(variance) {
    int exponent = 0;
    mantissa_ = static_cast<std::uint64_t>(std::frexp(variance, &exponent) * 0x1p53);
    shift_ = 53 - exponent;  // v = mantissa · 2^-shift
  }

  double rough(std::int64_t k) const override {
    const double y = static_cast<double>(k) / variance_ * static_cast<double>(k);
    const double rest = logarithm_of_rest(k);
    // Far out the rest is large; there the exponent is taken as a whole.
    return rest < 1 ? exponential_rough(y / 2) * (1 + exponential_minus_1(rest)) : exponential_rough(y / 2 - rest);
  }

  std::uint64_t precise(std::int64_t k) const override {
    const auto distance = static_cast<std::uint64_t>(std::abs(k));
    // k² / 2v < 128 in units of 2^-64: rounding moves e^-… by 2^-65.
    const uint128 exponent = ((uint128{distance} * distance << (63 + shift_)) + mantissa_ / 2) / mantissa_;
    const std::uint64_t bell = exponential_precise(exponent << 56);
    return corrected(bell, exponential_minus_1(logarithm_of_rest(k)));
  }

 private:
  /// ln of what g(k) is over e^(-k² / 2v).
  double logarithm_of_rest(std::int64_t k) const {
    const double e = static_cast<double>(k) / variance_;
    const double y = e * e;
    const double bend = y * (1.0 / 12 - y * (1.0 / 40 - y * (5.0 / 448 - y * (7.0 / 1152))));
    const double exponent = static_cast<double>(k) * e / 2 * bend;
    const double quarter = y * (1 - y * (1.0 / 2 - y * (1.0 / 3 - y * (1.0 / 4)))) / 4;
    const double s = variance_ * std::sqrt(1 + y);
    const double q = y / (1 + y);
    const double u = 1 / s;
    const double u1 = (3 - 5 * q) / 24;
    const double u2 = (81 - q * (462 - 385 * q)) / 1152;
    const double u3 = (30375 - q * (369603 - q * (765765 - 425425 * q))) / 414720;
    const double series = u * (u1 + u * (u2 + u * u3));
    return exponent - quarter + series * (1 - series * (1.0 / 2 - series * (1.0 / 3)));
  }

  static double exponential_minus_1(double x) {
    double sum = 1;
    for (int term = 12; term >= 2; --term) sum = 1 + sum * x / term;
    return sum * x;
  }

  double variance_;
  std::uint64_t mantissa_;
  int shift_;
};

}  // namespace

std::unique_ptr<const Bell> rounded_gaussian_bell(double stddev) { return std::make_unique<RoundedGaussian>(stddev); }
std::unique_ptr<const Bell> large_skellam_bell(double variance) { return std::make_unique<LargeSkellam>(variance); }

}  // namespace fl
