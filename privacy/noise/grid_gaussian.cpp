#include "privacy/noise/grid_gaussian.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "fl_core/base/error.h"
#include "privacy/noise/bells.h"
#include "privacy/noise/cell_sampler.h"

namespace fl {
namespace {

constexpr int kLowestBits = 8;
constexpr int kHighestBits = 52;
constexpr int kWidestGrid = 1000;

void check_stddev(double stddev) {
  if (!std::isfinite(stddev) || stddev < 0) {
    throw ConfigError("noise: the standard deviation is " + std::to_string(stddev) + "; expected a finite number, 0 or more");
  }
}

/// For the multiples of a power of two that a float is: with 24 bits, those from 2^24 on are integers already. Ties to even.
double nearest_integer(double x) {
  constexpr double kMagic = 0x1.8p52;  // beside it a double holds integers alone
  return std::abs(x) < 0x1p51 ? (x + kMagic) - kMagic : x;
}

std::string power(int exponent) { return "2^" + std::to_string(exponent); }

}  // namespace

GridGaussian::GridGaussian(double stddev, int grid) : stddev_(stddev), grid_(grid) {
  check_stddev(stddev);
  if (std::abs(grid) > kWidestGrid) {
    throw ConfigError("noise: the grid is " + power(grid) + "; expected " + power(-kWidestGrid) + " to " + power(kWidestGrid));
  }
  if (stddev == 0) return;
  const double units = std::ldexp(stddev, -grid);
  if (!(units >= std::ldexp(1.0, kLowestBits) && units <= std::ldexp(1.0, kHighestBits))) {
    throw ConfigError("noise: a standard deviation of " + std::to_string(stddev) + " is " + std::to_string(units) + " units of the grid " +
                      power(grid) + "; expected " + power(kLowestBits) + " to " + power(kHighestBits) + ": choose another grid");
  }
  int exponent = 0;
  std::frexp(units, &exponent);
  // Cells of 2^(exponent - 10) units leave fraction · 2^10 of them a standard deviation; below 2^9 units a cell is one unit.
  const int cell_bits = std::max(exponent - 10, 0);
  sampler_ = std::make_shared<const CellSampler>(rounded_gaussian_bell(units), cell_bits,
                                                 static_cast<std::uint64_t>(std::ldexp(units, 53 - cell_bits)));
}

int GridGaussian::finest_grid(double stddev) {
  check_stddev(stddev);
  if (stddev == 0) return -149;
  int exponent = 0;
  const double fraction = std::frexp(stddev, &exponent);
  const int grid = exponent - kHighestBits - (fraction == 0.5 ? 1 : 0);
  if (grid < -kWidestGrid) {
    throw ConfigError("noise: the standard deviation is " + std::to_string(stddev) + "; expected 0, or " +
                      power(kHighestBits - kWidestGrid) + " or more");
  }
  return grid;
}

void GridGaussian::fill(RandomBits& bits, std::span<std::int64_t> out) const {
  if (sampler_ == nullptr) {
    std::fill(out.begin(), out.end(), 0);
  } else {
    sampler_->fill(bits, out);
  }
}

void add_gaussian(const GridGaussian& noise, RandomBits& bits, std::span<float> values) {
  const double unit = std::ldexp(1.0, noise.grid());
  const double per_unit = std::ldexp(1.0, -noise.grid());
  std::array<std::int64_t, 2048> draws;
  while (!values.empty()) {
    const std::size_t count = std::min(values.size(), draws.size());
    noise.fill(bits, std::span(draws).first(count));
    // Rounding the sum to double and to float sees nothing but the sum, which is a multiple of the grid.
    for (std::size_t i = 0; i < count; ++i) {
      const double units = nearest_integer(static_cast<double>(values[i]) * per_unit);
      values[i] = static_cast<float>((units + static_cast<double>(draws[i])) * unit);
    }
    values = values.subspan(count);
  }
  OPENSSL_cleanse(draws.data(), sizeof(draws));
}

}  // namespace fl
