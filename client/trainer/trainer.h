#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "fl_core/base/rng.h"
#include "fl_core/config/registry.h"
#include "fl_core/ml/dataset.h"
#include "fl_core/ml/model.h"
#include "fl_core/round/types.h"
#include "privacy/mechanism/mechanism.h"

namespace fl {

/// What one fit() works on. All spans outlive the call.
struct TrainingJob {
  Model& model;                               ///< holds the global weights on entry and the local ones on return
  std::span<const float> global_weights;      ///< float[N]
  const Dataset& data;
  std::span<const std::uint32_t> examples;    ///< this client's shard, indices into data; not empty
  std::uint64_t seed = 0;
  std::uint32_t round = 0;
  ClientId client = 0;
  /// Polled between batches; when it returns true, fit() throws Interrupted.
  std::function<bool()> should_stop;
  /// Set under example-level privacy: the trainer bounds every example and adds the noise, or must not be used.
  std::optional<ExampleNoise> example_noise = std::nullopt;
};

struct TrainingResult {
  std::uint32_t steps = 0;
  ClientMetrics metrics;  ///< loss over all batches trained on; `correct` is 0
  bool diverged = false;  ///< a batch's loss was not finite; training stopped there
};

/// Local training on one client. Keeps scratch memory between calls, no state of any client. One thread at a time.
class Trainer {
 public:
  virtual ~Trainer() = default;
  virtual TrainingResult fit(const TrainingJob& job) = 0;
  /// How many examples (repetitions counted) fit() runs through for a shard of this size; virtual time and plans use it.
  virtual std::int64_t examples_for(std::size_t shard_size) const = 0;
  virtual std::int64_t batch_size() const = 0;
  /// Steps that fit() takes in any case, however many examples there are; 0 where that depends on them. Example-level
  /// privacy is counted by it.
  virtual std::uint64_t private_steps() const { return 0; }
  /// Whether fit() takes a model on an accelerator (Model::resident()). Others are refused before a run begins.
  virtual bool runs_on_accelerators() const { return false; }
};

using TrainerRegistry = Registry<Trainer>;
/// Kind "trainer".
TrainerRegistry& trainers();

}  // namespace fl
