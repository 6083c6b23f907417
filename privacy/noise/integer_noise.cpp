#include "privacy/noise/integer_noise.h"

#include <cmath>
#include <string>

#include "fl_core/base/error.h"
#include "privacy/noise/bernoulli_exp.h"
#include "privacy/noise/skellam_sampler.h"
#include "privacy/noise/wide.h"

namespace fl {
namespace {

constexpr int kVarianceBits = 20;

void check_variance(const char* name, double variance) {
  if (!(variance >= 0x1p-20 && variance <= 0x1p40)) {
    throw ConfigError(std::string(name) + " noise: the variance is " + std::to_string(variance) +
                      "; expected 2^-20 to 2^40: choose another scale");
  }
}

/// P(k) ∝ exp(-|k| / scale): algorithm 2.
std::int64_t discrete_laplace(RandomBits& bits, std::uint64_t scale) {
  for (;;) {
    const std::uint64_t rest = bits.below(scale);
    if (!bernoulli_exp(bits, rest, scale)) continue;
    std::uint64_t whole = 0;
    while (bernoulli_inverse_e(bits)) ++whole;
    const auto magnitude = static_cast<std::int64_t>(rest + scale * whole);
    const bool negative = bits.coin();
    if (negative && magnitude == 0) continue;
    return negative ? -magnitude : magnitude;
  }
}

}  // namespace

DiscreteGaussian::DiscreteGaussian(double variance) {
  check_variance("discrete Gaussian", variance);
  numerator_ = static_cast<std::uint64_t>(std::ceil(std::ldexp(variance, kVarianceBits)));
  scale_ = square_root(numerator_ >> kVarianceBits) + 1;
}

double DiscreteGaussian::variance() const { return std::ldexp(static_cast<double>(numerator_), -kVarianceBits); }

std::int64_t DiscreteGaussian::draw(RandomBits& bits) const {
  // Algorithm 3 accepts with exp(-(|y| - σ²/t)² / 2σ²); with σ² = n / 2^20 the exponent is (|y| t 2^20 - n)² / (2 n t² 2^20).
  // Its denominator is below 2^122, since n <= 2^60 and t <= 2^20 + 1.
  const uint128 shifted_scale = uint128{scale_} << kVarianceBits;
  const uint128 denominator = 2 * uint128{numerator_} * scale_ * shifted_scale;
  for (;;) {
    const std::int64_t y = discrete_laplace(bits, scale_);
    const auto product = static_cast<int128>(static_cast<std::uint64_t>(std::abs(y)) * shifted_scale);
    const int128 difference = product - static_cast<int128>(numerator_);
    const auto distance = static_cast<uint128>(difference < 0 ? -difference : difference);
    // Its square must fit. Beyond are only |y| > 15 σ, which would be accepted with a chance below 2^-140.
    if (distance >> 64 != 0) continue;
    if (bernoulli_exp(bits, distance * distance, denominator)) return y;
  }
}

void DiscreteGaussian::fill(RandomBits& bits, std::span<std::int64_t> out) const {
  for (std::int64_t& value : out) value = draw(bits);
}

Skellam::Skellam(double variance) : variance_(variance) {
  check_variance("Skellam", variance);
  sampler_ = std::make_shared<const SkellamSampler>(variance);
}

std::int64_t Skellam::draw(RandomBits& bits) const {
  std::int64_t value = 0;
  sampler_->fill(bits, std::span(&value, 1));
  return value;
}

void Skellam::fill(RandomBits& bits, std::span<std::int64_t> out) const { sampler_->fill(bits, out); }

}  // namespace fl
