#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "fl_core/base/rng.h"
#include "fl_core/ml/dataset.h"
#include "fl_core/ml/model.h"
#include "fl_core/params/kernels.h"

namespace fl {

/// What happens between a batch's gradient and the next batch, all on the device and in this order: the gradient gets pull · (w - w at begin()),
/// is scaled down to clip_norm, and moves the weights as kernels::sgd() does.
struct ResidentRule {
  kernels::SgdStep sgd;
  std::optional<double> clip_norm;
  float pull = 0;
};

/// The part of a Model on an accelerator that needs no copies between steps: weights, gradient and moment are on the device, and so are
/// the examples where they fit. A client's training is begin(), then for each pass over its examples set_order() and some step()s, then
/// finish(): one copy of all weights to the device and one back. Where no wait is mentioned the caller goes on while the device computes.
/// One thread at a time, the model's own.
class ResidentModel {
 public:
  /// So many steps may be taken between two calls of losses().
  static constexpr std::size_t kMostSteps = 1024;

  virtual ~ResidentModel() = default;
  /// Copies Model::weights() to the device and forgets the moment.
  virtual void begin(const ResidentRule& rule) = 0;
  /// The examples of the steps that follow. `data` and `examples` outlive those steps.
  virtual void set_order(const Dataset& data, std::span<const std::uint32_t> examples) = 0;
  /// One step on `count` examples from place `first` of the order. `dropout` is used at once.
  virtual void step(std::size_t first, std::size_t count, Rng& dropout) = 0;
  /// The mean loss of each step since begin() or the last call, in nats. Waits for them.
  virtual std::vector<float> losses() = 0;
  /// Copies the weights and statistics back to Model::weights(). Waits for it.
  virtual void finish() = 0;
  /// As evaluate_examples() does; of the device's sums only these come back. Waits for them. Weights go to the device where Model::weights()
  /// was called since they last did, or training was: one copy, however many evaluations follow.
  virtual Evaluation evaluate(const Dataset& data, std::span<const std::uint32_t> examples, std::size_t batch_size) = 0;
};

}  // namespace fl
