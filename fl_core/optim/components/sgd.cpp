#include <algorithm>
#include <nlohmann/json.hpp>

#include "fl_core/base/buffer.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/optim/optimizer.h"
#include "fl_core/params/kernels.h"

namespace fl {
namespace {

struct SgdOptions {
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;

  void fields(Fields& f) {
    f.number("momentum", momentum, {0, 1}, "share of the old moment kept in each step");
    f.number("dampening", dampening, {0, 1}, "share of the gradient that does not enter the moment");
    f.number("weight_decay", weight_decay, {0, 1e6}, "L2 penalty: weight_decay * w is added to the gradient");
    f.flag("nesterov", nesterov, "look one moment ahead (Sutskever et al. 2013)");
  }
  void check(const std::string& path) const {
    if (nesterov && (momentum == 0 || dampening != 0)) {
      bad_value(join_path(path, "nesterov"), nesterov, "false, unless momentum is above 0 and dampening is 0");
    }
    if (momentum == 0 && dampening != 0) {
      bad_value(join_path(path, "dampening"), dampening, "0, unless momentum is above 0");
    }
  }
};

/// m = momentum·m + (1 - dampening)·(g + weight_decay·w) ; w -= rate·m, as torch::optim::SGD does. One difference:
/// PyTorch puts the first gradient into the moment undamped, while here the first step is like any other.
class Sgd final : public Optimizer {
 public:
  explicit Sgd(const SgdOptions& options) {
    rule_.momentum = static_cast<float>(options.momentum);
    rule_.dampening = static_cast<float>(options.dampening);
    rule_.weight_decay = static_cast<float>(options.weight_decay);
    rule_.nesterov = options.nesterov;
  }

  void step(double learning_rate, std::span<float> weights, std::span<const float> gradient) override {
    if (moment_.size() == 0) prepare(weights.size());
    rule_.rate = static_cast<float>(learning_rate);
    kernels::sgd(rule_, weights, gradient, moment_.span());
    ++steps_;
  }
  void reset() override {
    std::fill(moment_.span().begin(), moment_.span().end(), 0.0F);
    steps_ = 0;
  }
  std::vector<std::pair<std::string, std::span<float>>> moments() override {
    if (rule_.momentum == 0) return {};
    return {{"momentum", moment_.span()}};
  }
  void prepare(std::size_t size) override {
    if (rule_.momentum != 0 && moment_.size() != size) moment_ = AlignedArray<float>(size);
  }
  std::uint64_t steps() const override { return steps_; }
  void set_steps(std::uint64_t steps) override { steps_ = steps; }

 private:
  kernels::SgdStep rule_;
  AlignedArray<float> moment_;
  std::uint64_t steps_ = 0;
};

FL_REGISTER(optimizers(), "sgd", Sgd, SgdOptions, "stochastic gradient descent with momentum and weight decay");

}  // namespace
}  // namespace fl
