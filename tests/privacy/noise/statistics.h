#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "privacy/noise/random_bits.h"

namespace fl::test {

/// A test's p-value is above 1e-6 where its standard normal statistic is below this.
constexpr double kOneInAMillion = 4.75;

inline NoiseKey key_of(std::uint64_t number) {
  NoiseKey key{};
  for (std::size_t i = 0; i < 8; ++i) key[i] = static_cast<std::byte>(number >> 8 * i);
  return key;
}

/// χ² of counts against expected counts, as the standard normal of Wilson and Hilferty 1931. Bins that expect less than 10
/// are put together with the next; the last ones with the bin before.
inline double chi_square_statistic(std::span<const double> counts, std::span<const double> expected) {
  double sum = 0;
  double bins = 0;
  double count = 0;
  double expect = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    count += counts[i];
    expect += expected[i];
    double rest = 0;
    for (std::size_t j = i + 1; j < counts.size() && rest < 10; ++j) rest += expected[j];
    if (expect < 10 || (rest < 10 && i + 1 < counts.size())) continue;
    sum += (count - expect) * (count - expect) / expect;
    bins += 1;
    count = 0;
    expect = 0;
  }
  const double df = bins - 1;
  return (std::cbrt(sum / df) - (1 - 2 / (9 * df))) / std::sqrt(2 / (9 * df));
}

/// The largest distance between the values' distribution function and that of N(0, 1), times √n: Kolmogorov and Smirnov.
/// p = 2 exp(-2 x²), so x < 2.69 is p > 1e-6.
inline double ks_statistic(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  double largest = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double cdf = std::erfc(-values[i] / std::sqrt(2.0)) / 2;
    largest = std::max({largest, cdf - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - cdf});
  }
  return largest * std::sqrt(n);
}

struct Moments {
  double mean = 0;
  double variance = 0;
  double kurtosis = 0;
};

inline Moments moments_of(std::span<const double> values) {
  Moments result;
  const auto n = static_cast<double>(values.size());
  for (const double x : values) result.mean += x / n;
  double fourth = 0;
  for (const double x : values) {
    const double y = (x - result.mean) * (x - result.mean);
    result.variance += y / n;
    fourth += y * y / n;
  }
  result.kurtosis = fourth / (result.variance * result.variance);
  return result;
}

}  // namespace fl::test
