#include "client/trainer/local_sgd.h"
#include "fl_core/params/kernels.h"

namespace fl {
namespace {

struct FedProxOptions : LocalSgdOptions {
  double mu = 0.01;

  void fields(Fields& f) {
    LocalSgdOptions::fields(f);
    f.number("mu", mu, {0, 1e6}, "strength of the pull towards the global model");
  }
};

/// FedProx (Li et al. 2020, equation 2): each client minimises loss(w) + mu/2·||w - w_global||², so mu·(w - w_global) is
/// added to every gradient. mu = 0 is `sgd`, bit for bit.
class FedProx final : public Trainer {
 public:
  explicit FedProx(const FedProxOptions& options) : sgd_(options), mu_(static_cast<float>(options.mu)) {}

  TrainingResult fit(const TrainingJob& job) override {
    if (mu_ == 0) return sgd_.fit(job);
    if (job.model.resident() != nullptr) return sgd_.fit_resident(job, mu_);
    return sgd_.fit(job, [this](const TrainingJob& now, std::span<float> gradient) {
      kernels::axpy(mu_, now.model.weights().first(gradient.size()), gradient);
      kernels::axpy(-mu_, now.global_weights.first(gradient.size()), gradient);
    });
  }
  std::int64_t examples_for(std::size_t shard_size) const override { return sgd_.examples_for(shard_size); }
  std::int64_t batch_size() const override { return sgd_.options().batch_size; }
  bool runs_on_accelerators() const override { return true; }

 private:
  LocalSgd sgd_;
  float mu_;
};

FL_REGISTER(trainers(), "fedprox", FedProx, FedProxOptions, "SGD with a pull towards the global model (FedProx, Li et al. 2020)");

}  // namespace
}  // namespace fl
