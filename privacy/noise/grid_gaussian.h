#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "privacy/noise/random_bits.h"

namespace fl {

class CellSampler;

/// Gaussian noise as integer multiples of a power of two, so that no low bits of a float betray what was added (Mironov 2012;
/// Haney et al. 2207.13793). A draw is an integer k; its value is k · 2^grid. The total variation distance of one draw to the
/// rounded N(0, stddev²) is below 2^-50 (cell_sampler.h tells why). Immutable and cheap to copy; making one takes about as
/// long as 100 000 draws.
class GridGaussian {
 public:
  /// Throws ConfigError when stddev is not finite, negative, or not between 2^8 and 2^52 units of the grid (0 draws zeros),
  /// or when grid is not in -1000 … 1000.
  GridGaussian(double stddev, int grid);

  /// The grid of noise on floats, where no exact sum gives one: stddev is 2^43 to 2^44 of its units. For 0 it is -149, of which
  /// every float is a multiple. Throws ConfigError when stddev is not finite, negative, or below 2^-956.
  static int float_grid(double stddev);

  /// Independent draws. Same bits for the same key on every CPU.
  void fill(RandomBits& bits, std::span<std::int64_t> out) const;
  int grid() const { return grid_; }
  double stddev() const { return stddev_; }

 private:
  double stddev_;
  int grid_;
  std::shared_ptr<const CellSampler> sampler_;  ///< nullptr: zeros
};

/// values[i] = round(values[i] to the grid) + draw, in double, rounded once to float: local noise on a device's update.
/// REQUIRES: finite values.
void add_gaussian(const GridGaussian& noise, RandomBits& bits, std::span<float> values);
/// The same times `factor`, into `out` in one pass; `out` may be `values`.
void add_gaussian(const GridGaussian& noise, RandomBits& bits, std::span<const float> values, double factor, std::span<float> out);

}  // namespace fl
