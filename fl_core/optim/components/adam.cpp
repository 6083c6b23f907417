#include "fl_core/optim/adaptive.h"

namespace fl {
namespace {

struct AdamOptions : AdaptiveOptions {
  AdamOptions() { bias_correction = true; }
  void fields(Fields& f) {
    moment_fields(f);
    decay_fields(f);
  }
};

/// v = beta2·v + (1 - beta2)·g² (Kingma and Ba 2015, Algorithm 1; FedAdam without bias correction).
struct AdamRule {
  explicit AdamRule(const AdaptiveOptions& options)
      : keep(static_cast<float>(options.beta2)), take(static_cast<float>(1 - options.beta2)) {}
  float operator()(float v, float g2) const { return keep * v + take * g2; }
  float keep;
  float take;
};

class Adam final : public AdaptiveOptimizer<AdamRule> {
 public:
  explicit Adam(const AdamOptions& options) : AdaptiveOptimizer(options) {}
};

FL_REGISTER(optimizers(), "adam", Adam, AdamOptions, "Adam: steps scaled by a running mean of squared gradients");

}  // namespace
}  // namespace fl
