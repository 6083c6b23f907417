#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "fl_core/base/rng.h"
#include "fl_core/config/registry.h"
#include "fl_core/ml/dataset.h"
#include "fl_core/params/layout.h"
#include "fl_core/round/types.h"

namespace fl {

class Accelerator;
class ResidentModel;

/// A mini-batch that its owner (trainer, evaluator) keeps alive during the call. `inputs` has labels.size() rows of
/// input_size() floats.
struct Batch {
  std::span<const float> inputs;
  std::span<const std::int64_t> labels;
};

/// Sums over examples, so that two evaluations of disjoint parts merge by addition (in any order: loss is fixed point).
struct Evaluation {
  std::int64_t loss_units = 0;                ///< Σ loss in units of 2^-32 nats; see kLossUnit
  std::vector<std::int64_t> correct;          ///< per class: examples of that class predicted right
  std::vector<std::int64_t> examples;         ///< per class: examples of that class
  bool finite = true;                         ///< false when some example's loss was NaN, infinite or above 2^20

  void merge(const Evaluation& other);
  std::int64_t total() const;
  std::int64_t total_correct() const;
  double accuracy() const;  ///< in [0, 1]; 0 when empty
  double loss() const;      ///< mean nats an example; NaN when not finite
};

/// A model whose parameters and gradients are two flat arrays. One thread at a time; different instances run in parallel.
class Model {
 public:
  virtual ~Model() = default;
  virtual const SharedLayout& layout() const = 0;
  /// N floats; what the optimizer moves in place.
  virtual std::span<float> weights() = 0;
  /// layout()->weight_count() floats, valid after backward().
  virtual std::span<const float> gradient() const = 0;
  /// Forward and backward of the mean cross entropy over the batch; overwrites gradient(). `rng` feeds dropout.
  /// Returns the mean loss in nats (NaN or infinite where training diverged: the caller decides).
  virtual double backward(const Batch& batch, Rng& rng) = 0;
  /// Forward and backward of each example on its own: gradient() becomes Σ min(1, clip_norm / ‖gᵢ‖) gᵢ over the batch, a sum and
  /// not a mean, gᵢ being the gradient of example i's cross entropy over all weights together; its norm is bounded before
  /// rounding to float, and an example whose gradient is not finite counts as zero. Returns the number of examples that
  /// were clipped. Throws ConfigError where examples of a batch depend on each other (BatchNorm).
  virtual std::size_t clipped_backward(const Batch& batch, double clip_norm, Rng& rng);
  /// Forward in evaluation mode; adds to nothing, returns the sums.
  virtual Evaluation evaluate(const Batch& batch) = 0;
  /// How to train and measure without copies, for a model on an accelerator (all of the above works there too, with copies both ways, but for
  /// clipped_backward()); null for one on the processor.
  virtual ResidentModel* resident() { return nullptr; }
};

/// What a model costs, as `fl plan` prints it. FLOPs count a multiply-add as two.
struct ModelCost {
  std::int64_t parameters = 0;
  std::int64_t forward_flops = 0;     ///< one example, forward
  std::int64_t training_flops = 0;    ///< one example, forward and backward
  std::int64_t activation_bytes = 0;  ///< one example, what backward keeps
};

/// Makes models of one kind. Immutable; make() is called once a worker, at the same time from several threads.
class ModelFactory {
 public:
  virtual ~ModelFactory() = default;
  /// A fresh model whose initial weights depend on `seed` only.
  virtual std::unique_ptr<Model> make(std::uint64_t seed) const = 0;
  /// The same model, with the same initial weights, on an accelerator; its resident() is not null. Throws ConfigError where it cannot run there.
  virtual std::unique_ptr<Model> make_on(std::uint64_t seed, const std::shared_ptr<Accelerator>& accelerator) const;
  virtual ModelCost cost() const = 0;
};

/// What a model component gets besides its options.
struct ModelContext {
  ExampleShape shape;
  std::string path;  ///< JSON path of the component, for errors
};

using ModelRegistry = Registry<ModelFactory, const ModelContext&>;
/// Kind "model".
ModelRegistry& models();

}  // namespace fl
