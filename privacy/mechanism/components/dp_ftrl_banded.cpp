#include <algorithm>
#include <cmath>

#include "privacy/accounting/participation.h"
#include "privacy/clip/clip_options.h"
#include "privacy/mechanism/correlated_noise.h"

namespace fl {
namespace {

/// z is drawn 2^16 times finer than the sum's grid, and GridGaussian draws at most 2^52 units.
constexpr int kStddevBits = 52 - BandedNoise::kFractionBits;
/// By default not wider than this: the memory of the noise grows with it.
constexpr std::uint32_t kDefaultBandwidth = 32;

struct BandedOptions : ClipOptions {
  std::optional<std::int64_t> bandwidth;

  void fields(Fields& f) {
    ClipOptions::fields(f);
    f.optional_integer("bandwidth", bandwidth, {1, 256}, "rounds whose noise is correlated, at 8 bytes a parameter each; null: the sampler's separation, at most 32",
                       "rounds");
  }
};

/// DP-FTRL with a banded matrix factorisation (Choquette-Choo et al. 2023, 2306.08153), the square root of the prefix sums. Noise
/// multiplier: of the independent noise z behind the correlated noise.
class DpFtrlBanded final : public Mechanism {
 public:
  explicit DpFtrlBanded(const BandedOptions& options) : options_(options) {}

  bool releases_always() const override { return true; }

  void check(const PrivacySetting& setting, double noise_multiplier, const std::string& path) const override {
    grid(setting, noise_multiplier).check(setting.parameters, options_.clip_norm, noise_multiplier * options_.clip_norm, path);
  }

  /// All rounds are one Gaussian release of C x.
  std::vector<PrivacyEvent> events(const PrivacySetting& setting, double noise_multiplier, std::uint32_t after) const override {
    if (after == 0) return {};
    const double squared = banded_sensitivity_squared(bandwidth(setting), setting.participations(after), setting.separation, after);
    return {PrivacyEvent::gaussian(1, noise_multiplier / std::sqrt(squared))};
  }

  std::unique_ptr<ServerMechanism> server(const PrivacySetting& setting, double noise_multiplier, NoiseKeys& keys) const override {
    const SumGrid sums = grid(setting, noise_multiplier);
    std::unique_ptr<CorrelatedNoise> noise;
    if (noise_multiplier > 0) {
      noise = std::make_unique<BandedNoise>(setting.parameters, noise_multiplier * options_.clip_norm, sums, square_root_coefficients(bandwidth(setting)));
    }
    return std::make_unique<CorrelatedServer>(setting, options_.clip_norm, sums, std::move(noise), keys);
  }

  std::unique_ptr<DeviceMechanism> summed_device(const PrivacySetting& setting, double noise_multiplier) const override {
    return clip_for_sum(setting.parameters, grid(setting, noise_multiplier), options_.clip_norm);
  }

  SumCode sum_code(const PrivacySetting& setting, double noise_multiplier, const std::string&) const override { return grid(setting, noise_multiplier).code(); }

 private:
  std::uint32_t bandwidth(const PrivacySetting& setting) const {
    if (options_.bandwidth) return static_cast<std::uint32_t>(*options_.bandwidth);
    return std::clamp<std::uint32_t>(setting.separation, 1, kDefaultBandwidth);
  }
  SumGrid grid(const PrivacySetting& setting, double noise_multiplier) const {
    return SumGrid::choose(setting.max_cohort, options_.clip_norm, noise_multiplier * options_.clip_norm, kStddevBits);
  }

  BandedOptions options_;
};

FL_REGISTER(mechanisms(), "dp_ftrl_banded", DpFtrlBanded, BandedOptions,
            "a trusted server adds noise that is correlated over some rounds by a banded matrix; needs no sampling");

}  // namespace
}  // namespace fl
