#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fl_core/base/buffer.h"
#include "fl_core/ml/model.h"

namespace fl {

class TorchAccelerator;
class TorchResident;

/// What a forward pass needs to know besides its input.
struct ForwardContext {
  bool training;  ///< false in evaluation: no dropout, BatchNorm uses its running statistics
  Rng& rng;       ///< the only random source of a forward pass; LibTorch's global generator differs between threads
};

/// Inverted dropout from the keyed generator: in training each element becomes 0 with `probability` (a multiple of
/// 2^-32), the others are divided by 1 - probability; in evaluation `input` itself. One draw an element, in memory order: on a GPU the same
/// mask, which is copied there.
torch::Tensor dropout(const torch::Tensor& input, double probability, ForwardContext& context);
/// What dropout multiplies with in training: 0, or 1 / (1 - probability).
torch::Tensor dropout_mask(at::IntArrayRef sizes, double probability, Rng& rng);

/// A model that LibTorch runs: everything but forward(). The layout's tensors are views into one aligned array of weights,
/// so an optimizer moves the network by moving floats. Gradients end in a second array: autograd hands each one over as a
/// fresh tensor (it never accumulates) and it is copied once, which is faster than clearing and adding in place.
/// On an accelerator both arrays are there, and weights() is the host's copy of the first.
class TorchModel : public Model {
 public:
  ~TorchModel() override;
  TorchModel(const TorchModel&) = delete;
  TorchModel& operator=(const TorchModel&) = delete;

  const SharedLayout& layout() const final { return layout_; }
  std::span<float> weights() final;
  std::span<const float> gradient() const final { return gradient_.span(); }
  double backward(const Batch& batch, Rng& rng) override;
  Evaluation evaluate(const Batch& batch) final;
  ResidentModel* resident() final;

 protected:
  /// All weights start as zero. `name` is for errors. Without an accelerator it runs on the processor.
  TorchModel(SharedLayout layout, ExampleShape shape, std::string name, std::shared_ptr<TorchAccelerator> accelerator = nullptr);

  /// Inputs [rows, shape.input…] (token ids come as floats) -> logits [rows, classes]. In training gradients are recorded.
  virtual torch::Tensor forward(torch::Tensor inputs, ForwardContext& context) = 0;

  /// The batch's inputs as a tensor [rows, shape.input…] that views them. Nothing may write to it.
  torch::Tensor inputs_of(const Batch& batch);
  /// A new view of slot i's weights where the model runs, which records no gradient.
  torch::Tensor weight_view(std::size_t slot);
  /// The same in weights().
  torch::Tensor host_view(std::size_t slot);
  /// A new view of where slot i's gradient ends. REQUIRES: a weight slot.
  torch::Tensor gradient_view(std::size_t slot);
  /// The flat gradient, for whoever computes all of it.
  std::span<float> whole_gradient() { return gradient_.span(); }
  /// Says that `parameter`, which views slot i, takes part in autograd; its gradient is collected after each backward.
  /// A weight slot without a parameter keeps a gradient of zero unless forward() arranges to write gradient_view(i).
  void collect_from(std::size_t slot, torch::Tensor parameter);
  /// Trains on two examples of zeros and throws the result away, where LibTorch says with a c10::Error what the accelerator lacks.
  void try_out_resident();

 private:
  struct Collected {
    torch::Tensor parameter;
    torch::Tensor gradient;  ///< view into gradient_
    float* weights;          ///< where the parameter must still point after a step
  };

  torch::Tensor logits_of(torch::Tensor inputs, ForwardContext& context);
  torch::Tensor loss_of(const torch::Tensor& inputs, const torch::Tensor& labels, Rng& rng);
  torch::Tensor labels_of(const Batch& batch) const;
  void collect_gradients();

  SharedLayout layout_;
  ExampleShape shape_;
  std::string name_;
  AlignedArray<float> weights_;
  AlignedArray<float> gradient_;
  std::vector<Collected> collected_;
  std::vector<std::int64_t> input_sizes_;  ///< [rows, shape.input…]
  std::unique_ptr<TorchResident> resident_;  ///< null on the processor
};

/// A network of your own in C++: derive from this, register submodules in the constructor as with any torch::nn::Module,
/// and name the class in FL_REGISTER_MODULE. Every float parameter becomes a weight slot and every float buffer
/// (BatchNorm's running mean and variance) a statistic slot; integer buffers stay where they are. Use fl::dropout in place
/// of torch::nn::Dropout, which is refused because it draws from LibTorch's global generator.
class TorchModule : public torch::nn::Module {
 public:
  /// Inputs [rows, shape.input…] -> logits [rows, classes].
  virtual torch::Tensor forward(torch::Tensor inputs, ForwardContext& context) = 0;
};

/// Builds a module; may throw anything.
using MakeModule = std::function<std::shared_ptr<TorchModule>(const ExampleShape&)>;

/// The factory behind FL_REGISTER_MODULE. Tries the module at once on one example of zeros: throws ConfigError that begins
/// with context.path where it cannot be built for this shape, gives no [rows, classes], holds no parameters or others than
/// floats, or draws from LibTorch's global generator. Initial weights are what the module's constructor draws after
/// torch::manual_seed(a function of `seed`): the same for the same seed and LibTorch version. Cost holds parameters only.
std::unique_ptr<ModelFactory> make_module_factory(const std::string& name, MakeModule make, const ModelContext& context);

/// Registers a TorchModule that is constructed as Class(const ExampleShape&):
/// FL_REGISTER_MODULE("two_branch", TwoBranch, "one sentence").
#define FL_REGISTER_MODULE(name, Class, summary)                                                     \
  [[maybe_unused]] static const bool fl_registered_##Class =                                         \
      ::fl::models().add_factory<::fl::NoOptions>(                                                   \
          name, summary, [](const ::fl::NoOptions&, const ::fl::ModelContext& context) {             \
            return ::fl::make_module_factory(                                                        \
                name, [](const ::fl::ExampleShape& shape) { return std::make_shared<Class>(shape); }, \
                context);                                                                            \
          })

}  // namespace fl
