#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "fl_core/params/exact_sum.h"
#include "fl_core/params/sum_code.h"
#include "privacy/clip/clip.h"
#include "privacy/mechanism/mechanism.h"

namespace fl {

/// The grid that the bounded updates of a round and the noise on their sum share: multiples of 2^exponent(). Both are integers
/// there, so the sum shows nothing of its terms' or the noise's low bits, and no order of addition changes it.
struct SumGrid {
  std::uint64_t max_terms = 1;
  int bound_bits = 0;  ///< of ExactSum
  int coarser = 0;     ///< of ExactSum

  /// The finest that ExactSum has for `max_terms` updates of norm `clip_norm`, but not so fine that `stddev` is more than
  /// 2^stddev_bits units: the noise stays on the updates' own grid, and far from what an int64 holds.
  static SumGrid choose(std::uint64_t max_terms, double clip_norm, double stddev, int stddev_bits);
  int exponent() const;
  double unit() const;
  /// How updates that clip_for_sum() made become integers of the grid.
  SumCode code() const;
  /// Throws ConfigError "<path>: …" where noise of `stddev` or updates of `clip_norm` are too small for the grid: noise below
  /// 2^8 units, or a rounding that costs more than 1/1000 of the clip norm. A stddev of 0 is no noise and fits.
  void check(std::uint64_t parameters, double clip_norm, double stddev, const std::string& path) const;
};

/// The most that rounding `parameters` coordinates to multiples of `unit` adds to an L2 norm: √N · unit / 2.
double rounding_length(std::uint64_t parameters, double unit);

/// The bound of NoisySum::add() on the device, for sums of updates that the server does not see.
std::unique_ptr<DeviceMechanism> clip_for_sum(std::uint64_t parameters, const SumGrid& grid, double clip_norm);

/// A round's sum of bounded updates with noise on it. Every update has the same public weight. Memory 12·N bytes.
class NoisySum {
 public:
  /// Coordinates of a block of noise.
  static constexpr std::size_t kBlock = 16 * 1024;

  NoisySum(std::size_t size, const SumGrid& grid);

  /// Adds the update clipped to clip_norm less rounding_length(): what one update adds to the sum has an exact L2 norm of at most
  /// clip_norm, over all coordinates together, whatever else is in the sum. Nothing is added when the result is not_finite.
  ClipResult add(std::span<const float> update, double clip_norm);
  /// Adds the sum of `terms` updates that clip_for_sum() bounded, in integers of the grid.
  void add_sum(std::span<const std::int64_t> sum, std::uint64_t terms);
  /// Adds integers of the grid, made by `fill` in blocks from the first coordinate to the last.
  void add_noise(const std::function<void(std::span<std::int64_t> block)>& fill);
  /// mean[i] = sum[i] / divisor; forgets the sum. Deterministic in the sum's integers, so rounding here cannot leak.
  void release(double divisor, std::span<float> mean);
  void clear() { sum_.clear(); }

  std::size_t size() const { return sum_.size(); }
  std::span<const std::int64_t> raw() const { return sum_.raw(); }
  double unit() const { return unit_; }

 private:
  ExactSum sum_;
  double unit_;
  AlignedArray<float> clipped_;
};

}  // namespace fl
