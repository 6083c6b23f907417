#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "privacy/clip/clip_options.h"
#include "privacy/mechanism/mechanism.h"
#include "privacy/noise/random_bits.h"

namespace fl {

/// β of the usual conditional rounding: e^(-1/2).
inline constexpr double kRoundingBeta = 0.60653065971263342;

/// Bound on the L2 norm of a vector of R^dimension with norm `norm` after stochastic rounding to integers: the rounding meets it
/// with probability at least 1 - beta, so it is repeated until it does (Kairouz, Liu, Steinke 2021, 2102.06387, proposition 22):
/// min(c + √d, √(c² + d/4 + √(2 ln(1/β)) (c + √d/2))). `beta` 0 leaves the first, which every rounding meets.
double rounded_l2_bound(double norm, std::uint64_t dimension, double beta);
/// Bound on the L1 norm of an integer vector whose L2 norm is at most l2: l2 · min(√d, l2).
double rounded_l1_bound(double l2, std::uint64_t dimension);

/// out = values rounded up or down at random, without bias before the condition, again and again until ‖out‖₂ <= l2_bound.
/// REQUIRES: equal lengths, |values| < 2^31; a bound of rounded_l2_bound().
void round_conditionally(std::span<const double> values, double l2_bound, RandomBits& bits, std::span<std::int64_t> out);

/// Options of both distributed mechanisms.
struct DistributedOptions : ClipOptions {
  std::int64_t bits = 16;

  void fields(Fields& f);
};

/// What options, setting and noise multiplier come to. Everything that follows is in integer units.
struct DistributedPlan {
  DistributedPlan(const DistributedOptions& options, const PrivacySetting& setting, double noise_multiplier);

  /// Integers a unit: the largest for which 2^bits values hold the sum of max_cohort updates, rotated, rounded and noised, within 4 standard deviations
  /// (2102.06387, section 4): 2^bits >= 8 √(s² (ρ C² n² / d + σ² n) + n / 4), σ = z C / √minimum_cohort, ρ = Rotation::spread().
  /// A coordinate beyond that wraps around, which costs accuracy and no privacy. 0: nothing fits.
  double scale = 0;
  double norm = 0;          ///< clip_norm · scale
  double l2_bound = 0;      ///< of one client's integers without noise
  double l1_bound = 0;
  double local_stddev = 0;  ///< of one client's noise: those of minimum_cohort clients add up to z · clip_norm
};

/// Fills with independent integer noise.
using IntegerDraw = std::function<void(RandomBits& bits, std::span<std::int64_t> out)>;

/// The common part of the mechanisms that add up integer noise of the devices: cut, rotate, scale, round, add noise, reduce modulo
/// 2^bits; the server sums modulo 2^bits, centres, and undoes scale and rotation. Updates travel as floats that hold integers in
/// [0, 2^bits), exactly. What is private is the sum of at least minimum_cohort updates: one alone holds only its share of the noise.
class DistributedMechanism : public Mechanism {
 public:
  DistributedMechanism(const DistributedOptions& options, PrivacyEvent::Kind kind) : options_(options), kind_(kind) {}

  bool hides_presence() const override { return false; }
  void check(const PrivacySetting& setting, double noise_multiplier, const std::string& path) const override;
  std::vector<PrivacyEvent> events(const PrivacySetting& setting, double noise_multiplier, std::uint32_t after) const override;
  std::unique_ptr<ServerMechanism> server(const PrivacySetting& setting, double noise_multiplier, NoiseKeys& keys) const override;
  std::unique_ptr<DeviceMechanism> device(const PrivacySetting& setting, double noise_multiplier) const override;
  SumCode sum_code(const PrivacySetting& setting, double noise_multiplier, const std::string& path) const override;

 protected:
  /// The device's noise, of this variance.
  virtual IntegerDraw draw_of(double variance) const = 0;

 private:
  DistributedOptions options_;
  PrivacyEvent::Kind kind_;
};

}  // namespace fl
