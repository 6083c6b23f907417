#include <cmath>
#include <nlohmann/json.hpp>

#include "fl_core/config/json_reader.h"
#include "privacy/clip/adaptive_clip.h"
#include "privacy/mechanism/mechanism.h"
#include "privacy/mechanism/noisy_sum.h"
#include "privacy/noise/grid_gaussian.h"

namespace fl {
namespace {

/// The noise is at most 2^48 units of the sum's grid.
constexpr int kStddevBits = 48;
/// An adaptive clip norm stays within this factor of its first value: the sum's grid, which is public and fixed, holds it all.
constexpr double kAdaptiveReach = 1024;
/// The count of unclipped updates is a multiple of 1/2, and its noise of this.
constexpr int kCountGrid = -20;
/// Default standard deviation of the noise on the count over the cohort (1905.03871, section 3.2).
constexpr double kCountStddevOfCohort = 0.05;

struct AdaptiveOptions {
  double quantile = 0.5;
  double learning_rate = 0.2;
  std::optional<double> count_stddev;

  void fields(Fields& f) {
    f.number("quantile", quantile, {0, 1}, "the fraction of updates that shall not be clipped");
    f.number("learning_rate", learning_rate, {0, 10}, "the clip norm moves by exp(-this * (noisy fraction - quantile)) a round");
    f.optional_number("count_stddev", count_stddev, {0x1p-12, 0x1p32}, "noise on the count of updates that were not clipped; null: 0.05 of the cohort", "clients");
  }
};

struct CentralOptions {
  double clip_norm = 1;
  bool is_adaptive = false;
  AdaptiveOptions adaptive;

  void fields(Fields& f) {
    f.number("clip_norm", clip_norm, {1e-6, 1e6}, "L2 norm that every client's update is cut to (at first, when it is adaptive)");
    f.optional_group("adaptive", is_adaptive, [this](Fields& g) { adaptive.fields(g); },
                     "the clip norm follows a quantile of the updates' norms, within a factor of 1024; null: it is fixed");
  }
};

/// What options and setting come to for one noise multiplier.
struct CentralPlan {
  CentralPlan(const CentralOptions& options, const PrivacySetting& setting, double noise_multiplier, const std::string& path) {
    multiplier = noise_multiplier;
    rule = {options.adaptive.quantile, options.adaptive.learning_rate, true, options.clip_norm, options.clip_norm};
    if (options.is_adaptive) {
      count_stddev = options.adaptive.count_stddev.value_or(kCountStddevOfCohort * setting.cohort);
      multiplier = noise_multiplier_of_updates(noise_multiplier, count_stddev, path);
      rule.lowest /= kAdaptiveReach;
      rule.highest *= kAdaptiveReach;
    }
    grid = SumGrid::choose(setting.max_cohort, rule.highest, multiplier * rule.highest, kStddevBits);
  }

  double multiplier = 0;    ///< of the updates alone
  double count_stddev = 0;  ///< 0: nothing is counted
  AdaptiveClipRule rule;
  SumGrid grid;
};

class CentralServer final : public ServerMechanism {
 public:
  CentralServer(const CentralOptions& options, const PrivacySetting& setting, const CentralPlan& plan, NoiseKeys& keys)
      : cohort_(setting.cohort), plan_(plan), clip_(options.clip_norm, plan.rule), sum_(setting.parameters, plan.grid), keys_(keys) {
    if (options.is_adaptive) count_noise_.emplace(plan.count_stddev, kCountGrid);
  }

  ExactSumError add(std::span<const float> update) override {
    const ClipResult result = sum_.add(update, clip_.clip_norm());
    if (result == ClipResult::not_finite) return ExactSumError::not_finite;
    twice_count_ += result == ClipResult::within ? 1 : -1;
    return ExactSumError::none;
  }

  void add_sum(std::span<const std::int64_t> sum, std::uint64_t terms) override { sum_.add_sum(sum, terms); }

  ReleaseFacts release(std::uint32_t round, std::span<float> mean) override {
    // The clip norm of the cut is the one of the noise: follow() comes last.
    const double stddev = plan_.multiplier * clip_.clip_norm();
    if (stddev > 0) {
      RandomBits bits(keys_.key(NoisePurpose::central, round, 0));
      if (!noise_ || noise_->stddev() != stddev) noise_.emplace(stddev, plan_.grid.exponent());  // its tables cost more than a small sum
      sum_.add_noise([&](std::span<std::int64_t> block) { noise_->fill(bits, block); });
    }
    sum_.release(cohort_, mean);
    ReleaseFacts facts;
    facts.clip_norm = clip_.clip_norm();
    facts.noise_stddev = stddev / cohort_;
    if (count_noise_) {
      const double within = noisy_fraction_within(round);
      facts.clipped_fraction = 1 - within;
      clip_.follow(within);
    }
    twice_count_ = 0;
    return facts;
  }

  void discard() override {
    sum_.clear();
    twice_count_ = 0;
  }

  nlohmann::json state() const override {
    return count_noise_ ? nlohmann::json{{"clip_norm", clip_.clip_norm()}} : nlohmann::json(nullptr);
  }
  void set_state(const nlohmann::json& state) override {
    if (!count_noise_) return;
    const bool good = state.is_object() && state.contains("clip_norm") && state.at("clip_norm").is_number();
    if (!good) throw IoError("the checkpoint's privacy state is damaged: expected {\"clip_norm\": number}, got " + shown(state));
    clip_.set_clip_norm(state.at("clip_norm").get<double>());
  }

 private:
  /// Over the public cohort, as the sum is: an empty round says 1/2 and noise.
  double noisy_fraction_within(std::uint32_t round) {
    RandomBits bits(keys_.key(NoisePurpose::clip_count, round, 0));
    std::int64_t noise = 0;
    count_noise_->fill(bits, std::span(&noise, 1));
    const std::int64_t count = twice_count_ * (std::int64_t{1} << (-kCountGrid - 1)) + noise;
    return std::clamp(std::ldexp(static_cast<double>(count), kCountGrid) / cohort_ + 0.5, 0.0, 1.0);
  }

  double cohort_;
  CentralPlan plan_;
  AdaptiveClip clip_;
  NoisySum sum_;
  NoiseKeys& keys_;
  std::optional<GridGaussian> noise_;        ///< for the newest clip norm
  std::optional<GridGaussian> count_noise_;  ///< where the clip norm adapts
  std::int64_t twice_count_ = 0;  ///< Σ ±1: twice the sum of the bits ±1/2
};

/// DP-FedAvg with a trusted server (McMahan, Ramage, Talwar, Zhang 2018, 1710.06963): every update is cut to one L2 norm, all count
/// alike, and N(0, (z·clip_norm)²) is added to their sum before it is divided by the expected cohort. `adaptive` follows
/// Andrew et al. 1905.03871.
class CentralGaussian final : public Mechanism {
 public:
  explicit CentralGaussian(const CentralOptions& options) : options_(options) {}

  bool releases_always() const override { return true; }
  bool amplified_by_sampling() const override { return true; }

  void check(const PrivacySetting& setting, double noise_multiplier, const std::string& path) const override {
    const CentralPlan plan(options_, setting, noise_multiplier, path);
    if (plan.rule.highest > 0x1p20) {
      bad_value(path + ".clip_norm", options_.clip_norm, "at most 1024 with an adaptive clip, which may grow by a factor of 1024");
    }
    plan.grid.check(setting.parameters, plan.rule.lowest, plan.multiplier * plan.rule.lowest, path);
    if (options_.is_adaptive && (plan.count_stddev < 0x1p-12 || plan.count_stddev > 0x1p32)) {
      bad_value(path + ".adaptive.count_stddev", plan.count_stddev, "2^-12 to 2^32 clients");
    }
  }

  /// The sum alone, or with the count as one release that costs as much (noise_multiplier_of_updates).
  std::vector<PrivacyEvent> events(const PrivacySetting& setting, double noise_multiplier, std::uint32_t after) const override {
    return {PrivacyEvent::gaussian(setting.sampling_rate, noise_multiplier, setting.sampling_rate < 1 ? after : setting.participations(after))};
  }

  std::unique_ptr<ServerMechanism> server(const PrivacySetting& setting, double noise_multiplier, NoiseKeys& keys) const override {
    const CentralPlan plan(options_, setting, noise_multiplier, "privacy.mechanism");
    return std::make_unique<CentralServer>(options_, setting, plan, keys);
  }

  std::unique_ptr<DeviceMechanism> summed_device(const PrivacySetting& setting, double noise_multiplier) const override {
    const CentralPlan plan(options_, setting, noise_multiplier, "privacy.mechanism");
    return clip_for_sum(setting.parameters, plan.grid, options_.clip_norm);
  }

  SumCode sum_code(const PrivacySetting& setting, double noise_multiplier, const std::string& path) const override {
    if (options_.is_adaptive) {
      bad_value(path + ".adaptive", "on", "null under secure aggregation: which updates are longer than the clip norm is seen on each update, and the server sees none");
    }
    return CentralPlan(options_, setting, noise_multiplier, path).grid.code();
  }

 private:
  CentralOptions options_;
};

FL_REGISTER(mechanisms(), "central_gaussian", CentralGaussian, CentralOptions,
            "a trusted server cuts every update to one norm and adds Gaussian noise to their sum");

}  // namespace
}  // namespace fl
