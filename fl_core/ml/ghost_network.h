#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fl_core/ml/ghost_stage.h"

namespace fl::ghost {

/// An architecture that runs without autograd and gives the sum of its examples' clipped gradients.
class Network {
 public:
  /// Throws ConfigError where examples of a batch depend on each other.
  Network(const Architecture& architecture, const SlotViews& views) : chain_(architecture.stages, views, *architecture.layout) {}

  /// Model::clipped_backward. inputs: [rows, shape.input…]; every gradient slot is written. Costs about a plain backward.
  std::size_t clipped_backward(const torch::Tensor& inputs, std::span<const std::int64_t> labels, double clip_norm,
                               ForwardContext& context);

 private:
  Chain chain_;
};

}  // namespace fl::ghost
