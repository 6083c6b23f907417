#include "fl_core/optim/adaptive.h"

namespace fl {
namespace {

struct YogiOptions : AdaptiveOptions {
  YogiOptions() {
    epsilon = 1e-3;
    initial_accumulator = 1e-6;
  }
  void fields(Fields& f) {
    moment_fields(f);
    decay_fields(f);
  }
};

/// v = v - (1 - beta2)·g²·sign(v - g²) (Zaheer et al. 2018, Algorithm 2, whose defaults these are; FedYogi).
struct YogiRule {
  explicit YogiRule(const AdaptiveOptions& options) : take(static_cast<float>(1 - options.beta2)) {}
  float operator()(float v, float g2) const {
    const float sign = v > g2 ? 1.0F : v < g2 ? -1.0F : 0.0F;
    return v - take * g2 * sign;
  }
  float take;
};

class Yogi final : public AdaptiveOptimizer<YogiRule> {
 public:
  explicit Yogi(const YogiOptions& options) : AdaptiveOptimizer(options) {}
};

FL_REGISTER(optimizers(), "yogi", Yogi, YogiOptions, "Yogi: Adam whose second moment moves by steps of bounded size");

}  // namespace
}  // namespace fl
