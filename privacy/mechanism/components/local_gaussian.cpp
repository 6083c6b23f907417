#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "privacy/clip/clip.h"
#include "privacy/clip/clip_options.h"
#include "privacy/mechanism/mechanism.h"
#include "privacy/mechanism/noisy_sum.h"
#include "privacy/noise/grid_gaussian.h"

namespace fl {
namespace {

/// A coordinate is further than this many standard deviations from its value with probability below 2e-23.
constexpr double kDeviations = 10;

class LocalDevice final : public DeviceMechanism {
 public:
  LocalDevice(double clip_norm, double stddev) : clip_norm_(clip_norm), noise_(stddev, GridGaussian::float_grid(stddev)) {}

  void protect(std::span<float> delta, std::uint32_t, const NoiseKey& key) const override {
    // add_gaussian rounds to its grid first; what that adds to the norm is taken off here.
    const double rounding = rounding_length(delta.size(), std::ldexp(1.0, noise_.grid()));
    const ClipResult result = clip_to(delta, std::max(0.0, clip_norm_ - rounding), delta);
    FL_CHECK(result != ClipResult::not_finite, "only a finite update is protected");
    if (noise_.stddev() == 0) return;
    RandomBits bits(key);
    add_gaussian(noise_, bits, delta);
  }

 private:
  double clip_norm_;
  GridGaussian noise_;
};

/// Gaussian noise on the device: N(0, (z·clip_norm)²) on every coordinate of the cut update, which is then public. The server
/// averages what comes as it would without privacy. z is the exact one for the run where the accountant is "gaussian"
/// (Balle, Wang 2018, 1805.06530), not √(2 ln(1.25/δ))/ε, which proves nothing above ε = 1.
class LocalGaussian final : public Mechanism {
 public:
  explicit LocalGaussian(const ClipOptions& options) : options_(options) {}

  bool on_device() const override { return true; }
  bool hides_presence() const override { return false; }

  void check(const PrivacySetting& setting, double noise_multiplier, const std::string& path) const override {
    const double stddev = noise_multiplier * options_.clip_norm;
    const double most = options_.clip_norm + kDeviations * stddev;
    if (!std::isfinite(stddev) || stddev < 0 || most >= std::ldexp(1.0, setting.bound_bits)) {
      throw ConfigError(path + ": noise of standard deviation " + nlohmann::json(stddev).dump() + " moves weights by up to " + nlohmann::json(most).dump() +
                        ", expected 0 or more, and below 2^round.update_bound_bits; raise that, or lower the noise");
    }
  }

  /// Sampling amplifies nothing: who took part is seen, and each update is a release.
  std::vector<PrivacyEvent> events(const PrivacySetting& setting, double noise_multiplier, std::uint32_t after) const override {
    return {PrivacyEvent::gaussian(1, noise_multiplier, setting.participations(after))};
  }

  std::unique_ptr<DeviceMechanism> device(const PrivacySetting&, double noise_multiplier) const override {
    return std::make_unique<LocalDevice>(options_.clip_norm, noise_multiplier * options_.clip_norm);
  }

 private:
  ClipOptions options_;
};

FL_REGISTER(mechanisms(), "local_gaussian", LocalGaussian, ClipOptions,
            "every device cuts its update and adds Gaussian noise before it is sent: nobody need be trusted");

}  // namespace
}  // namespace fl
