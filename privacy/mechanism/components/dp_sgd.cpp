#include <cmath>
#include <nlohmann/json.hpp>

#include "privacy/mechanism/mechanism.h"

namespace fl {
namespace {

struct DpSgdOptions {
  double clip_norm = 1;
  double sampling_rate = 0.01;

  void fields(Fields& f) {
    f.number("clip_norm", clip_norm, {1e-6, 1e6}, "L2 norm that every example's gradient is cut to");
    f.number("sampling_rate", sampling_rate, {0, 1, true}, "chance of each local example to be in a step's batch");
  }
};

/// DP-SGD on the device (Abadi et al. 2016, 1607.00133): a record is one example of one client. Every step draws its batch by
/// Poisson sampling, cuts each example's gradient, adds N(0, (z·clip_norm)²) to their sum and divides by the expected batch. The
/// update is a release, and the trainer does it all (example_noise); the server averages as it would without privacy.
class DpSgd final : public Mechanism {
 public:
  explicit DpSgd(const DpSgdOptions& options) : options_(options) {}

  bool protects_examples() const override { return true; }
  bool on_device() const override { return true; }

  void check(const PrivacySetting& setting, double noise_multiplier, const std::string& path) const override {
    if (setting.example_steps == 0) {
      throw ConfigError(path + ": dp_sgd trains example by example, expected {\"trainer\": {\"name\": \"dp_sgd\", …}}, which says how many steps a round has");
    }
    if (!std::isfinite(noise_multiplier) || noise_multiplier < 0) {
      throw ConfigError(path + ": noise multiplier " + nlohmann::json(noise_multiplier).dump() + ", expected a finite number >= 0");
    }
  }

  std::vector<PrivacyEvent> events(const PrivacySetting& setting, double noise_multiplier, std::uint32_t after) const override {
    return {PrivacyEvent::gaussian(options_.sampling_rate, noise_multiplier, setting.participations(after) * setting.example_steps)};
  }

  std::optional<ExampleNoise> example_noise(double noise_multiplier) const override {
    ExampleNoise noise;
    noise.sampling_rate = options_.sampling_rate;
    noise.clip_norm = options_.clip_norm;
    noise.noise_multiplier = noise_multiplier;
    return noise;
  }

 private:
  DpSgdOptions options_;
};

FL_REGISTER(mechanisms(), "dp_sgd", DpSgd, DpSgdOptions, "every device trains with cut and noised gradients: protects single examples");

}  // namespace
}  // namespace fl
