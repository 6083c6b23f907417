#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fl_core/config/registry.h"

namespace fl {

/// A first-order optimizer over a flat array: one class serves the clients' steps and the server's.
/// One thread at a time. The moments start as if all earlier gradients were zero.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// Moves `weights` by one step against `gradient` (same length in every call) with the given learning rate.
  virtual void step(double learning_rate, std::span<float> weights, std::span<const float> gradient) = 0;
  /// Forgets the moments.
  virtual void reset() = 0;
  /// The moments by name, for checkpoints; each has the length of the weights, or is empty before the first step.
  virtual std::vector<std::pair<std::string, std::span<float>>> moments() { return {}; }
  /// Makes moments() valid for `size` weights, so that a checkpoint can be read into them.
  virtual void prepare(std::size_t) {}
  /// Steps taken so far; part of a checkpoint.
  virtual std::uint64_t steps() const { return 0; }
  virtual void set_steps(std::uint64_t) {}
};

using OptimizerRegistry = Registry<Optimizer>;
/// Kind "optimizer".
OptimizerRegistry& optimizers();

}  // namespace fl
