#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "fl_core/base/buffer.h"
#include "privacy/mechanism/mechanism.h"
#include "privacy/mechanism/noisy_sum.h"
#include "privacy/noise/grid_gaussian.h"

namespace fl {

/// The key of one draw: SHA-256 over ("tributary correlated noise", root, first, second). Equal arguments, equal noise.
NoiseKey derived_key(const NoiseKey& root, std::uint64_t first, std::uint64_t second);

/// The noise w_1, w_2, … of a DP-FTRL run (Kairouz et al. 2021, 2103.00039): round t releases x_t + w_t, and what is private
/// and precise are the sums of the first t releases. All draws follow from one root key, so that after a restart the same
/// noise is made again and nothing else need be kept. w_t may go with one x_t only: whoever saw two has their difference.
class CorrelatedNoise {
 public:
  virtual ~CorrelatedNoise() = default;
  /// Adds w_round to the sum, in integers of its grid. REQUIRES: rounds ascend between calls of restart().
  virtual void add(std::uint32_t round, NoisySum& sum) = 0;
  /// Standard deviation of a coordinate of w_round.
  virtual double stddev(std::uint32_t round) const = 0;
  /// From now on with this root key, from round 1.
  virtual void restart(const NoiseKey& root) = 0;
};

/// Binary tree (Dwork et al. 2010; Chan, Shi, Song 2011): the noise in the sum of rounds 1 … t is the sum of one independent
/// draw N(0, stddev²) for each bit of t that is set, namely for the node ((i-1)·2^l, i·2^l] of the decomposition of (0, t]. So
/// w_t = node that t completes - nodes that it replaces: two draws a round on average, log₂ t at most. Memory O(1).
class TreeNoise final : public CorrelatedNoise {
 public:
  TreeNoise(double stddev, const SumGrid& grid) : draw_(stddev, grid.exponent()) {}
  void add(std::uint32_t round, NoisySum& sum) override;
  double stddev(std::uint32_t round) const override;
  void restart(const NoiseKey& root) override { root_ = root; }

 private:
  GridGaussian draw_;
  NoiseKey root_{};
};

/// Square root of the prefix sums, cut to `bandwidth` diagonals: C has c_i = binom(2i, i) / 4^i on diagonal i < bandwidth, and
/// w = C⁻¹ z for independent z_t ~ N(0, stddev²), that is w_t = z_t - Σ_{0<i<b} c_i w_{t-i} (Choquette-Choo et al. 2023, 2306.08153).
///
/// In numbers: c_i are rounded down to multiples of 2^-16, which no pattern of participation can make more sensitive; z is drawn on a
/// grid 2^16 times finer than the sum's, so that C x + z is on it for every x of the sum's grid; and w_t is the rounding to the sum's grid of
/// the recurrence in exact integers over the rounded w. Then y_t = x_t + w_t = round((C x + z)_t - Σ c_i y_{t-i}): the releases are a function of
/// C x + z alone, and rounding costs no privacy.
///
/// Memory 8·N·(bandwidth - 1) bytes; a restart at round t makes all of w_1 … w_t again.
class BandedNoise final : public CorrelatedNoise {
 public:
  static constexpr int kFractionBits = 16;

  /// `coefficients`: c_0 = 1, c_1, …; not negative, not increasing.
  BandedNoise(std::size_t size, double stddev, const SumGrid& grid, std::span<const double> coefficients);
  void add(std::uint32_t round, NoisySum& sum) override;
  double stddev(std::uint32_t round) const override;
  void restart(const NoiseKey& root) override;

 private:
  /// block[j] = coordinate start + j of w_round, kept for the rounds after. `draws` stands at the same coordinate of z_round.
  void step(std::uint32_t round, std::size_t start, RandomBits& draws, std::span<std::int64_t> block);
  std::int64_t* past(std::uint32_t round) { return past_[round % past_.size()].data(); }

  std::size_t size_;
  GridGaussian draw_;
  std::vector<std::uint64_t> coefficients_;      ///< c_i · 2^16
  std::vector<AlignedArray<std::int64_t>> past_;  ///< w of the last bandwidth - 1 rounds, by round modulo their number
  std::uint32_t made_ = 0;
  NoiseKey root_{};
};

/// The server's half of DP-FTRL: bounded updates, correlated noise. State: the root key and nothing else; it undoes all noise, so a
/// journal that holds it is the server's secret.
class CorrelatedServer final : public ServerMechanism {
 public:
  CorrelatedServer(const PrivacySetting& setting, double clip_norm, const SumGrid& grid, std::unique_ptr<CorrelatedNoise> noise, NoiseKeys& keys);
  ExactSumError add(std::span<const float> update) override;
  void add_sum(std::span<const std::int64_t> sum, std::uint64_t terms) override { sum_.add_sum(sum, terms); }
  ReleaseFacts release(std::uint32_t round, std::span<float> mean) override;
  void discard() override { sum_.clear(); }
  nlohmann::json state() const override;
  void set_state(const nlohmann::json& state) override;

 private:
  double clip_norm_;
  double cohort_;
  NoisySum sum_;
  std::unique_ptr<CorrelatedNoise> noise_;  ///< empty: no noise
  NoiseKey root_;
};

}  // namespace fl
