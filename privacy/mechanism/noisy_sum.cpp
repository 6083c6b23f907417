#include "privacy/mechanism/noisy_sum.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "fl_core/base/error.h"

namespace fl {
namespace {

/// Every update's weight: a power of two keeps the grid one, and the other half of ExactSum's range is the noise's.
constexpr std::uint32_t kWeight = ExactSum::kHalfWeight;
constexpr int kWeightBits = ExactSum::kWeightBits - 1;
/// What GridGaussian needs.
constexpr double kLeastStddev = 256;
/// Share of the clip norm that may be lost to rounding.
constexpr double kRoundingShare = 1e-3;

/// The smallest e with value < 2^e.
int exponent_above(double value) {
  int exponent = 0;
  std::frexp(value, &exponent);
  return exponent;
}

/// Rounding to the grid makes up to rounding_length() of it again.
double norm_before_rounding(std::uint64_t parameters, double unit, double clip_norm) {
  return std::max(0.0, clip_norm - rounding_length(parameters, unit));
}

class ClippingDevice final : public DeviceMechanism {
 public:
  explicit ClippingDevice(double norm) : norm_(norm) {}

  void protect(std::span<float> delta, std::uint32_t, const NoiseKey&) const override {
    const ClipResult result = clip_to(delta, norm_, delta);
    FL_CHECK(result != ClipResult::not_finite, "only a finite update is protected");
  }

 private:
  double norm_;
};

}  // namespace

SumGrid SumGrid::choose(std::uint64_t max_terms, double clip_norm, double stddev, int stddev_bits) {
  SumGrid grid;
  grid.max_terms = std::max<std::uint64_t>(1, max_terms);
  grid.bound_bits = std::clamp(exponent_above(clip_norm), -20, 20);
  if (stddev > 0) grid.coarser = std::clamp(exponent_above(stddev / grid.unit()) - stddev_bits, 0, 60);
  return grid;
}

int SumGrid::exponent() const { return -(ExactSum::shift_of(max_terms, bound_bits, coarser) + kWeightBits); }
SumCode SumGrid::code() const { return SumCode::grid(max_terms, bound_bits, kWeight, coarser); }
double SumGrid::unit() const { return std::ldexp(1.0, exponent()); }

void SumGrid::check(std::uint64_t parameters, double clip_norm, double stddev, const std::string& path) const {
  const auto number = [](double value) { return nlohmann::json(value).dump(); };
  if (!std::isfinite(stddev) || stddev < 0) throw ConfigError(path + ": noise of standard deviation " + number(stddev) + ", expected a finite number >= 0");
  if (stddev > 0 && stddev < kLeastStddev * unit()) {
    throw ConfigError(path + ": noise of standard deviation " + number(stddev) + " is too small for the sum's grid, expected at least " +
                      number(kLeastStddev * unit()) + "; raise privacy.noise_multiplier, or set it to 0");
  }
  if (rounding_length(parameters, unit()) > kRoundingShare * clip_norm) {
    throw ConfigError(path + ".clip_norm: got " + number(clip_norm) + ", expected at least " +
                      number(rounding_length(parameters, unit()) / kRoundingShare) + ": sums of this many clients and this much noise have steps of " +
                      number(unit()) + "; lower the noise or the cohort");
  }
}

double rounding_length(std::uint64_t parameters, double unit) { return std::sqrt(static_cast<double>(parameters)) * unit / 2; }

std::unique_ptr<DeviceMechanism> clip_for_sum(std::uint64_t parameters, const SumGrid& grid, double clip_norm) {
  return std::make_unique<ClippingDevice>(norm_before_rounding(parameters, grid.unit(), clip_norm));
}

NoisySum::NoisySum(std::size_t size, const SumGrid& grid)
    : sum_(size, grid.max_terms, grid.bound_bits, grid.coarser), unit_(grid.unit()), clipped_(AlignedArray<float>::uninitialised(size)) {}

ClipResult NoisySum::add(std::span<const float> update, double clip_norm) {
  FL_CHECK(update.size() == size(), "NoisySum::add: wrong length");
  const ClipResult result = clip_to(update, norm_before_rounding(size(), unit_, clip_norm), clipped_.span());
  if (result == ClipResult::not_finite) return result;
  const ExactSumError error = sum_.add(clipped_.span(), kWeight);
  FL_CHECK(error == ExactSumError::none, "a clipped update is within the sum's bound");
  return result;
}

void NoisySum::add_sum(std::span<const std::int64_t> sum, std::uint64_t terms) { sum_.add_sum(sum, terms, terms * kWeight); }

void NoisySum::add_noise(const std::function<void(std::span<std::int64_t>)>& fill) {
  std::vector<std::int64_t> block(std::min(kBlock, size()));
  for (std::size_t start = 0; start < size(); start += kBlock) {
    const auto part = std::span(block).first(std::min(kBlock, size() - start));
    fill(part);
    sum_.add_integers(start, part);
  }
}

void NoisySum::release(double divisor, std::span<float> mean) {
  sum_.quotient(divisor * kWeight, mean);
  sum_.clear();
}

}  // namespace fl
