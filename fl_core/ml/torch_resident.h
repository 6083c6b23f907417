#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "fl_core/ml/batches.h"
#include "fl_core/ml/resident_model.h"
#include "fl_core/ml/torch_accelerator.h"

namespace fl {

/// The half of a TorchModel on an accelerator that is there: flat weights and gradient, which the network's tensors are views of, and what
/// moves them.
class TorchResident final : public ResidentModel {
 public:
  /// How the network runs. Arguments and results are on the device.
  struct Network {
    /// Inputs, labels -> mean loss; leaves the flat gradient in gradient().
    std::function<torch::Tensor(const torch::Tensor&, const torch::Tensor&, Rng&)> backward;
    /// Inputs -> logits, in evaluation mode.
    std::function<torch::Tensor(const torch::Tensor&)> logits;
  };

  /// `host` is Model::weights(): it outlives this. The first `weight_count` of them are trained.
  TorchResident(std::shared_ptr<TorchAccelerator> accelerator, std::span<float> host, std::size_t weight_count, ExampleShape shape, Network network);

  void begin(const ResidentRule& rule) override;
  void set_order(const Dataset& data, std::span<const std::uint32_t> examples) override;
  void step(std::size_t first, std::size_t count, Rng& dropout) override;
  std::vector<float> losses() override;
  void finish() override;
  Evaluation evaluate(const Dataset& data, std::span<const std::uint32_t> examples, std::size_t batch_size) override;

  /// Model::backward() and Model::evaluate() on a batch in host memory. `gradient` gets the flat gradient.
  double backward_once(const Batch& batch, Rng& rng, std::span<float> gradient);
  Evaluation evaluate_once(const Batch& batch);

  /// The host's weights may be changed from now on.
  void host_changes() { host_is_newer_ = true; }
  const torch::Tensor& weights() const { return weights_; }
  const torch::Tensor& gradient() const { return gradient_; }
  const TorchAccelerator& accelerator() const { return *accelerator_; }

 private:
  struct Examples {
    torch::Tensor inputs, labels;
  };

  void upload();
  void download();
  Examples batch(std::size_t first, std::size_t count);
  Examples copied(const Batch& batch);
  void apply_rule();
  void add_to(torch::Tensor& sums, const Examples& batch);
  Evaluation read(const torch::Tensor& sums) const;

  std::shared_ptr<TorchAccelerator> accelerator_;
  std::span<float> host_;
  std::int64_t weight_count_;
  ExampleShape shape_;
  Network network_;
  torch::Tensor weights_;   ///< float[N]
  torch::Tensor gradient_;  ///< float[weight_count]
  torch::Tensor moment_;    ///< float[weight_count], or undefined
  torch::Tensor start_;     ///< the weights at begin(), where the rule pulls
  torch::Tensor losses_;    ///< float[kMostSteps]
  ResidentRule rule_;
  std::int64_t steps_ = 0;  ///< of losses_ that are filled
  bool host_is_newer_ = true;

  const Dataset* data_ = nullptr;
  std::span<const std::uint32_t> examples_;
  std::shared_ptr<const ResidentData> resident_;  ///< null: batches of data_ are copied
  torch::Tensor order_;                           ///< int64: examples_ on the device, where resident_ is not null
  BatchBuffer buffer_;
};

}  // namespace fl
