#include "fl_core/ml/architecture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

const ExampleShape kMnist{{1, 28, 28}, 10, 0};
const ExampleShape kCifar{{3, 32, 32}, 10, 0};
const ExampleShape kShakespeare{{80}, 80, 80};

Architecture parse(const std::string& stages, const ExampleShape& shape) {
  return parse_architecture({{"stages", json::parse(stages)}}, shape, "model");
}

std::string parse_error(const std::string& stages, const ExampleShape& shape) {
  return error_of([&] { parse(stages, shape); });
}

Architecture preset(const std::string& name, const ExampleShape& shape) {
  return parse_architecture(read_json_file(FL_SOURCE_DIR "/fl_core/ml/presets/" + name + ".json"), shape, name);
}

std::vector<std::string> slot_names(const Architecture& architecture) {
  std::vector<std::string> names;
  for (const Slot& slot : architecture.layout->slots()) names.push_back(slot.name);
  return names;
}

TEST(Preset, HasThePublishedNumberOfParameters) {
  EXPECT_EQ(preset("logistic", kMnist).cost.parameters, 784 * 10 + 10);
  EXPECT_EQ(preset("mlp_2nn", kMnist).cost.parameters, 199210);         // McMahan et al. 2017, §3
  EXPECT_EQ(preset("cnn_mcmahan", kMnist).cost.parameters, 1663370);    // McMahan et al. 2017, §3
  EXPECT_EQ(preset("lenet5", kCifar).cost.parameters, 62006);           // Flower's and BlazeFL's benchmark
  EXPECT_EQ(preset("simple_cnn", kCifar).cost.parameters, 1626442);     // pfl-research's benchmark
  EXPECT_EQ(preset("resnet18_gn", kCifar).cost.parameters, 11173962);   // as with BatchNorm: one weight and bias a channel
  // The networks for 1000 classes have 4 231 976 and 3 504 872; their last layers 1024 · 1000 + 1000 and 1280 · 1000 + 1000.
  EXPECT_EQ(preset("mobilenet_v1", kCifar).cost.parameters, 4231976 - 1025000 + 1024 * 10 + 10);
  EXPECT_EQ(preset("mobilenet_v2", kCifar).cost.parameters, 3504872 - 1281000 + 1280 * 10 + 10);
  // Embedding 80 · 8; layers 1024 · (8 + 256) and 1024 · (256 + 256), two biases of 1024 each; linear 256 · 80 + 80.
  EXPECT_EQ(preset("char_lstm", kShakespeare).cost.parameters, 640 + 272384 + 526336 + 20560);
}

TEST(Preset, FollowsTheClassesOfTheData) {
  EXPECT_EQ(preset("logistic", {{1, 28, 28}, 62, 0}).cost.parameters, 784 * 62 + 62);
}

TEST(ParseArchitecture, PassesShapesFromStageToStage) {
  const Architecture net = parse(R"([{"conv": {"out": 6, "kernel": 5, "padding": 1, "stride": 2}}, {"max_pool": {"kernel": 3}},
    {"avg_pool": {"kernel": 2, "stride": 1}}, {"flatten": {}}, {"linear": {"out": "classes"}}])", kCifar);
  EXPECT_THAT(net.stages[0].output, ElementsAre(6, 15, 15));  // (32 + 2 - 5) / 2 + 1
  EXPECT_THAT(net.stages[1].output, ElementsAre(6, 5, 5));    // (15 - 3) / 3 + 1
  EXPECT_THAT(net.stages[2].output, ElementsAre(6, 4, 4));    // (5 - 2) / 1 + 1
  EXPECT_THAT(net.stages[3].output, ElementsAre(96));
  EXPECT_THAT(net.stages[4].output, ElementsAre(10));
}

TEST(ParseArchitecture, GivesSequencesToLstmAndTakesTheLastStep) {
  const Architecture net = parse(R"([{"embedding": {"dimension": 4}}, {"lstm": {"hidden": 6, "whole_sequence": true}},
    {"lstm": {"hidden": 5}}, {"linear": {"out": "classes"}}])", kShakespeare);
  EXPECT_THAT(net.stages[0].output, ElementsAre(80, 4));
  EXPECT_THAT(net.stages[1].output, ElementsAre(80, 6));
  EXPECT_THAT(net.stages[2].output, ElementsAre(5));
}

TEST(ParseArchitecture, NamesSlotsByPlaceAndPutsStatisticsLast) {
  const Architecture net = parse(R"([{"residual": {"body": [{"conv": {"out": 3, "kernel": 1, "bias": false}}, {"batch_norm": {}}],
    "shortcut": [{"depthwise_conv": {"kernel": 1}}]}}, {"global_avg_pool": {}}, {"linear": {"out": 10}}])", kCifar);
  EXPECT_THAT(slot_names(net),
              ElementsAre("0.residual.body.0.conv.weight", "0.residual.body.1.batch_norm.weight",
                          "0.residual.body.1.batch_norm.bias", "0.residual.shortcut.0.depthwise_conv.weight",
                          "0.residual.shortcut.0.depthwise_conv.bias", "2.linear.weight", "2.linear.bias",
                          "0.residual.body.1.batch_norm.running_mean", "0.residual.body.1.batch_norm.running_var"));
  EXPECT_EQ(net.layout->weight_count(), 9U + 3 + 3 + 3 + 3 + 30 + 10);
  EXPECT_EQ(net.layout->size(), net.layout->weight_count() + 6);
  const auto& body = std::get<StageSpec::Residual>(net.stages[0].kind).body;
  EXPECT_THAT(body[1].slots, ElementsAre(1, 2, 7, 8));
  EXPECT_THAT(net.layout->slots()[3].shape, ElementsAre(3, 1, 1, 1));
}

TEST(ParseArchitecture, CountsFlopsAndActivationBytes) {
  const Architecture net = parse(R"([{"conv": {"out": 2, "kernel": 3}}, {"relu": {}}, {"max_pool": {"kernel": 2}},
    {"flatten": {}}, {"linear": {"out": 10}}])", kMnist);
  // conv 2 · (2·26·26) · 9, relu 2·26·26, pool (2·13·13) · 4, linear 2 · 338 · 10
  EXPECT_EQ(net.stages[0].flops, 24336);
  EXPECT_EQ(net.cost.forward_flops, 24336 + 1352 + 1352 + 6760);
  EXPECT_EQ(net.cost.training_flops, 3 * net.cost.forward_flops);
  // floats: input 784, conv and relu 1352 each, pool 338, linear 10; indices of the pool 338 · 8 bytes
  EXPECT_EQ(net.cost.activation_bytes, 4 * (784 + 1352 + 1352 + 338 + 10) + 8 * 338);
}

TEST(ParseArchitecture, SaysWhatReachedAStageAndWhatItNeeds) {
  EXPECT_EQ(parse_error(R"([{"conv": {"out": 64, "kernel": 22}}, {"relu": {}}, {"linear": {"out": 5}}])", kMnist),
            "model.stages.2.linear: linear needs a flat input [n], got [64, 7, 7]; put {\"flatten\": {}} before it");
  EXPECT_THAT(parse_error(R"([{"flatten": {}}, {"conv": {"out": 4, "kernel": 3}}])", kMnist),
              StartsWith("model.stages.1.conv: conv needs an image [channels, height, width], got [784]"));
  EXPECT_THAT(parse_error(R"([{"conv": {"out": 4, "kernel": 29}}])", kMnist),
              StartsWith("model.stages.0.conv: conv needs height and width of at least kernel - 2 padding = 29, got [1, 28, 28]"));
  EXPECT_THAT(parse_error(R"([{"flatten": {}}, {"lstm": {"hidden": 4}}])", kMnist), HasSubstr("lstm needs a sequence [time, features], got [784]"));
  EXPECT_THAT(parse_error(R"([{"flatten": {}}])", kShakespeare), HasSubstr("token ids, got [80]; put {\"embedding\""));
  EXPECT_THAT(parse_error(R"([{"embedding": {"dimension": 4}}])", kMnist), HasSubstr("embedding needs token ids, got [1, 28, 28]"));
  EXPECT_THAT(parse_error(R"([{"conv": {"out": 4, "kernel": 1}}, {"group_norm": {"groups": 3}}])", kMnist),
              StartsWith("model.stages.1.group_norm.groups: got 3, expected a divisor of the 4 channels of [4, 28, 28]"));
  EXPECT_THAT(parse_error(R"([{"conv": {"out": 4, "kernel": 1, "groups": 3}}])", kCifar), StartsWith("model.stages.0.conv.groups: got 3"));
}

TEST(ParseArchitecture, RefusesResidualsWhoseWaysDiffer) {
  EXPECT_THAT(parse_error(R"([{"residual": {"body": [{"conv": {"out": 4, "kernel": 1}}]}}])", kCifar),
              StartsWith("model.stages.0.residual: the body gives [4, 32, 32] but the shortcut gives [3, 32, 32]"));
}

TEST(ParseArchitecture, RefusesALastStageThatGivesNoClasses) {
  EXPECT_EQ(parse_error(R"([{"flatten": {}}, {"linear": {"out": 12}}])", kMnist),
            "model.stages.1: the last stage gives [12], expected [10], one number a class; end with {\"linear\": {\"out\": \"classes\"}}");
}

TEST(ParseArchitecture, IsStrictAboutKeysAndKinds) {
  EXPECT_THAT(parse_error(R"([{"conv": {"out": 4, "kernal": 3}}])", kMnist),
              StartsWith("model.stages.0.conv.kernal: unknown key (value 3); did you mean 'kernel'?"));
  EXPECT_THAT(parse_error(R"([{"conw": {}}])", kMnist), HasSubstr("there is no stage 'conw'; did you mean 'conv'?"));
  EXPECT_THAT(parse_error(R"([{"conv": {"kernel": 3}}])", kMnist), StartsWith("model.stages.0.conv.out: missing"));
  EXPECT_THAT(parse_error(R"([{"flatten": {}}, {"linear": {"out": "class"}}])", kMnist),
              StartsWith("model.stages.1.linear.out: got \"class\", expected an integer from 1"));
  EXPECT_THAT(parse_error(R"([{"relu": {}, "tanh": {}}])", kMnist), StartsWith("model.stages.0: got"));
  EXPECT_THAT(parse_error(R"([])", kMnist), StartsWith("model.stages: got []"));
  EXPECT_THAT(parse_error(R"([{"dropout": {"probability": 1}}])", kMnist), StartsWith("model.stages.0.dropout.probability: got 1"));
}

TEST(ParseArchitecture, ComparesInputAndClassesWithTheData) {
  const json stages = json::parse(R"([{"flatten": {}}, {"linear": {"out": "classes"}}])");
  EXPECT_THAT(error_of([&] { parse_architecture({{"input", {3, 32, 32}}, {"stages", stages}}, kMnist, "model"); }),
              StartsWith("model.input: got [3,32,32], expected [1, 28, 28], the shape of the data's examples"));
  EXPECT_THAT(error_of([&] { parse_architecture({{"classes", 100}, {"stages", stages}}, kMnist, "model"); }),
              StartsWith("model.classes: got 100, expected 10"));
  EXPECT_NO_THROW(parse_architecture({{"input", {1, 28, 28}}, {"classes", 10}, {"stages", stages}}, kMnist, "model"));
}

TEST(ParseArchitecture, RefusesTensorsThatNoMachineHolds) {
  EXPECT_THAT(parse_error(R"([{"flatten": {}}, {"linear": {"out": 16777216}}])", kMnist),
              StartsWith("model.stages.1.linear: weight of shape [16777216, 784] has more than 2^31 floats"));
}

TEST(Initialise, DrawsPyTorchsDefaults) {
  const Architecture net = parse(R"([{"conv": {"out": 8, "kernel": 3}}, {"batch_norm": {}}, {"flatten": {}},
    {"linear": {"out": "classes"}}])", kMnist);
  std::vector<float> weights(net.layout->size());
  initialise(net, 7, weights);
  for (const Slot& slot : net.layout->slots()) {
    double largest = 0, mean = 0;
    for (std::size_t i = 0; i < slot.size; ++i) {
      const double value = weights[slot.offset + i];
      largest = std::max(largest, std::abs(value));
      mean += value / static_cast<double>(slot.size);
    }
    if (slot.name == "0.conv.weight") {
      EXPECT_LE(largest, 1.0 / 3);  // fan-in 1 · 3 · 3
      EXPECT_GT(largest, 0.9 / 3);  // 72 draws: all below 0.9 of the bound with probability 0.9^72 = 5e-4; the seed is fixed
    } else if (slot.name == "3.linear.weight") {
      const double bound = 1 / std::sqrt(8 * 26 * 26.0);
      EXPECT_LE(largest, bound);
      EXPECT_NEAR(mean, 0, 5 * bound / std::sqrt(3 * 54080.0));  // five standard deviations of the mean of 54080 draws
    } else if (slot.name == "1.batch_norm.weight" || slot.name == "1.batch_norm.running_var") {
      EXPECT_EQ(mean, 1) << slot.name;
    } else if (slot.name == "1.batch_norm.bias" || slot.name == "1.batch_norm.running_mean") {
      EXPECT_EQ(largest, 0) << slot.name;
    }
  }
}

TEST(Initialise, DependsOnTheSeedOnly) {
  const Architecture net = preset("lenet5", kCifar);
  std::vector<float> once(net.layout->size()), again(once), other(once);
  initialise(net, 1, once);
  initialise(net, 1, again);
  initialise(net, 2, other);
  EXPECT_EQ(once, again);
  EXPECT_NE(once, other);
}

}  // namespace
}  // namespace fl
