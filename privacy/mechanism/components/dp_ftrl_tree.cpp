#include <cmath>

#include "privacy/accounting/participation.h"
#include "privacy/clip/clip_options.h"
#include "privacy/mechanism/correlated_noise.h"

namespace fl {
namespace {

constexpr int kStddevBits = 48;

/// DP-FTRL with tree aggregation (Kairouz et al. 2021, 2103.00039): noise that is small in the sum of all rounds so far, which is the
/// model, and needs no sampling; it counts on the sampler's separation instead. Noise multiplier: of one node of the tree.
class DpFtrlTree final : public Mechanism {
 public:
  explicit DpFtrlTree(const ClipOptions& options) : options_(options) {}

  bool releases_always() const override { return true; }

  void check(const PrivacySetting& setting, double noise_multiplier, const std::string& path) const override {
    grid(setting, noise_multiplier).check(setting.parameters, options_.clip_norm, noise_multiplier * options_.clip_norm, path);
  }

  /// All rounds are one Gaussian release, of the nodes that the prefix sums up to round `after` are made of (those of odd number): its
  /// sensitivity counts the ones that a client's rounds can be in.
  std::vector<PrivacyEvent> events(const PrivacySetting& setting, double noise_multiplier, std::uint32_t after) const override {
    if (after == 0) return {};
    const double squared = prefix_tree_sensitivity_squared(setting.participations(after), setting.separation, after);
    return {PrivacyEvent::gaussian(1, noise_multiplier / std::sqrt(squared))};
  }

  std::unique_ptr<ServerMechanism> server(const PrivacySetting& setting, double noise_multiplier, NoiseKeys& keys) const override {
    const SumGrid sums = grid(setting, noise_multiplier);
    auto noise = noise_multiplier > 0 ? std::make_unique<TreeNoise>(noise_multiplier * options_.clip_norm, sums) : nullptr;
    return std::make_unique<CorrelatedServer>(setting, options_.clip_norm, sums, std::move(noise), keys);
  }

  std::unique_ptr<DeviceMechanism> summed_device(const PrivacySetting& setting, double noise_multiplier) const override {
    return clip_for_sum(setting.parameters, grid(setting, noise_multiplier), options_.clip_norm);
  }

  SumCode sum_code(const PrivacySetting& setting, double noise_multiplier, const std::string&) const override { return grid(setting, noise_multiplier).code(); }

 private:
  SumGrid grid(const PrivacySetting& setting, double noise_multiplier) const {
    return SumGrid::choose(setting.max_cohort, options_.clip_norm, noise_multiplier * options_.clip_norm, kStddevBits);
  }

  ClipOptions options_;
};

FL_REGISTER(mechanisms(), "dp_ftrl_tree", DpFtrlTree, ClipOptions,
            "a trusted server adds noise that is correlated over the rounds by a binary tree; needs no sampling");

}  // namespace
}  // namespace fl
