#include <gtest/gtest.h>
#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include "fl_core/ml/model.h"

namespace fl {
namespace {

namespace nn = torch::nn;

/// A model of our stages and the same network from LibTorch's own layers, whose parameters come in the same order.
struct Pair {
  Pair(const char* stages, const ExampleShape& shape_, nn::Sequential reference_)
      : shape(shape_), model(models().create({{"name", "spec"}, {"stages", nlohmann::json::parse(stages)}}, "model", {shape_, "model"})->make(1)), reference(std::move(reference_)) {
    const torch::NoGradGuard no_grad;
    std::size_t offset = 0;
    for (torch::Tensor parameter : reference->parameters()) {
      parameter.copy_(torch::from_blob(model->weights().data() + offset, parameter.sizes()));
      offset += static_cast<std::size_t>(parameter.numel());
    }
    EXPECT_EQ(offset, model->weights().size());
  }

  /// Rounding of sums of a few hundred floats near 1 is some 1e-6.
  void expect_same(std::int64_t rows) {
    SCOPED_TRACE(rows);
    torch::Tensor inputs = torch::randn({rows, static_cast<std::int64_t>(shape.input_size())}, at::detail::createCPUGenerator(static_cast<std::uint64_t>(rows)));
    torch::Tensor labels = torch::arange(rows, torch::kLong) % shape.classes;
    reference->zero_grad();
    const torch::Tensor loss = nn::functional::cross_entropy(reference->forward(inputs), labels);
    loss.backward();
    Rng rng(1, Purpose::dropout);
    const double ours = model->backward({{inputs.data_ptr<float>(), static_cast<std::size_t>(inputs.numel())}, {labels.data_ptr<std::int64_t>(), static_cast<std::size_t>(rows)}}, rng);
    EXPECT_NEAR(ours, loss.item<double>(), 2e-6);
    std::size_t offset = 0;
    for (const torch::Tensor& parameter : reference->parameters()) {
      const torch::Tensor gradient = torch::from_blob(const_cast<float*>(model->gradient().data()) + offset, parameter.sizes());
      EXPECT_LT((gradient - parameter.grad()).abs().max().item<float>(), 2e-6F);
      EXPECT_GT(gradient.abs().max().item<float>(), 1e-4F);
      offset += static_cast<std::size_t>(parameter.numel());
    }
  }

  ExampleShape shape;
  std::unique_ptr<Model> model;
  nn::Sequential reference;
};

TEST(DenseNetworkParity, LogisticRegressionGivesLibTorchsGradient) {
  Pair pair(R"([{"flatten": {}}, {"linear": {"out": "classes"}}])", {{1, 28, 28}, 10, 0}, nn::Sequential(nn::Linear(784, 10)));
  for (const std::int64_t rows : {1, 6, 10, 64}) pair.expect_same(rows);
}

TEST(DenseNetworkParity, SeveralLayersGiveLibTorchsGradient) {
  Pair pair(R"([{"linear": {"out": 33}}, {"relu": {}}, {"linear": {"out": 20, "bias": false}}, {"relu": {}}, {"linear": {"out": "classes"}}])", {{45}, 7, 0},
            nn::Sequential(nn::Linear(45, 33), nn::ReLU(), nn::Linear(nn::LinearOptions(33, 20).bias(false)), nn::ReLU(), nn::Linear(20, 7)));
  for (const std::int64_t rows : {1, 3, 10}) pair.expect_same(rows);
}

}  // namespace
}  // namespace fl
