#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/ml/architecture_model.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using testing::HasSubstr;

/// Examples whose sizes differ, so that their gradients do too; they depend on `seed` only.
struct Examples {
  Examples(const ExampleShape& shape_, std::size_t count, std::uint64_t seed) : shape(shape_), inputs(count * shape_.input_size()), labels(count) {
    Rng rng(seed, Purpose::synthetic_data);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const double size = 0.3 + 0.4 * static_cast<double>(i / shape.input_size() % 5);
      inputs[i] = shape.vocabulary > 0 ? static_cast<float>(rng.below(static_cast<std::uint64_t>(shape.vocabulary)))
                                       : static_cast<float>(size * rng.normal());
    }
    for (std::int64_t& label : labels) label = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(shape.classes)));
  }
  Batch batch() const { return {inputs, labels}; }
  Batch one(std::size_t i) const { return {std::span(inputs).subspan(i * shape.input_size(), shape.input_size()), std::span(labels).subspan(i, 1)}; }
  Examples without(std::size_t i) const {
    Examples fewer = *this;
    const auto at = static_cast<std::ptrdiff_t>(i), width = static_cast<std::ptrdiff_t>(shape.input_size());
    fewer.inputs.erase(fewer.inputs.begin() + at * width, fewer.inputs.begin() + (at + 1) * width);
    fewer.labels.erase(fewer.labels.begin() + at);
    return fewer;
  }
  std::span<float> input(std::size_t i) { return std::span(inputs).subspan(i * shape.input_size(), shape.input_size()); }

  ExampleShape shape;
  std::vector<float> inputs;
  std::vector<std::int64_t> labels;
};

struct Network {
  json component;
  ExampleShape shape;
};

Network preset(const std::string& name, const ExampleShape& shape) { return {{{"name", name}}, shape}; }
Network stages(const std::string& list, const ExampleShape& shape) { return {{{"name", "spec"}, {"stages", json::parse(list)}}, shape}; }

std::unique_ptr<Model> make(const Network& network) {
  return models().create(network.component, "model", {network.shape, "model"})->make(1);
}

double norm(std::span<const double> values) {
  double squares = 0;
  for (const double value : values) squares += value * value;
  return std::sqrt(squares);
}

double distance(std::span<const double> a, std::span<const double> b) {
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(squares);
}

std::vector<double> gradient_of(const Model& model) { return {model.gradient().begin(), model.gradient().end()}; }

/// Gradients of the examples, each by a plain backward() of its own.
std::vector<std::vector<double>> plain_gradients(Model& model, const Examples& examples) {
  std::vector<std::vector<double>> gradients;
  for (std::size_t i = 0; i < examples.labels.size(); ++i) {
    Rng rng(3, Purpose::dropout);
    model.backward(examples.one(i), rng);
    gradients.push_back(gradient_of(model));
  }
  return gradients;
}

std::vector<double> clipped_sum(const std::vector<std::vector<double>>& gradients, double clip_norm) {
  std::vector<double> sum(gradients.front().size());
  for (const std::vector<double>& gradient : gradients) {
    const double length = norm(gradient), share = length > clip_norm ? clip_norm / length : 1;
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += share * gradient[i];
  }
  return sum;
}

std::vector<double> clipped(Model& model, const Batch& batch, double clip_norm, std::size_t* count = nullptr) {
  Rng rng(3, Purpose::dropout);
  const std::size_t found = model.clipped_backward(batch, clip_norm, rng);
  if (count != nullptr) *count = found;
  return gradient_of(model);
}

const ExampleShape kFlat{{5}, 3, 0};
const ExampleShape kImage{{4, 6, 7}, 3, 0};
const ExampleShape kDeep{{16, 4, 4}, 3, 0};
const ExampleShape kTokens{{9}, 4, 7};
const ExampleShape kSequence{{6, 5}, 3, 0};
const ExampleShape kMnist{{1, 28, 28}, 10, 0};
const ExampleShape kCifar{{3, 32, 32}, 10, 0};

/// Every kind of stage and every way in which its gradients are found, small enough for many plain backwards.
std::vector<Network> small_networks() {
  const std::string end = R"({"flatten": {}}, {"linear": {"out": "classes"}}])";
  return {
      stages(R"([{"linear": {"out": 4, "bias": false}}, {"tanh": {}}, {"linear": {"out": 4}}, {"gelu": {}}, {"linear": {"out": 3}}])", kFlat),
      stages(R"([{"linear": {"out": 6}}, {"relu": {}}, {"linear": {"out": 3}}, {"relu6": {}}, {"linear": {"out": 3}}])", kFlat),
      stages(R"([{"relu": {}}, {"residual": {"body": [{"relu": {}}, {"linear": {"out": 5}}, {"relu": {}}]}}, {"relu": {}}, {"linear": {"out": 3}}])", kFlat),
      stages(R"([{"group_norm": {"groups": 1}}, {"linear": {"out": 6}}, {"group_norm": {"groups": 2}}, {"linear": {"out": 3}}])", kFlat),
      stages(R"([{"conv": {"out": 6, "kernel": 3, "padding": 1, "groups": 2}}, {"relu": {}}, {"max_pool": {"kernel": 2}}, )" + end, kImage),
      stages(R"([{"conv": {"out": 5, "kernel": 3, "stride": 2, "padding": 2, "bias": false}}, {"tanh": {}}, {"avg_pool": {"kernel": 3, "stride": 1, "padding": 1}}, )" + end, kImage),
      stages(R"([{"conv": {"out": 3, "kernel": 2, "stride": 3}}, {"conv": {"out": 3, "kernel": 1}}, )" + end, kImage),
      stages(R"([{"conv": {"out": 3, "kernel": 4, "stride": 3, "padding": 6}}, {"conv": {"out": 4, "kernel": 1, "stride": 2, "bias": false}}, )" + end, kImage),
      stages(R"([{"depthwise_conv": {"kernel": 3, "stride": 2, "padding": 1}}, {"depthwise_conv": {"kernel": 2, "bias": false}}, )" + end, kImage),
      stages(R"([{"conv": {"out": 4, "kernel": 3, "bias": false}}, {"group_norm": {"groups": 2}}, {"relu": {}}, {"global_avg_pool": {}}, {"linear": {"out": 3}}])", kImage),
      // 2 x 2 outputs of 16 channels that see 144 numbers each: products of columns.
      stages(R"([{"tanh": {}}, {"conv": {"out": 16, "kernel": 3}}, {"relu": {}}, )" + end, kDeep),
      stages(R"([{"conv": {"out": 32, "kernel": 4, "stride": 4, "groups": 2}}, {"conv": {"out": 32, "kernel": 1, "bias": false}}, )" + end, kDeep),
      stages(R"([{"residual": {"body": [{"conv": {"out": 6, "kernel": 3, "padding": 1, "stride": 2}}, {"group_norm": {"groups": 3}}, {"relu": {}}],
        "shortcut": [{"conv": {"out": 6, "kernel": 1, "stride": 2}}]}}, {"relu": {}}, )" + end, kImage),
      stages(R"([{"residual": {"body": [{"relu": {}}], "shortcut": [{"tanh": {}}]}}, {"residual": {"body": [{"tanh": {}}], "shortcut": [{"conv": {"out": 4, "kernel": 1}}]}}, )" + end, kImage),
      stages(R"([{"embedding": {"dimension": 3}}, {"flatten": {}}, {"linear": {"out": "classes"}}])", kTokens),
      stages(R"([{"embedding": {"dimension": 3}}, {"lstm": {"hidden": 4, "whole_sequence": true}}, {"lstm": {"hidden": 24}}, {"linear": {"out": "classes"}}])", kTokens),
      stages(R"([{"embedding": {"dimension": 3}}, {"lstm": {"hidden": 4, "layers": 2, "whole_sequence": true}}, )" + end, kTokens),
      stages(R"([{"lstm": {"hidden": 3, "layers": 2}}, {"linear": {"out": 3}}])", kSequence),
  };
}

/// The sum of the clipped gradients' lengths: what errors are measured by, since the gradients themselves may cancel.
double total_length(const std::vector<std::vector<double>>& gradients, double clip_norm) {
  double total = 0;
  for (const std::vector<double>& gradient : gradients) total += std::min(norm(gradient), clip_norm);
  return total;
}

/// Half of the examples beyond the bound, all, and none. A bound is kept from below by 4e-6, and floats agree to about as much.
void expect_reference(const Network& network, std::size_t count) {
  SCOPED_TRACE(network.component.dump() + " of " + std::to_string(count));
  const auto model = make(network);
  const Examples examples(network.shape, count, 11);
  const auto gradients = plain_gradients(*model, examples);
  std::vector<double> norms;
  for (const auto& gradient : gradients) norms.push_back(norm(gradient));
  std::sort(norms.begin(), norms.end());
  const double middle = norms[count / 2] * 0.999;
  for (const double clip_norm : {middle, norms.front() * 1e-3, norms.back() * 1.01}) {
    std::size_t found = 0;
    const std::vector<double> sum = clipped(*model, examples.batch(), clip_norm, &found);
    const std::vector<double> expected = clipped_sum(gradients, clip_norm);
    EXPECT_LT(distance(sum, expected), 8e-6 * total_length(gradients, clip_norm)) << "clip norm " << clip_norm;
    EXPECT_EQ(found, static_cast<std::size_t>(std::count_if(norms.begin(), norms.end(), [&](double one) { return one > clip_norm; })));
  }
}

TEST(ClippedGradient, IsTheSumOfClippedPlainGradientsForEveryStage) {
  for (const Network& network : small_networks()) {
    for (const std::size_t count : {1, 7, 64}) expect_reference(network, count);
  }
}

TEST(ClippedGradient, IsTheSumOfClippedPlainGradientsForPresets) {
  for (const std::size_t count : {1, 7, 64}) {
    expect_reference(preset("logistic", kMnist), count);
    expect_reference(preset("mlp_2nn", kMnist), count);
    expect_reference(preset("lenet5", kCifar), count);
  }
  expect_reference(preset("cnn_mcmahan", kMnist), 7);
  expect_reference(preset("resnet18_gn", kCifar), 3);
  expect_reference(preset("char_lstm", {{20}, 30, 30}), 3);
  // Its dropout draws the same for a batch of one.
  expect_reference(preset("simple_cnn", kCifar), 1);
}

TEST(ClippedGradient, IsTheBatchsOwnGradientTimesItsSizeWithinTheBound) {
  for (const Network& network : small_networks()) {
    const auto model = make(network);
    const Examples examples(network.shape, 16, 2);
    std::size_t found = 1;
    const std::vector<double> sum = clipped(*model, examples.batch(), 1e6, &found);
    EXPECT_EQ(found, 0U);
    Rng rng(3, Purpose::dropout);
    model->backward(examples.batch(), rng);
    std::vector<double> mean = gradient_of(*model);
    for (double& value : mean) value *= 16;
    EXPECT_LT(distance(sum, mean), 1e-5 * norm(mean)) << network.component;
  }
}

TEST(ClippedGradient, DropsOutAndDerivesByTheCallersGenerator) {
  const Network network = stages(R"([{"dropout": {"probability": 0.3}}, {"linear": {"out": 12}}, {"relu": {}}, {"dropout": {"probability": 0.5}}, {"linear": {"out": 3}}])", kFlat);
  for (const std::uint64_t seed : {1, 2, 3}) {
    const auto model = make(network);
    const Examples one(kFlat, 1, seed);
    EXPECT_LT(distance(clipped(*model, one.batch(), 1e6), plain_gradients(*model, one)[0]), 1e-5);
    Rng first(1, Purpose::dropout), second(2, Purpose::dropout);
    const Examples many(kFlat, 20, seed);
    model->clipped_backward(many.batch(), 1.0, first);
    const std::vector<double> sum = gradient_of(*model);
    model->clipped_backward(many.batch(), 1.0, second);
    EXPECT_GT(distance(sum, gradient_of(*model)), 0.01);
  }
}

TEST(ClippedGradient, ChangesByAtMostTheBoundWithOneExample) {
  // Beside the one example everything is the same, so the sums differ by its clipped gradient and by float rounding of sums
  // that are a few bounds long.
  for (const Network& network : small_networks()) {
    const auto model = make(network);
    for (const double clip_norm : {1e-4, 0.1}) {
      Examples examples(network.shape, 7, 5);
      if (network.shape.vocabulary == 0) {
        for (float& value : examples.input(3)) value *= 300;
      }
      const std::vector<double> with = clipped(*model, examples.batch(), clip_norm);
      const std::vector<double> without = clipped(*model, examples.without(3).batch(), clip_norm);
      EXPECT_LE(distance(with, without), clip_norm * (1 + 1e-6)) << network.component;
    }
  }
}

TEST(ClippedGradient, LeavesOutExamplesWhoseGradientIsNotFinite) {
  for (const Network& network : small_networks()) {
    if (network.shape.vocabulary > 0) continue;
    const auto model = make(network);
    Examples examples(network.shape, 7, 5);
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (float& value : examples.input(2)) value = bad;
      auto gradients = plain_gradients(*model, examples);
      // tanh makes numbers of infinities; a NaN stays one.
      if (!std::isfinite(norm(gradients[2]))) gradients.erase(gradients.begin() + 2);
      EXPECT_TRUE(gradients.size() == 6 || std::isinf(bad));
      const std::vector<double> sum = clipped(*model, examples.batch(), 0.2);
      EXPECT_LT(distance(sum, clipped_sum(gradients, 0.2)), 8e-6 * total_length(gradients, 0.2)) << network.component;
    }
    // Nobody is left.
    std::fill(examples.inputs.begin(), examples.inputs.end(), std::numeric_limits<float>::quiet_NaN());
    std::size_t found = 1;
    EXPECT_EQ(norm(clipped(*model, examples.batch(), 0.2, &found)), 0) << network.component;
    EXPECT_EQ(found, 0U);
  }
}

TEST(ClippedGradient, LeavesOutExamplesThatMeetAWeightThatIsNotFinite) {
  const auto model = make(stages(R"([{"embedding": {"dimension": 3}}, {"lstm": {"hidden": 4}}, {"linear": {"out": "classes"}}])", kTokens));
  model->weights()[0] = std::numeric_limits<float>::quiet_NaN();
  Examples examples(kTokens, 2, 5);
  for (float& token : examples.input(0)) token = 0;  // the embedding of token 0 is not finite
  for (float& token : examples.input(1)) token = 1;
  const std::vector<double> expected = clipped(*model, examples.one(1), 0.2);
  EXPECT_GT(norm(expected), 0.01);
  EXPECT_LT(distance(clipped(*model, examples.batch(), 0.2), expected), 1e-6);
}

TEST(ClippedGradient, RepeatsItsBitsAndLeavesWeightsAndPlainGradientAlone) {
  for (const Network& network : small_networks()) {
    const auto model = make(network);
    const Examples examples(network.shape, 7, 5), others(network.shape, 9, 6);
    const std::vector<float> weights(model->weights().begin(), model->weights().end());
    const auto plain = plain_gradients(*model, examples);
    const std::vector<double> first = clipped(*model, examples.batch(), 0.2);
    clipped(*model, others.batch(), 0.3);
    EXPECT_EQ(clipped(*model, examples.batch(), 0.2), first);
    EXPECT_EQ(plain_gradients(*model, examples), plain);
    EXPECT_EQ(std::vector<float>(model->weights().begin(), model->weights().end()), weights);
  }
}

TEST(ClippedGradient, IsRefusedWhereExamplesDependOnEachOther) {
  const auto refusal = [](const Network& network) {
    return test::error_of([&] { clipped(*make(network), Examples(network.shape, 2, 1).batch(), 1); });
  };
  EXPECT_THAT(refusal(preset("mobilenet_v1", kCifar)), HasSubstr("stage 1.batch_norm normalises over the batch"));
  EXPECT_THAT(refusal(stages(R"([{"residual": {"body": [{"linear": {"out": 5}}, {"batch_norm": {}}]}}, {"linear": {"out": 3}}])", kFlat)),
              HasSubstr("stage 0.residual.body.1.batch_norm normalises"));
  EXPECT_THAT(refusal(preset("two_branch", {{2, 16, 16}, 3, 0})), HasSubstr("no gradients of single examples"));
}

}  // namespace
}  // namespace fl
