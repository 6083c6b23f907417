#include <nlohmann/json.hpp>

#include "aggregator/strategy/mean_strategy.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/optim/optimizer.h"
#include "fl_core/params/kernels.h"

namespace fl {
namespace {

/// Marks a number whose default depends on the optimizer; no valid value is negative.
constexpr double kByOptimizer = -1;

struct FedOptOptions {
  std::string optimizer = "adam";
  double learning_rate = kByOptimizer;
  double momentum = 0.9;
  double beta1 = kByOptimizer;
  double beta2 = 0.99;
  double tau = 1e-3;

  void fields(Fields& f) {
    f.choice("optimizer", optimizer, {"avgm", "adam", "yogi", "adagrad"},
             "how the server turns mean updates into steps");
    // Reddi et al. 2021, §4: beta1 is 0.9 for Adam and Yogi, and 0 for Adagrad. A server that only averages has rate 1.
    if (learning_rate == kByOptimizer) learning_rate = optimizer == "avgm" ? 1 : 0.01;
    if (beta1 == kByOptimizer) beta1 = optimizer == "adagrad" ? 0 : 0.9;
    f.number("learning_rate", learning_rate, {0, 1e6}, "the server's step size (eta)");
    f.number("momentum", momentum, {0, 1}, "avgm only: share of the old moment kept in each round");
    f.number("beta1", beta1, {0, 1}, "adam, yogi, adagrad: share of the old first moment kept; below 1");
    f.number("beta2", beta2, {0, 1}, "adam, yogi: how slowly the second moment follows; below 1");
    f.number("tau", tau, {1e-15, 1e3},
             "adam, yogi, adagrad: degree of adaptivity, added to the root of the second moment");
  }
  void check(const std::string& path) const {
    if (beta1 >= 1) bad_value(join_path(path, "beta1"), beta1, "a number from 0 to below 1");
    if (beta2 >= 1) bad_value(join_path(path, "beta2"), beta2, "a number from 0 to below 1");
  }

  /// The registered optimizer that does the server's step.
  nlohmann::json component() const {
    if (optimizer == "avgm") return {{"name", "sgd"}, {"momentum", momentum}};
    // Algorithm 2 wants v_{-1} >= tau².
    nlohmann::json adaptive = {
        {"name", optimizer}, {"beta1", beta1}, {"epsilon", tau}, {"initial_accumulator", tau * tau}};
    if (optimizer != "adagrad") {
      adaptive["beta2"] = beta2;
      adaptive["bias_correction"] = false;
    }
    return adaptive;
  }
};

/// FedOpt (Reddi et al. 2021, Algorithm 2) and server momentum (FedAvgM, Hsu et al. 2019): the negated mean delta is
/// the gradient of a server optimizer over the weights. Statistics have no gradient: they are averaged, global += mean
/// delta.
class FedOpt final : public MeanStrategy {
 public:
  FedOpt(const FedOptOptions& options, const StrategyContext& context)
      : MeanStrategy(context),
        rate_(options.learning_rate),
        optimizer_(optimizers().create(options.component(), "strategy")),
        gradient_(layout().weight_count()) {
    optimizer_->prepare(gradient_.size());
  }

  void step(ParameterVector& global, const Aggregate& aggregate) override {
    const auto mean = aggregate.mean_delta.values();
    const std::size_t weights = layout().weight_count();
    FL_CHECK(global.size() == layout().size() && mean.size() == layout().size(), "fedopt: a model of another layout");
    for (std::size_t i = 0; i < weights; ++i) gradient_[i] = -mean[i];
    optimizer_->step(rate_, global.values().first(weights), gradient_.span());
    kernels::axpy(1.0F, mean.subspan(weights), global.values().subspan(weights));
  }
  std::vector<std::pair<std::string, std::span<float>>> state() override { return optimizer_->moments(); }
  std::uint64_t steps() const override { return optimizer_->steps(); }
  void set_steps(std::uint64_t steps) override { optimizer_->set_steps(steps); }

 private:
  double rate_;
  std::unique_ptr<Optimizer> optimizer_;
  AlignedArray<float> gradient_;
};

FL_REGISTER(strategies(), "fedopt", FedOpt, FedOptOptions,
            "a server optimizer steps along the mean update (FedAvgM, FedAdam, …)");

}  // namespace
}  // namespace fl
