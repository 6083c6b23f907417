#include "fl_core/ml/architecture_model.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "fl_core/ml/torch_runtime.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using testing::StartsWith;

/// Examples and labels that depend on `seed` only.
struct Examples {
  Examples(const ExampleShape& shape, std::size_t count, std::uint64_t seed) : inputs(count * shape.input_size()), labels(count) {
    Rng rng(seed, Purpose::synthetic_data);
    for (float& value : inputs) {
      value = shape.vocabulary > 0 ? static_cast<float>(rng.below(static_cast<std::uint64_t>(shape.vocabulary)))
                                   : static_cast<float>(rng.normal());
    }
    for (std::int64_t& label : labels) label = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(shape.classes)));
  }
  Batch batch() const { return {inputs, labels}; }

  std::vector<float> inputs;
  std::vector<std::int64_t> labels;
};

std::unique_ptr<Model> make(const json& component, const ExampleShape& shape, std::uint64_t seed = 1) {
  return models().create(component, "model", {shape, "model"})->make(seed);
}

std::unique_ptr<Model> make_stages(const std::string& stages, const ExampleShape& shape) {
  return make({{"name", "spec"}, {"stages", json::parse(stages)}}, shape);
}

double loss_at(Model& model, const Examples& examples) {
  Rng rng(3, Purpose::dropout);
  return model.backward(examples.batch(), rng);
}

void descend(Model& model, const Examples& examples, std::uint64_t step, float rate) {
  Rng rng(5, Purpose::dropout, step);
  model.backward(examples.batch(), rng);
  const std::span<const float> gradient = model.gradient();
  for (std::size_t i = 0; i < gradient.size(); ++i) model.weights()[i] -= rate * gradient[i];
}

std::vector<float> trained(const json& component, const ExampleShape& shape, std::uint64_t seed, std::uint64_t steps) {
  limit_threads_of_this_worker();
  const auto model = make(component, shape, seed);
  const Examples examples(shape, 4, seed);
  for (std::uint64_t step = 0; step < steps; ++step) descend(*model, examples, step, 0.05F);
  return {model->weights().begin(), model->weights().end()};
}

const ExampleShape kMnist{{1, 28, 28}, 10, 0};
const ExampleShape kCifar{{3, 32, 32}, 10, 0};

TEST(ArchitectureModel, ComesAsEveryPreset) {
  const ExampleShape tokens{{12}, 30, 30};
  for (const std::string name : {"logistic", "mlp_2nn", "cnn_mcmahan", "lenet5", "simple_cnn", "resnet18_gn", "mobilenet_v1",
                                 "mobilenet_v2", "char_lstm"}) {
    const ExampleShape& shape = name == "char_lstm" ? tokens : kCifar;
    const auto factory = models().create({{"name", name}}, "model", {shape, "model"});
    const auto model = factory->make(1);
    EXPECT_EQ(static_cast<std::int64_t>(model->layout()->weight_count()), factory->cost().parameters) << name;
    EXPECT_EQ(model->gradient().size(), model->layout()->weight_count()) << name;
    const Examples examples(shape, 2, 1);
    // An untrained network is near the loss of guessing, ln(classes): 2.3 or 3.4 nats.
    EXPECT_NEAR(model->evaluate(examples.batch()).loss(), std::log(static_cast<double>(shape.classes)), 2.0) << name;
    EXPECT_TRUE(std::isfinite(loss_at(*model, examples))) << name;
  }
}

TEST(ArchitectureModel, NamesThePresetWhoseStageDoesNotFit) {
  EXPECT_THAT(test::error_of([] { make({{"name", "lenet5"}}, {{784}, 10, 0}); }),
              StartsWith("model(lenet5).stages.0.conv: conv needs an image"));
  EXPECT_THAT(test::error_of([] { make({{"name", "lenet5"}, {"out", 3}}, kCifar); }), StartsWith("model.out: unknown key"));
}

/// The same network from LibTorch's own layers, its parameters in the same order.
void expect_same_as(torch::nn::Sequential reference, const std::string& preset, const ExampleShape& shape) {
  const auto model = make({{"name", preset}}, shape);
  const Examples examples(shape, 8, 2);
  const std::vector<torch::Tensor> parameters = reference->parameters();
  const std::vector<Slot>& slots = model->layout()->slots();
  ASSERT_EQ(parameters.size(), slots.size());
  {
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      ASSERT_EQ(parameters[i].sizes().vec(), slots[i].shape);
      parameters[i].copy_(torch::from_blob(model->weights().data() + slots[i].offset, slots[i].shape));
    }
  }
  std::vector<std::int64_t> sizes{8};
  sizes.insert(sizes.end(), shape.input.begin(), shape.input.end());
  const torch::Tensor inputs = torch::from_blob(const_cast<float*>(examples.inputs.data()), sizes);
  const torch::Tensor labels = torch::from_blob(const_cast<std::int64_t*>(examples.labels.data()), {8}, torch::kLong);
  const torch::Tensor loss = torch::nn::functional::cross_entropy(reference->forward(inputs), labels);
  loss.backward();
  EXPECT_NEAR(loss_at(*model, examples), loss.item<double>(), 1e-6);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const torch::Tensor gradient = torch::from_blob(const_cast<float*>(model->gradient().data()) + slots[i].offset, slots[i].shape);
    EXPECT_LT((gradient - parameters[i].grad()).abs().max().item<float>(), 1e-6F) << slots[i].name;
    EXPECT_GT(gradient.abs().max().item<float>(), 1e-5F) << slots[i].name;
  }
}

TEST(ArchitectureModel, GivesTheGradientOfLibTorchsLayersForMlp) {
  using namespace torch::nn;
  expect_same_as(Sequential(Flatten(), Linear(784, 200), ReLU(), Linear(200, 200), ReLU(), Linear(200, 10)), "mlp_2nn", kMnist);
}

TEST(ArchitectureModel, GivesTheGradientOfLibTorchsLayersForLenet) {
  using namespace torch::nn;
  expect_same_as(Sequential(Conv2d(3, 6, 5), ReLU(), MaxPool2d(2), Conv2d(6, 16, 5), ReLU(), MaxPool2d(2), Flatten(),
                            Linear(400, 120), ReLU(), Linear(120, 84), ReLU(), Linear(84, 10)),
                 "lenet5", kCifar);
}

/// Moves each weight slot along its gradient by ±h: the loss must change by 2 h |gradient|. Rounding of a loss near 2 is
/// 2e-7, so the slope is known to about 2e-7 / h = 4e-5; curvature and kinks get 3 %.
void expect_finite_differences(const std::string& stages, const ExampleShape& shape) {
  SCOPED_TRACE(stages);
  const auto model = make_stages(stages, shape);
  const Examples examples(shape, 6, 4);
  loss_at(*model, examples);
  const std::vector<float> gradient(model->gradient().begin(), model->gradient().end());
  const std::vector<float> start(model->weights().begin(), model->weights().end());
  constexpr double h = 5e-3;
  for (const Slot& slot : model->layout()->slots()) {
    if (slot.kind == SlotKind::statistic) continue;
    double squares = 0;
    for (std::size_t i = 0; i < slot.size; ++i) squares += std::pow(gradient[slot.offset + i], 2);
    const double norm = std::sqrt(squares);
    ASSERT_GT(norm, 1e-3) << slot.name;
    const auto loss_along = [&](double distance) {
      for (std::size_t i = 0; i < slot.size; ++i) {
        const std::size_t at = slot.offset + i;
        model->weights()[at] = static_cast<float>(start[at] + distance * gradient[at] / norm);
      }
      const double loss = loss_at(*model, examples);
      std::copy(start.begin(), start.end(), model->weights().begin());
      return loss;
    };
    EXPECT_NEAR((loss_along(h) - loss_along(-h)) / (2 * h), norm, 0.03 * norm + 1e-4) << slot.name;
  }
}

TEST(ArchitectureModel, GradientMatchesFiniteDifferencesForEveryStage) {
  const ExampleShape image{{2, 6, 6}, 3, 0};
  const ExampleShape flat{{5}, 3, 0};
  const ExampleShape tokens{{4}, 3, 7};
  expect_finite_differences(R"([{"linear": {"out": 4, "bias": false}}, {"tanh": {}}, {"linear": {"out": "classes"}}])", flat);
  expect_finite_differences(R"([{"linear": {"out": 4}}, {"gelu": {}}, {"linear": {"out": 3}}])", flat);
  expect_finite_differences(R"([{"linear": {"out": 6}}, {"relu": {}}, {"linear": {"out": 3}}, {"relu6": {}}, {"linear": {"out": 3}}])", flat);
  expect_finite_differences(R"([{"linear": {"out": 6}}, {"dropout": {"probability": 0.3}}, {"linear": {"out": 3}}, {"relu": {}}])", flat);
  expect_finite_differences(R"([{"linear": {"out": 6}}, {"relu": {}}, {"tanh": {}}, {"linear": {"out": 3}}])", flat);
  expect_finite_differences(R"([{"residual": {"body": [{"linear": {"out": 5}}, {"tanh": {}}]}}, {"linear": {"out": 3}}])", flat);
  expect_finite_differences(R"([{"conv": {"out": 4, "kernel": 3, "padding": 1, "groups": 2}}, {"relu": {}},
    {"max_pool": {"kernel": 2}}, {"flatten": {}}, {"linear": {"out": 3}}])", image);
  expect_finite_differences(R"([{"depthwise_conv": {"kernel": 3, "stride": 2, "padding": 1}}, {"avg_pool": {"kernel": 2, "stride": 1}},
    {"flatten": {}}, {"linear": {"out": 3}}])", image);
  expect_finite_differences(R"([{"conv": {"out": 4, "kernel": 3, "bias": false}}, {"group_norm": {"groups": 2}}, {"tanh": {}},
    {"global_avg_pool": {}}, {"linear": {"out": 3}}])", image);
  expect_finite_differences(R"([{"residual": {"body": [{"conv": {"out": 4, "kernel": 3, "padding": 1, "bias": false}},
    {"batch_norm": {}}], "shortcut": [{"conv": {"out": 4, "kernel": 1}}]}}, {"relu": {}}, {"flatten": {}}, {"linear": {"out": 3}}])", image);
  expect_finite_differences(R"([{"embedding": {"dimension": 3}}, {"lstm": {"hidden": 4, "whole_sequence": true}},
    {"lstm": {"hidden": 4}}, {"linear": {"out": 3}}])", tokens);
  expect_finite_differences(R"([{"embedding": {"dimension": 3}}, {"lstm": {"hidden": 4, "layers": 2}}, {"linear": {"out": 3}}])", tokens);
}

TEST(ArchitectureModel, LearnsThroughTheFlatArrayForFiftySteps) {
  const auto model = make({{"name", "lenet5"}}, kCifar);
  const float* const weights = model->weights().data();
  const Examples examples(kCifar, 8, 6);
  const double before = loss_at(*model, examples);
  for (std::uint64_t step = 0; step < 50; ++step) descend(*model, examples, step, 0.1F);
  EXPECT_EQ(model->weights().data(), weights);
  EXPECT_LT(loss_at(*model, examples), before / 4);
  // What a memcpy puts there is what runs: a fresh model with the same floats has the same loss.
  const auto copy = make({{"name", "lenet5"}}, kCifar, 2);
  std::copy(model->weights().begin(), model->weights().end(), copy->weights().begin());
  EXPECT_EQ(loss_at(*copy, examples), loss_at(*model, examples));
}

TEST(ArchitectureModel, OverwritesTheGradientOfTheStepBefore) {
  const auto model = make({{"name", "lenet5"}}, kCifar);
  const Examples examples(kCifar, 2, 6);
  loss_at(*model, examples);
  const std::vector<float> once(model->gradient().begin(), model->gradient().end());
  loss_at(*model, examples);
  EXPECT_EQ(std::vector<float>(model->gradient().begin(), model->gradient().end()), once);
}

const json kWithDropout = {{"name", "spec"}, {"stages", json::parse(R"([{"conv": {"out": 4, "kernel": 3}}, {"batch_norm": {}},
  {"relu": {}}, {"dropout": {"probability": 0.4}}, {"flatten": {}}, {"linear": {"out": 16}}, {"relu": {}},
  {"dropout": {"probability": 0.5}}, {"linear": {"out": "classes"}}])")}};

TEST(ArchitectureModel, RepeatsItsBitsForASeedAndOnlyForThat) {
  EXPECT_EQ(trained(kWithDropout, kMnist, 1, 5), trained(kWithDropout, kMnist, 1, 5));
  EXPECT_NE(trained(kWithDropout, kMnist, 1, 5), trained(kWithDropout, kMnist, 2, 5));
}

TEST(ArchitectureModel, GivesTheSameBitsWhenTwoThreadsTrainAtOnce) {
  const json lstm = {{"name", "spec"}, {"stages", json::parse(R"([{"embedding": {"dimension": 4}}, {"lstm": {"hidden": 8}},
    {"dropout": {"probability": 0.2}}, {"linear": {"out": "classes"}}])")}};
  const ExampleShape tokens{{6}, 9, 9};
  const std::vector<float> first = trained(kWithDropout, kMnist, 1, 20), second = trained(lstm, tokens, 2, 20);
  std::vector<float> first_again, second_again;
  std::thread one([&] { first_again = trained(kWithDropout, kMnist, 1, 20); });
  std::thread two([&] { second_again = trained(lstm, tokens, 2, 20); });
  one.join();
  two.join();
  EXPECT_EQ(first, first_again);
  EXPECT_EQ(second, second_again);
}

TEST(ArchitectureModel, DropsOutInTrainingByTheCallersGeneratorOnly) {
  const auto model = make(kWithDropout, kMnist);
  const Examples examples(kMnist, 4, 1);
  Rng a(1, Purpose::dropout), b(2, Purpose::dropout);
  EXPECT_NE(model->backward(examples.batch(), a), model->backward(examples.batch(), b));
  EXPECT_EQ(model->evaluate(examples.batch()).loss_units, model->evaluate(examples.batch()).loss_units);
}

TEST(ArchitectureModel, MovesBatchNormStatisticsInTheirSlots) {
  const ExampleShape shape{{2}, 2, 0};
  const auto model = make_stages(R"([{"batch_norm": {}}, {"linear": {"out": 2}}])", shape);
  ASSERT_EQ(model->layout()->slots()[4].name, "0.batch_norm.running_mean");
  Examples examples(shape, 2, 1);
  examples.inputs = {1, 10, 3, 30};
  const std::span<float> statistics = model->weights().subspan(model->layout()->weight_count());
  loss_at(*model, examples);
  // Means 2 and 20, unbiased variances 2 and 200; momentum 0.1 from mean 0 and variance 1.
  const std::array<float, 4> expected{0.2F, 2, 0.9F + 0.2F, 0.9F + 20};
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(statistics[i], expected[i], 1e-5) << i;
  const std::vector<float> kept(statistics.begin(), statistics.end());
  const std::int64_t loss = model->evaluate(examples.batch()).loss_units;
  EXPECT_EQ(std::vector<float>(statistics.begin(), statistics.end()), kept);
  // Evaluation reads the slots.
  statistics[0] += 5;
  EXPECT_NE(model->evaluate(examples.batch()).loss_units, loss);
}

TEST(ArchitectureModel, KeepsBatchNormStatisticsFiniteOnABatchOfOne) {
  const ExampleShape shape{{2}, 2, 0};
  const auto model = make_stages(R"([{"batch_norm": {}}, {"linear": {"out": 2}}])", shape);
  const std::vector<float> before(model->weights().begin(), model->weights().end());
  EXPECT_TRUE(std::isfinite(loss_at(*model, Examples(shape, 1, 1))));
  EXPECT_EQ(std::vector<float>(model->weights().begin(), model->weights().end()), before);
}

TEST(ArchitectureModel, EvaluatesToTheSumsOfADirectComputation) {
  const ExampleShape shape{{3}, 4, 0};
  const auto model = make_stages(R"([{"linear": {"out": "classes"}}])", shape);
  const Examples examples(shape, 50, 1);
  const Evaluation sums = model->evaluate(examples.batch());
  const std::span<const float> w = model->weights();  // weight [4, 3], then bias [4]
  double loss = 0;
  std::vector<std::int64_t> correct(4), count(4);
  for (std::size_t i = 0; i < 50; ++i) {
    std::array<double, 4> z{};
    double total = 0;
    for (std::size_t c = 0; c < 4; ++c) {
      z[c] = w[12 + c];
      for (std::size_t k = 0; k < 3; ++k) z[c] += static_cast<double>(w[3 * c + k]) * examples.inputs[3 * i + k];
      total += std::exp(z[c]);
    }
    const auto label = static_cast<std::size_t>(examples.labels[i]);
    loss += std::log(total) - z[label];
    ++count[label];
    if (std::max_element(z.begin(), z.end()) - z.begin() == examples.labels[i]) ++correct[label];
  }
  EXPECT_EQ(sums.correct, correct);
  EXPECT_EQ(sums.examples, count);
  EXPECT_TRUE(sums.finite);
  EXPECT_NEAR(static_cast<double>(sums.loss_units) * kLossUnit, loss, 50 * 5e-7);  // float rounding of losses near 2
}

TEST(ArchitectureModel, EvaluatesPartsThatMergeToTheWhole) {
  const auto model = make({{"name", "logistic"}}, kMnist);
  const Examples all(kMnist, 30, 1);
  Evaluation merged;
  for (std::size_t at = 0; at < 30; at += 10) {
    merged.merge(model->evaluate({std::span(all.inputs).subspan(at * 784, 7840), std::span(all.labels).subspan(at, 10)}));
  }
  const Evaluation whole = model->evaluate(all.batch());
  EXPECT_EQ(merged.correct, whole.correct);
  EXPECT_EQ(merged.total(), 30);
  EXPECT_NEAR(merged.loss(), whole.loss(), 1e-6);
  EXPECT_EQ(model->evaluate({}).total(), 0);
}

TEST(ArchitectureModel, ReportsNaNInsteadOfFailing) {
  const auto model = make({{"name", "lenet5"}}, kCifar);
  Examples examples(kCifar, 3, 1);
  examples.inputs[3] = std::nanf("");
  EXPECT_TRUE(std::isnan(loss_at(*model, examples)));
  const Evaluation sums = model->evaluate(examples.batch());
  EXPECT_FALSE(sums.finite);
  EXPECT_TRUE(std::isnan(sums.loss()));
  EXPECT_EQ(sums.total(), 3);
}

TEST(TorchRuntime, LimitsTheThreadThatAsks) {
  std::thread([] {
    limit_threads_of_this_worker();
    EXPECT_EQ(intra_op_threads(), 1);
  }).join();
}

#if defined(__x86_64__)
TEST(TorchRuntime, MultipliesWithWhatTheProcessorCanDo) {
  const auto core = reinterpret_cast<const char* (*)()>(::dlsym(RTLD_DEFAULT, "openblas_get_corename"));
  if (core == nullptr) return;  // another BLAS
  if (__builtin_cpu_supports("avx2")) {
    EXPECT_STRNE(core(), "Prescott") << "OpenBLAS does not know this processor, and took the kernels of one without AVX";
  }
}
#endif

TEST(TorchRuntime, NamesLibTorchAndItsBlas) {
  EXPECT_THAT(torch_version(), testing::MatchesRegex("[12]\\.[0-9]+\\..*"));
  const BlasSpeed speed = measure_blas();
  EXPECT_GT(speed.gflops, 0);
  EXPECT_FALSE(speed.library.empty());
}

}  // namespace
}  // namespace fl
