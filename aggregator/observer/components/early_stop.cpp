#include <cmath>
#include <optional>

#include "aggregator/observer/observer.h"
#include "fl_core/config/fields.h"

namespace fl {
namespace {

struct EarlyStopOptions {
  std::string metric = "accuracy";
  std::optional<double> target;
  std::optional<std::int64_t> patience;
  double minimum_gain = 0;

  void fields(Fields& f) {
    f.choice("metric", metric, {"accuracy", "loss"}, "what is watched, on the test set");
    f.optional_number("target", target, {}, "stops once the metric is at least this good");
    f.optional_integer("patience", patience, {1, 1'000'000'000}, "stops after this many evaluations without a new best");
    f.number("minimum_gain", minimum_gain, {0, 1e9}, "an evaluation must beat the best by more than this to count");
  }
  void check(const std::string& path) const {
    if (!target && !patience) throw ConfigError(path + ": got neither target nor patience, expected at least one of them");
  }
};

/// Ends the run when the test metric reaches a target, or has not improved for a while.
class EarlyStop final : public Observer {
 public:
  explicit EarlyStop(const EarlyStopOptions& options) : options_(options) {}

  Verdict after_round(const RoundReport& report) override {
    const auto& measured = options_.metric == "accuracy" ? report.accuracy : report.loss;
    if (!measured || std::isnan(*measured)) return Verdict::go_on;
    // Written so that larger is better.
    const double sign = options_.metric == "accuracy" ? 1 : -1;
    const double value = sign * *measured;
    if (options_.target && value >= sign * *options_.target) return Verdict::stop;
    if (!best_ || value > *best_ + options_.minimum_gain) {
      best_ = value;
      without_gain_ = 0;
    } else {
      ++without_gain_;
    }
    return options_.patience && without_gain_ >= *options_.patience ? Verdict::stop : Verdict::go_on;
  }

 private:
  EarlyStopOptions options_;
  std::optional<double> best_;
  std::int64_t without_gain_ = 0;
};

FL_REGISTER(observers(), "early_stop", EarlyStop, EarlyStopOptions, "ends the run at a target, or when the metric no longer improves");

}  // namespace
}  // namespace fl
