#include "aggregator/strategy/mean_strategy.h"
#include "fl_core/params/kernels.h"

namespace fl {
namespace {

struct FedAvgOptions {
  double server_learning_rate = 1;

  void fields(Fields& f) {
    f.number("server_learning_rate", server_learning_rate, {0, 1e6}, "the model moves by this times the mean update");
  }
};

/// Federated averaging (McMahan et al. 2017, Algorithm 1): global += server_learning_rate · mean delta, over weights
/// and statistics alike. With a rate of 1 the result is the rounded sum global + mean delta and nothing else.
class FedAvg final : public MeanStrategy {
 public:
  FedAvg(const FedAvgOptions& options, const StrategyContext& context)
      : MeanStrategy(context), rate_(static_cast<float>(options.server_learning_rate)) {}

  void step(ParameterVector& global, const Aggregate& aggregate) override {
    kernels::axpy(rate_, aggregate.mean_delta.values(), global.values());
    ++steps_;
  }
  std::uint64_t steps() const override { return steps_; }
  void set_steps(std::uint64_t steps) override { steps_ = steps; }

 private:
  float rate_;
  std::uint64_t steps_ = 0;
};

FL_REGISTER(strategies(), "fedavg", FedAvg, FedAvgOptions, "federated averaging: the model moves by the mean update");

}  // namespace
}  // namespace fl
