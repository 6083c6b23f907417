#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "fl_core/base/rng.h"
#include "fl_core/optim/optimizer.h"

namespace fl {
namespace {

using nlohmann::json;

constexpr std::int64_t kSize = 257;
constexpr int kSteps = 50;

std::vector<float> random_values(std::uint64_t stream) {
  Rng rng(1, Purpose::synthetic_data, 0, stream);
  std::vector<float> values(kSize);
  for (float& value : values) value = static_cast<float>(rng.normal());
  return values;
}

/// 50 steps of both with the same gradients; the distance must stay below 1e-6 of the weights' norm: each step rounds a
/// few times to float (6e-8 each), and PyTorch may fuse multiply and add.
void expect_parity(const json& options, torch::optim::Optimizer& theirs, const torch::Tensor& weights, double rate,
                   int zero_gradients = 0) {
  const auto ours = optimizers().create(options, "optimizer");
  std::vector<float> w(weights.data_ptr<float>(), weights.data_ptr<float>() + kSize);
  for (int i = 0; i < kSteps; ++i) {
    auto gradient = i < zero_gradients ? std::vector<float>(kSize) : random_values(static_cast<std::uint64_t>(100 + i));
    weights.mutable_grad() = torch::from_blob(gradient.data(), {kSize}).clone();
    theirs.step();
    ours->step(rate, w, gradient);
    double distance = 0;
    double norm = 0;
    for (std::size_t k = 0; k < w.size(); ++k) {
      const double expected = weights.data_ptr<float>()[k];
      distance += std::pow(w[k] - expected, 2);
      norm += expected * expected;
    }
    ASSERT_LE(std::sqrt(distance / norm), 1e-6) << options << " at step " << i;
  }
}

torch::Tensor start() {
  auto values = random_values(1);
  return torch::from_blob(values.data(), {kSize}).clone().set_requires_grad(true);
}

TEST(OptimizerParity, SgdIsTorchSgd) {
  struct Case {
    double momentum;
    double weight_decay;
    bool nesterov;
  };
  for (const Case& one :
       {Case{0, 0, false}, {0, 0.01, false}, {0.9, 0, false}, {0.9, 0.01, false}, {0.9, 0.01, true}}) {
    torch::Tensor weights = start();
    const auto options =
        torch::optim::SGDOptions(0.05).momentum(one.momentum).weight_decay(one.weight_decay).nesterov(one.nesterov);
    torch::optim::SGD theirs({weights}, options);
    expect_parity(
        {{"name", "sgd"}, {"momentum", one.momentum}, {"weight_decay", one.weight_decay}, {"nesterov", one.nesterov}},
        theirs, weights, 0.05);
  }
}

TEST(OptimizerParity, SgdWithDampeningIsTorchSgdAfterAZeroGradient) {
  // PyTorch's first gradient enters the moment undamped; when it is zero, both start from the same moment.
  torch::Tensor weights = start();
  torch::optim::SGD theirs({weights}, torch::optim::SGDOptions(0.05).momentum(0.9).dampening(0.5));
  expect_parity({{"name", "sgd"}, {"momentum", 0.9}, {"dampening", 0.5}}, theirs, weights, 0.05, 1);
}

TEST(OptimizerParity, AdamIsTorchAdam) {
  for (const double weight_decay : {0.0, 0.01}) {
    torch::Tensor weights = start();
    torch::optim::Adam theirs({weights}, torch::optim::AdamOptions(0.01).weight_decay(weight_decay));
    expect_parity({{"name", "adam"}, {"weight_decay", weight_decay}}, theirs, weights, 0.01);
  }
  torch::Tensor weights = start();
  torch::optim::Adam theirs({weights}, torch::optim::AdamOptions(0.01).betas({0.5, 0.9}).eps(1e-3));
  expect_parity({{"name", "adam"}, {"beta1", 0.5}, {"beta2", 0.9}, {"epsilon", 1e-3}}, theirs, weights, 0.01);
}

TEST(OptimizerParity, AdagradIsTorchAdagrad) {
  for (const double initial : {0.0, 0.1}) {
    torch::Tensor weights = start();
    torch::optim::Adagrad theirs(
        {weights}, torch::optim::AdagradOptions(0.05).initial_accumulator_value(initial).weight_decay(0.01));
    expect_parity({{"name", "adagrad"}, {"initial_accumulator", initial}, {"weight_decay", 0.01}}, theirs, weights,
                  0.05);
  }
}

}  // namespace
}  // namespace fl
