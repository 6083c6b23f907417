#include "fl_core/ml/torch_model.h"

#include "fl_core/base/error.h"

namespace fl {
namespace {

/// A template for a network that a list of stages cannot say: two convolutions see the same image, one with a small and one
/// with a large window, and what they find is joined. To make your own, copy this file, rename the class, change what it
/// registers and what forward() does; the name at the bottom is then a "model" of every experiment.
class TwoBranch final : public TorchModule {
 public:
  /// Called once a worker. `shape` is what the data looks like; weights are drawn here, by the layers' own defaults.
  explicit TwoBranch(const ExampleShape& shape) {
    if (shape.input.size() != 3) throw ConfigError("two_branch needs images [channels, height, width]");
    using torch::nn::Conv2dOptions;
    const std::int64_t channels = shape.input[0];
    near_ = register_module("near", torch::nn::Conv2d(Conv2dOptions(channels, kWidth, 3).padding(1)));
    far_ = register_module("far", torch::nn::Conv2d(Conv2dOptions(channels, kWidth, 7).padding(3)));
    norm_ = register_module("norm", torch::nn::GroupNorm(torch::nn::GroupNormOptions(4, 2 * kWidth)));
    out_ = register_module("out", torch::nn::Linear(2 * kWidth * kGrid * kGrid, shape.classes));
  }

  /// [rows, channels, height, width] -> [rows, classes]. The only random source is the context's.
  torch::Tensor forward(torch::Tensor images, ForwardContext& context) override {
    torch::Tensor x = torch::cat({near_(images), far_(images)}, 1);
    x = torch::relu(norm_(x));
    x = torch::adaptive_avg_pool2d(x, {kGrid, kGrid});
    return out_(dropout(x.flatten(1), 0.25, context));
  }

 private:
  static constexpr std::int64_t kWidth = 16;  ///< channels of a branch
  static constexpr std::int64_t kGrid = 4;    ///< height and width after pooling

  torch::nn::Conv2d near_{nullptr}, far_{nullptr};
  torch::nn::GroupNorm norm_{nullptr};
  torch::nn::Linear out_{nullptr};
};

FL_REGISTER_MODULE("two_branch", TwoBranch, "an example of a torch::nn::Module: a near and a far convolution, joined");

}  // namespace
}  // namespace fl
