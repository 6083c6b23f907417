#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "fl_core/ml/batches.h"
#include "fl_core/base/file.h"
#include "fl_core/ml/model.h"
#include "fl_core/params/kernels.h"
#include "fl_core/wire/tensors.h"
#include "simulations/simulation.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

constexpr std::int64_t kExamples = 203;  // a last batch of 3
constexpr std::int64_t kBatch = 20;
constexpr std::uint64_t kSeed = 6;

Prepared one_client(std::int64_t rounds) {
  const nlohmann::json document = {
      {"name", "one"}, {"seed", kSeed}, {"rounds", rounds},
      {"data", {{"name", "synthetic"}, {"examples", kExamples}, {"test_examples", 20}, {"input", {1, 6, 6}}, {"classes", 5}}},
      {"partition", {{"name", "iid"}, {"clients", 1}}},
      {"model", {{"name", "spec"}, {"stages", nlohmann::json::parse(R"([{"flatten":{}},{"linear":{"out":16}},{"relu":{}},{"linear":{"out":"classes"}}])")}}},
      {"trainer", {{"name", "sgd"}, {"batch_size", kBatch}, {"learning_rate", 0.1}}},
      {"round", {{"cohort", 1}}}};
  return prepare(parse_experiment(document, "test"));
}

/// The same epochs by torch::nn and torch::optim alone, from the same start and in the same order of examples.
std::vector<float> central_sgd(const Prepared& prepared, std::uint32_t epochs) {
  namespace nn = torch::nn;
  nn::Linear first(36, 16);
  nn::Linear second(16, 5);
  const auto start = prepared.model->make(kSeed);
  const std::vector<torch::Tensor> parameters = {first->weight, first->bias, second->weight, second->bias};
  {
    const torch::NoGradGuard guard;
    std::int64_t offset = 0;
    const auto flat = torch::from_blob(start->weights().data(), {static_cast<std::int64_t>(start->weights().size())});
    for (torch::Tensor parameter : parameters) {
      parameter.copy_(flat.slice(0, offset, offset + parameter.numel()).view_as(parameter));
      offset += parameter.numel();
    }
  }
  torch::optim::SGD optimizer(parameters, torch::optim::SGDOptions(0.1));
  BatchBuffer buffer;
  for (std::uint32_t round = 1; round <= epochs; ++round) {
    auto order = prepared.partition->shard(0);
    Rng shuffle(kSeed, Purpose::shuffle, round, 0);
    shuffle.shuffle(order);
    for (std::size_t i = 0; i < order.size(); i += kBatch) {
      const auto part = std::span<const std::uint32_t>(order).subspan(i, std::min<std::size_t>(kBatch, order.size() - i));
      const Batch batch = buffer.gather(*prepared.data.train, part);
      const auto size = static_cast<std::int64_t>(part.size());
      const auto x = torch::from_blob(const_cast<float*>(batch.inputs.data()), {size, 36});
      const auto y = torch::from_blob(const_cast<std::int64_t*>(batch.labels.data()), {size}, torch::kInt64);
      optimizer.zero_grad();
      nn::functional::cross_entropy(second->forward(torch::relu(first->forward(x))), y).backward();
      optimizer.step();
    }
  }
  std::vector<float> flat;
  for (const torch::Tensor& parameter : parameters) {
    const float* values = parameter.data_ptr<float>();
    flat.insert(flat.end(), values, values + parameter.numel());
  }
  return flat;
}

TEST(CentralParity, OneClientWithAllDataIsPlainSgd) {
  constexpr std::uint32_t kRounds = 5;
  const Prepared prepared = one_client(kRounds);
  const test::TemporaryFolder folder;
  SimulationOptions options;
  options.folder = folder / "run";
  run_simulation(prepared, options);
  const auto model = prepared.model->make(kSeed);
  std::vector<float> federated(model->layout()->size());
  read_into(read_file(folder / "run" / "model.safetensors", 1 << 20), *model->layout(), federated, "model.safetensors");
  const std::vector<float> central = central_sgd(prepared, kRounds);
  const double distance = std::sqrt(kernels::squared_distance(federated, central) / kernels::squared_norm(central));
  EXPECT_LT(distance, 1e-6);
  const std::vector<float> start(model->weights().begin(), model->weights().end());
  EXPECT_GT(std::sqrt(kernels::squared_distance(start, central) / kernels::squared_norm(central)), 0.01) << "nothing was learnt";
}

}  // namespace
}  // namespace fl
