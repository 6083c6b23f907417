#include "fl_core/optim/adaptive.h"

namespace fl {
namespace {

struct AdagradOptions : AdaptiveOptions {
  AdagradOptions() {
    beta1 = 0;
    epsilon = 1e-10;
  }
  void fields(Fields& f) { moment_fields(f); }
};

/// v = v + g² (Duchi et al. 2011; FedAdagrad, where beta1 may be above 0).
struct AdagradRule {
  explicit AdagradRule(const AdaptiveOptions&) {}
  float operator()(float v, float g2) const { return v + g2; }
};

class Adagrad final : public AdaptiveOptimizer<AdagradRule> {
 public:
  explicit Adagrad(const AdagradOptions& options) : AdaptiveOptimizer(options) {}
};

FL_REGISTER(optimizers(), "adagrad", Adagrad, AdagradOptions, "Adagrad: steps scaled by the sum of squared gradients");

}  // namespace
}  // namespace fl
