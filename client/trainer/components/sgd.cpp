#include "client/trainer/local_sgd.h"

namespace fl {
namespace {

/// FedAvg's client (McMahan et al. 2017, algorithm 1, ClientUpdate): plain mini-batch SGD.
class Sgd final : public Trainer {
 public:
  explicit Sgd(const LocalSgdOptions& options) : sgd_(options) {}
  TrainingResult fit(const TrainingJob& job) override { return sgd_.fit(job); }
  std::int64_t examples_for(std::size_t shard_size) const override { return sgd_.examples_for(shard_size); }
  std::int64_t batch_size() const override { return sgd_.options().batch_size; }
  bool runs_on_accelerators() const override { return true; }

 private:
  LocalSgd sgd_;
};

FL_REGISTER(trainers(), "sgd", Sgd, LocalSgdOptions, "mini-batch SGD (FedAvg's client, McMahan et al. 2017)");

}  // namespace
}  // namespace fl
