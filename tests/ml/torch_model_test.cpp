#include "fl_core/ml/torch_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "fl_core/ml/torch_runtime.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

const ExampleShape kFlat{{4}, 3, 0};
const ExampleShape kImage{{2, 8, 8}, 3, 0};

/// Parameters, a BatchNorm (float buffers and an integer one), dropout, and a layer that nothing uses.
struct Everything : TorchModule {
  explicit Everything(const ExampleShape& shape) {
    first = register_module("first", torch::nn::Linear(shape.input[0], 5));
    norm = register_module("norm", torch::nn::BatchNorm1d(5));
    idle = register_module("idle", torch::nn::Linear(2, 2));
    last = register_module("last", torch::nn::Linear(5, shape.classes));
    frozen = register_parameter("frozen", torch::ones({5}), false);
  }
  torch::Tensor forward(torch::Tensor x, ForwardContext& context) override {
    return last(dropout(torch::relu(norm(first(x))) * frozen, 0.25, context));
  }
  torch::nn::Linear first{nullptr}, idle{nullptr}, last{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  torch::Tensor frozen;
};

template <class Module>
std::unique_ptr<ModelFactory> factory(const ExampleShape& shape) {
  return make_module_factory("mine", [](const ExampleShape& s) { return std::make_shared<Module>(s); }, {shape, "model"});
}

template <class Module>
std::string factory_error(const ExampleShape& shape) {
  return test::error_of([&] { factory<Module>(shape); });
}

std::vector<float> inputs_of(const ExampleShape& shape, std::size_t count) {
  std::vector<float> inputs(count * shape.input_size());
  Rng rng(1, Purpose::synthetic_data);
  for (float& value : inputs) value = static_cast<float>(rng.normal());
  return inputs;
}

std::vector<float> copy_of(std::span<const float> values) { return {values.begin(), values.end()}; }

/// The weights after a few steps of gradient descent on six examples.
std::vector<float> trained(const ModelFactory& models, const ExampleShape& shape, std::uint64_t seed, std::uint64_t steps) {
  limit_threads_of_this_worker();
  const auto model = models.make(seed);
  const std::vector<float> inputs = inputs_of(shape, 6);
  const std::vector<std::int64_t> labels{0, 1, 2, 0, 1, 2};
  for (std::uint64_t step = 0; step < steps; ++step) {
    Rng rng(seed, Purpose::dropout, step);
    model->backward({inputs, labels}, rng);
    for (std::size_t i = 0; i < model->gradient().size(); ++i) model->weights()[i] -= 0.1F * model->gradient()[i];
  }
  return copy_of(model->weights());
}

TEST(TorchModule, PutsParametersFirstAndFloatBuffersLast) {
  const auto model = factory<Everything>(kFlat)->make(1);
  std::vector<std::string> names;
  for (const Slot& slot : model->layout()->slots()) names.push_back(slot.name);
  EXPECT_THAT(names, ElementsAre("frozen", "first.weight", "first.bias", "norm.weight", "norm.bias", "idle.weight", "idle.bias",
                                 "last.weight", "last.bias", "norm.running_mean", "norm.running_var"));
  EXPECT_EQ(model->layout()->weight_count(), 5U + 20 + 5 + 5 + 5 + 4 + 2 + 15 + 3);
  EXPECT_EQ(model->layout()->size(), model->layout()->weight_count() + 10);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(model->weights().data()) % kAlignment, 0U);
}

TEST(TorchModule, RunsOnTheFlatArrayAndMovesItsStatistics) {
  const auto model = factory<Everything>(kFlat)->make(1);
  const std::vector<float> inputs = inputs_of(kFlat, 3);
  const std::vector<std::int64_t> labels{0, 1, 2};
  const std::vector<float> before = copy_of(model->weights());
  Rng rng(1, Purpose::dropout);
  model->backward({inputs, labels}, rng);
  const std::size_t weights = model->layout()->weight_count();
  const std::vector<float> after = copy_of(model->weights());
  EXPECT_TRUE(std::equal(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(weights), after.begin()));
  for (std::size_t i = weights; i < after.size(); ++i) EXPECT_NE(after[i], before[i]) << i;
  for (const Slot& slot : model->layout()->slots()) {
    if (slot.kind == SlotKind::statistic) continue;
    const bool still = slot.name == "frozen" || slot.name.starts_with("idle");
    const auto gradient = model->gradient().subspan(slot.offset, slot.size);
    // A bias before BatchNorm has no effect: its gradient is rounding only.
    const bool zero = std::all_of(gradient.begin(), gradient.end(), [](float value) { return value == 0; });
    if (slot.name == "first.bias") continue;
    EXPECT_EQ(zero, still) << slot.name;
  }
  // All weights zero: every class is as likely, whatever the input.
  std::fill(model->weights().begin(), model->weights().end(), 0.0F);
  EXPECT_NEAR(model->evaluate({inputs, labels}).loss(), std::log(3.0), 1e-6);
}

TEST(TorchModule, ClearsTheGradientOfAParameterThatAStepDidNotUse) {
  struct Switching : TorchModule {
    explicit Switching(const ExampleShape&) {
      one = register_module("one", torch::nn::Linear(4, 3));
      two = register_module("two", torch::nn::Linear(4, 3));
    }
    torch::Tensor forward(torch::Tensor x, ForwardContext& context) override { return context.training && ++calls > 1 ? two(x) : one(x); }
    torch::nn::Linear one{nullptr}, two{nullptr};
    int calls = 0;
  };
  const auto model = factory<Switching>(kFlat)->make(1);
  const std::vector<float> inputs = inputs_of(kFlat, 1);
  const std::vector<std::int64_t> labels{0};
  Rng rng(1, Purpose::dropout);
  model->backward({inputs, labels}, rng);
  EXPECT_NE(model->gradient()[0], 0);
  EXPECT_EQ(model->gradient()[15], 0);
  model->backward({inputs, labels}, rng);
  EXPECT_EQ(model->gradient()[0], 0);
  EXPECT_NE(model->gradient()[15], 0);
}

TEST(TorchModule, RepeatsItsBitsForASeedAndOnlyForThat) {
  const auto everything = factory<Everything>(kFlat);
  EXPECT_EQ(trained(*everything, kFlat, 1, 10), trained(*everything, kFlat, 1, 10));
  EXPECT_NE(trained(*everything, kFlat, 1, 0), trained(*everything, kFlat, 2, 0));
}

TEST(TorchModule, GivesTheSameBitsWhenTwoThreadsBuildAndTrainAtOnce) {
  const auto everything = factory<Everything>(kFlat);
  const std::vector<float> first = trained(*everything, kFlat, 1, 30), second = trained(*everything, kFlat, 2, 30);
  std::vector<float> first_again, second_again;
  std::thread one([&] { first_again = trained(*everything, kFlat, 1, 30); });
  std::thread two([&] { second_again = trained(*everything, kFlat, 2, 30); });
  one.join();
  two.join();
  EXPECT_EQ(first, first_again);
  EXPECT_EQ(second, second_again);
}

TEST(TorchModule, LeavesLibTorchsGlobalGeneratorAsItWas) {
  torch::manual_seed(5);
  const float expected = torch::rand({1}).item<float>();
  torch::manual_seed(5);
  factory<Everything>(kFlat)->make(1);
  EXPECT_EQ(torch::rand({1}).item<float>(), expected);
}

TEST(TorchModule, IsRefusedWithAReasonWhenItCannotBeAModel) {
  struct WrongOutput : TorchModule {
    explicit WrongOutput(const ExampleShape&) { layer = register_module("layer", torch::nn::Linear(4, 7)); }
    torch::Tensor forward(torch::Tensor x, ForwardContext&) override { return layer(x); }
    torch::nn::Linear layer{nullptr};
  };
  struct WrongInput : TorchModule {
    explicit WrongInput(const ExampleShape&) { layer = register_module("layer", torch::nn::Linear(9, 3)); }
    torch::Tensor forward(torch::Tensor x, ForwardContext&) override { return layer(x); }
    torch::nn::Linear layer{nullptr};
  };
  struct Empty : TorchModule {
    explicit Empty(const ExampleShape&) {}
    torch::Tensor forward(torch::Tensor x, ForwardContext&) override { return x; }
  };
  struct Double : TorchModule {
    explicit Double(const ExampleShape&) { register_parameter("p", torch::ones({4}, torch::kDouble)); }
    torch::Tensor forward(torch::Tensor x, ForwardContext&) override { return x; }
  };
  struct GlobalDropout : TorchModule {
    explicit GlobalDropout(const ExampleShape&) {
      layer = register_module("layer", torch::nn::Linear(4, 3));
      drop = register_module("drop", torch::nn::Dropout(0.5));
    }
    torch::Tensor forward(torch::Tensor x, ForwardContext&) override { return drop(layer(x)); }
    torch::nn::Linear layer{nullptr};
    torch::nn::Dropout drop{nullptr};
  };
  EXPECT_THAT(factory_error<WrongOutput>(kFlat), StartsWith("model: model 'mine': its forward pass gives [1, 7], expected [rows, classes] = [1, 3]"));
  EXPECT_THAT(factory_error<WrongInput>(kFlat), StartsWith("model: the module 'mine' does not work on examples of shape [4]: "));
  EXPECT_THAT(factory_error<Empty>(kFlat), HasSubstr("has no parameters"));
  EXPECT_THAT(factory_error<Double>(kFlat), HasSubstr("parameter 'p' holds double, expected float"));
  EXPECT_THAT(factory_error<GlobalDropout>(kFlat), HasSubstr("use fl::dropout"));
}

TEST(Dropout, ZeroesTheGivenShareAndKeepsTheMean) {
  Rng rng(1, Purpose::dropout);
  ForwardContext training{true, rng};
  const torch::Tensor ones = torch::ones({40000});
  const torch::Tensor dropped = dropout(ones, 0.25, training);
  // Binomial(40000, 0.25): mean 10000, standard deviation 86.6; five of them.
  EXPECT_NEAR((dropped == 0).sum().item<double>(), 10000, 433);
  EXPECT_EQ(dropped.max().item<float>(), static_cast<float>(1 / 0.75));
  ForwardContext evaluation{false, rng};
  EXPECT_TRUE(dropout(ones, 0.25, evaluation).equal(ones));
}

TEST(TwoBranch, IsAModelOfEveryExperimentOnImages) {
  const auto factory = models().create({{"name", "two_branch"}}, "model", {kImage, "model"});
  // near 2·16·9 + 16, far 2·16·49 + 16, norm 2·32, out 32·16·3 + 3
  EXPECT_EQ(factory->cost().parameters, 304 + 1584 + 64 + 1539);
  EXPECT_EQ(trained(*factory, kImage, 1, 3), trained(*factory, kImage, 1, 3));
  EXPECT_THAT(test::error_of([] { models().create({{"name", "two_branch"}}, "model", {kFlat, "model"}); }),
              HasSubstr("two_branch needs images"));
}

TEST(TwoBranch, LearnsItsExamples) {
  const auto factory = models().create({{"name", "two_branch"}}, "model", {kImage, "model"});
  const std::vector<float> inputs = inputs_of(kImage, 6);
  const std::vector<std::int64_t> labels{0, 1, 2, 0, 1, 2};
  const auto model = factory->make(1);
  const double before = model->evaluate({inputs, labels}).loss();
  const std::vector<float> weights = trained(*factory, kImage, 1, 50);
  std::copy(weights.begin(), weights.end(), model->weights().begin());
  EXPECT_LT(model->evaluate({inputs, labels}).loss(), before / 2);
}

}  // namespace
}  // namespace fl
