#pragma once

#include <functional>
#include <string>
#include <vector>

#include "fl_core/ml/batches.h"
#include "client/trainer/trainer.h"
#include "fl_core/config/fields.h"
#include "fl_core/ml/resident_model.h"

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
  /// On the processor, or without `correct` on an accelerator.
  TrainingResult fit(const TrainingJob& job, const GradientHook& correct = nullptr);
  /// The same on the model's accelerator, with FedProx's pull of strength `pull`. What diverged is noticed up to ResidentModel::kMostSteps steps later.
  TrainingResult fit_resident(const TrainingJob& job, float pull = 0);
  std::int64_t examples_for(std::size_t shard_size) const;
  const LocalSgdOptions& options() const { return options_; }

 private:
  template <class NewOrder, class Step>
  void each_batch(const TrainingJob& job, const NewOrder& new_order, const Step& step);
  kernels::SgdStep rule_of(std::uint32_t round) const;
  bool step(const TrainingJob& job, std::span<const std::uint32_t> examples, const kernels::SgdStep& rule, Rng& dropout,
            const GradientHook& correct, TrainingResult& result);
  bool settle(ResidentModel& model, TrainingResult& result);

  LocalSgdOptions options_;
  BatchBuffer batch_;
  std::vector<std::uint32_t> order_;
  std::vector<float> moment_;
  std::vector<float> gradient_;
  std::vector<std::size_t> unsettled_;  ///< sizes of the batches whose losses were not read yet
};

}  // namespace fl
