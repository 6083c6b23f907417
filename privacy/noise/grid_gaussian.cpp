#include "privacy/noise/grid_gaussian.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "fl_core/base/error.h"
#include "privacy/noise/bells.h"
#include "privacy/noise/cell_sampler.h"
#include "privacy/noise/noise_loops.h"

namespace fl {
namespace {

constexpr int kLowestBits = 8;
constexpr int kHighestBits = 52;
/// Noise on floats: 2^-44 of a standard deviation is far below what a float resolves, and 128 of them are below 2^51 units.
constexpr int kFloatBits = 44;
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

int GridGaussian::float_grid(double stddev) {
  check_stddev(stddev);
  if (stddev == 0) return -149;
  int exponent = 0;
  const double fraction = std::frexp(stddev, &exponent);
  const int grid = exponent - kFloatBits - (fraction == 0.5 ? 1 : 0);
  if (grid < -kWidestGrid) {
    throw ConfigError("noise: the standard deviation is " + std::to_string(stddev) + "; expected 0, or " +
                      power(kFloatBits - kWidestGrid) + " or more");
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

void add_gaussian(const GridGaussian& noise, RandomBits& bits, std::span<float> values) { add_gaussian(noise, bits, values, 1, values); }

void add_gaussian(const GridGaussian& noise, RandomBits& bits, std::span<const float> values, double factor, std::span<float> out) {
  FL_CHECK(values.size() == out.size(), "add_gaussian: two lengths");
  const double per_unit = std::ldexp(1.0, -noise.grid());
  // Rounding the sum to double, times the factor, to float sees nothing but the sum, which is a multiple of the grid.
  const double unit = std::ldexp(factor, noise.grid());
  const bool small = noise.stddev() * per_unit <= std::ldexp(1.0, kFloatBits);
  std::array<std::int64_t, 2048> draws;
  for (std::size_t start = 0; start < values.size(); start += draws.size()) {
    const std::size_t count = std::min(values.size() - start, draws.size());
    noise.fill(bits, std::span(draws).first(count));
    const float* from = values.data() + start;
    float* to = out.data() + start;
    if (small) {
      noise_loops().add(from, draws.data(), per_unit, unit, to, count);
    } else {
      for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<float>((nearest_integer(static_cast<double>(from[i]) * per_unit) + static_cast<double>(draws[i])) * unit);
    }
  }
  OPENSSL_cleanse(draws.data(), sizeof(draws));
}

}  // namespace fl
