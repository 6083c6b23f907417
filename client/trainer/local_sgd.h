#pragma once

#include <functional>
#include <string>
#include <vector>

#include "fl_core/ml/batches.h"
#include "client/trainer/trainer.h"
#include "fl_core/config/fields.h"

namespace fl {

/// The keys of a learning rate that changes from round to round.
struct LearningRate {
  double learning_rate = 0.1;
  std::string schedule = "constant";
  double decay = 1;
  std::int64_t decay_every = 1;
  std::int64_t warmup_rounds = 0;

  void fields(Fields& f);
  /// The learning rate of a round (1, 2, …).
  double rate(std::uint32_t round) const;
};

/// Keys shared by all trainers that run mini-batch SGD.
struct LocalSgdOptions : LearningRate {
  std::int64_t epochs = 1;
  std::optional<std::int64_t> steps;
  std::int64_t batch_size = 10;
  double momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;
  std::optional<double> clip_norm;

  void fields(Fields& f);
};

/// Called with the weights and the fresh gradient before each step; FedProx and its kin correct the gradient here.
using GradientHook = std::function<void(const TrainingJob& job, std::span<float> gradient)>;

/// Mini-batch SGD over the client's examples: shuffled by (seed, round, client) once an epoch, a last smaller batch
/// included. The momentum starts at zero in every round (clients keep no state).
class LocalSgd {
 public:
  explicit LocalSgd(const LocalSgdOptions& options) : options_(options) {}
  TrainingResult fit(const TrainingJob& job, const GradientHook& correct = nullptr);
  std::int64_t examples_for(std::size_t shard_size) const;
  const LocalSgdOptions& options() const { return options_; }

 private:
  bool step(const TrainingJob& job, std::span<const std::uint32_t> examples, double rate, Rng& dropout,
            const GradientHook& correct, TrainingResult& result);

  LocalSgdOptions options_;
  BatchBuffer batch_;
  std::vector<std::uint32_t> order_;
  std::vector<float> moment_;
  std::vector<float> gradient_;
};

}  // namespace fl
