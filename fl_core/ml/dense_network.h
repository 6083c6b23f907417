#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "fl_core/ml/architecture.h"
#include "fl_core/ml/model.h"

namespace fl {

/// A small network of linear stages and ReLUs, trained without LibTorch: in a step of microseconds its operations, and the
/// matrix products of BLAS on operands this small, cost several times the arithmetic. One thread at a time.
class DenseNetwork {
 public:
  /// Above so many weights BLAS is as fast.
  static constexpr std::size_t kMaxWeights = 1U << 15;

  /// Nothing unless the stages are flatten, linear and relu only, with at most kMaxWeights weights.
  static std::optional<DenseNetwork> of(const Architecture& architecture);

  /// Model::backward() on `weights` (the layout's); overwrites `gradient` (its weight_count() floats).
  double backward(const Batch& batch, std::span<const float> weights, std::span<float> gradient);

 private:
  struct Layer {
    std::size_t in, out;
    std::size_t weight;               ///< where it begins in the layout
    std::optional<std::size_t> bias;
    bool relu = false;
    std::vector<float> output;        ///< float[rows][out]
    std::vector<float> flowing;       ///< the loss's derivative by it
  };

  explicit DenseNetwork(std::vector<Layer> layers) : layers_(std::move(layers)) {}

  double loss(std::span<const std::int64_t> labels);

  std::vector<Layer> layers_;
};

}  // namespace fl
