#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "client/trainer/trainer.h"
#include "fl_core/ml/batches.h"
#include "fl_core/params/kernels.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

std::shared_ptr<const Dataset> data_set(std::int64_t examples, std::int64_t inputs, std::int64_t classes) {
  return data_sources().create({{"name", "synthetic"}, {"examples", examples}, {"test_examples", 10}, {"input", {inputs}}, {"classes", classes}}, "data")->load(5).train;
}

/// One device with its data, its model (which starts at zero) and its promise.
struct Device {
  Device(std::int64_t examples, std::int64_t inputs, std::int64_t classes)
      : data(data_set(examples, inputs, classes)), model(test::make_toy_model(data->shape(), 1)), shard(static_cast<std::size_t>(examples)) {
    std::iota(shard.begin(), shard.end(), 0U);
    noise.key[0] = std::byte{1};
  }

  std::vector<float> fit(nlohmann::json options, std::uint64_t seed = 9, std::uint32_t round = 1, ClientId client = 2) {
    options["name"] = "dp_sgd";
    return fit(*trainers().create(options, "trainer"), seed, round, client);
  }
  std::vector<float> fit(Trainer& trainer, std::uint64_t seed = 9, std::uint32_t round = 1, ClientId client = 2) {
    const std::size_t count = model->layout()->weight_count();
    std::fill(model->weights().begin(), model->weights().end(), start);
    const std::vector<float> global(model->weights().begin(), model->weights().end());
    TrainingJob job{*model, global, *data, shard, seed, round, client, stop};
    job.example_noise = noise;
    result = trainer.fit(job);
    return {model->weights().begin(), model->weights().begin() + static_cast<std::ptrdiff_t>(count)};
  }

  std::shared_ptr<const Dataset> data;
  std::unique_ptr<Model> model;
  std::vector<std::uint32_t> shard;
  ExampleNoise noise{1, 0.5, 0, {}};
  std::function<bool()> stop;
  float start = 0;
  TrainingResult result;
};

/// A model of one weight that writes down what it is given.
class Recorder final : public Model {
 public:
  const SharedLayout& layout() const override { return layout_; }
  std::span<float> weights() override { return weight_; }
  std::span<const float> gradient() const override { return gradient_; }
  double backward(const Batch&, Rng&) override { throw ConfigError("a private trainer took a plain gradient"); }
  std::size_t clipped_backward(const Batch& batch, double, Rng& rng) override {
    sizes.push_back(batch.labels.size());
    inputs.insert(inputs.end(), batch.inputs.begin(), batch.inputs.end());
    draws.insert(rng.next_u64());
    return 0;
  }
  Evaluation evaluate(const Batch&) override { return {}; }

  std::vector<std::size_t> sizes;
  std::vector<float> inputs;
  std::set<std::uint64_t> draws;

 private:
  SharedLayout layout_ = std::make_shared<const Layout>(std::vector<Slot>{{"weight", {1}}});
  std::vector<float> weight_ = {0}, gradient_ = {0};
};

struct Recorded {
  std::shared_ptr<Recorder> model = std::make_shared<Recorder>();

  Recorded(double sampling_rate, std::byte key, std::uint64_t seed = 9) {
    const auto data = data_set(200, 1, 3);
    std::vector<std::uint32_t> shard(200);
    std::iota(shard.begin(), shard.end(), 0U);
    TrainingJob job{*model, model->weights(), *data, shard, seed, 1, 2, nullptr};
    job.example_noise = ExampleNoise{sampling_rate, 1, 0, {key}};
    trainers().create({{"name", "dp_sgd"}, {"steps", 50}}, "trainer")->fit(job);
  }
};

TEST(ToyModel, GivesTheSumOfClippedGradientsOfItsExamples) {
  Device device(30, 4, 3);
  Rng rng(1, Purpose::dropout);
  BatchBuffer buffer;
  const std::size_t count = device.model->layout()->weight_count();
  std::vector<double> expected(count);
  std::size_t beyond = 0;
  constexpr double kClip = 2;  // about half of these examples are beyond it
  for (std::uint32_t example : device.shard) {
    device.model->backward(buffer.gather(*device.data, {&example, 1}), rng);
    const double norm = std::sqrt(kernels::squared_norm(device.model->gradient()));
    beyond += norm > kClip ? 1 : 0;
    for (std::size_t i = 0; i < count; ++i) expected[i] += std::min(1.0, kClip / norm) * static_cast<double>(device.model->gradient()[i]);
  }
  EXPECT_EQ(device.model->clipped_backward(buffer.gather(*device.data, device.shard), kClip, rng), beyond);
  EXPECT_GT(beyond, 5U);
  EXPECT_LT(beyond, 25U);
  for (std::size_t i = 0; i < count; ++i) EXPECT_NEAR(device.model->gradient()[i], expected[i], 3e-5) << i;
}

TEST(DpSgd, TakesTheClippedSumOverTheExpectedBatchWithoutNoise) {
  // 200 examples need several passes; the divisor is the option and not what was drawn.
  Device device(200, 4, 3);
  const std::vector<float> moved = device.fit({{"steps", 1}, {"batch_size", 32}, {"learning_rate", 0.5}});
  std::fill(device.model->weights().begin(), device.model->weights().end(), 0.0F);
  BatchBuffer buffer;
  Rng rng(1, Purpose::dropout);
  device.model->clipped_backward(buffer.gather(*device.data, device.shard), device.noise.clip_norm, rng);
  EXPECT_GT(kernels::squared_norm(device.model->gradient()), 1);
  for (std::size_t i = 0; i < moved.size(); ++i) EXPECT_NEAR(moved[i], -0.5 / 32 * static_cast<double>(device.model->gradient()[i]), 1e-5) << i;
}

TEST(DpSgd, AddsNoiseOfTheGivenSizeThoughNobodyWasDrawn) {
  Device device(20, 1000, 10);
  device.noise = {1e-12, 0.25, 3, {}};
  const std::vector<float> moved = device.fit({{"steps", 1}, {"batch_size", 8}, {"learning_rate", 1}});
  // 10 010 draws of standard deviation 3 · 0.25 / 8: the estimate's own deviation is 1/√(2·10010) = 0.7 %, the mean's 1 % of it.
  const double stddev = 3 * 0.25 / 8;
  EXPECT_NEAR(std::sqrt(kernels::squared_norm(moved) / 10010), stddev, 5 * 0.0071 * stddev);
  EXPECT_NEAR(std::accumulate(moved.begin(), moved.end(), 0.0) / 10010, 0, 5 * 0.01 * stddev);
  EXPECT_EQ(device.result.steps, 1U);
  // The same draw over twice the batch is half as far; a second step draws anew: √2 times as far, and not twice.
  const std::vector<float> halved = device.fit({{"steps", 1}, {"batch_size", 16}, {"learning_rate", 1}});
  for (std::size_t i = 0; i < moved.size(); ++i) EXPECT_EQ(2 * halved[i], moved[i]);
  const std::vector<float> twice = device.fit({{"steps", 2}, {"batch_size", 8}, {"learning_rate", 1}});
  EXPECT_NEAR(std::sqrt(kernels::squared_norm(twice) / 10010), std::sqrt(2) * stddev, 5 * 0.0071 * std::sqrt(2) * stddev);
  EXPECT_EQ(device.result.steps, 2U);
}

TEST(DpSgd, AddsTheNoiseOnceHoweverManyPassesAStepTakes) {
  Device device(200, 1000, 10);
  device.noise = {1, 0.25, 3, {}};
  const nlohmann::json options = {{"steps", 1}, {"batch_size", 8}, {"learning_rate", 1}};
  std::vector<float> moved = device.fit(options);
  device.noise.noise_multiplier = 0;
  const std::vector<float> quiet = device.fit(options);
  const double stddev = 3 * 0.25 / 8;
  EXPECT_NEAR(std::sqrt(kernels::squared_distance(moved, quiet) / 10010), stddev, 5 * 0.0071 * stddev);
}

TEST(DpSgd, DrawsEachExampleWithTheGivenChance) {
  const Recorded recorded(0.3, std::byte{1});
  // Binomial(50 · 200, 0.3): mean 3000, standard deviation 45.8; five of them.
  EXPECT_NEAR(static_cast<double>(recorded.model->inputs.size()), 3000, 229);
  // Every example is Binomial(50, 0.3): mean 15, deviation 3.24; the furthest of 200 is beyond 6 deviations once in 10^6 times.
  std::map<float, int> times;
  for (const float input : recorded.model->inputs) ++times[input];
  EXPECT_EQ(times.size(), 200U);
  for (const auto& [input, count] : times) EXPECT_NEAR(count, 15, 6 * 3.24) << input;
  // The batches' sizes vary as Binomial(200, 0.3) does: variance 42, whose estimate from 50 is off by 8.4.
  EXPECT_GT(*std::max_element(recorded.model->sizes.begin(), recorded.model->sizes.end()), 45U);
  EXPECT_GT((std::set<std::size_t>(recorded.model->sizes.begin(), recorded.model->sizes.end())).size(), 8U);
}

TEST(DpSgd, HoldsABoundedNumberOfExamplesAtOnce) {
  const Recorded all(1, std::byte{1});
  // 200 examples in three passes of about one size, 50 times.
  EXPECT_EQ(all.model->sizes.size(), 150U);
  EXPECT_EQ(*std::max_element(all.model->sizes.begin(), all.model->sizes.end()), 67U);
  EXPECT_EQ(all.model->inputs.size(), 50U * 200U);
}

TEST(DpSgd, DrawsFromItsKeyAndNotFromTheExperimentsSeed) {
  const Recorded first(0.3, std::byte{1}), seeded(0.3, std::byte{1}, 10), keyed(0.3, std::byte{2});
  EXPECT_EQ(first.model->inputs, seeded.model->inputs);
  EXPECT_EQ(first.model->draws, seeded.model->draws);
  EXPECT_NE(first.model->inputs, keyed.model->inputs);
  EXPECT_NE(first.model->draws, keyed.model->draws);
  Device device(60, 4, 3);
  device.noise = {0.4, 0.5, 1.5, {}};
  const nlohmann::json options = {{"steps", 3}, {"momentum", 0.9}};
  const std::vector<float> moved = device.fit(options, 1, 1, 2);
  EXPECT_EQ(device.fit(options, 7, 5, 3), moved);
  device.noise.key[31] = std::byte{1};
  EXPECT_NE(device.fit(options, 1, 1, 2), moved);
}

TEST(DpSgd, KeepsNothingFromTheJobBefore) {
  Device device(60, 4, 3);
  const nlohmann::json options = {{"steps", 3}, {"momentum", 0.9}};
  const auto trainer = trainers().create({{"name", "dp_sgd"}, {"steps", 3}, {"momentum", 0.9}}, "trainer");
  // More noise, then less, then more again: each as a trainer that never saw the other.
  for (const ExampleNoise& noise : {ExampleNoise{0.4, 0.5, 1.5, {}}, ExampleNoise{0.9, 0.5, 0.5, {std::byte{7}}}, ExampleNoise{0.4, 0.5, 1.5, {}}}) {
    device.noise = noise;
    const std::vector<float> moved = device.fit(*trainer);
    EXPECT_EQ(device.fit(options), moved);
  }
}

TEST(DpSgd, ReportsNothingThatDependsOnItsExamples) {
  Device device(60, 4, 3);
  device.noise = {0.4, 0.5, 1.5, {}};
  device.fit({{"steps", 4}});
  EXPECT_EQ(device.result.steps, 4U);
  EXPECT_EQ(device.result.metrics.examples, 0);
  EXPECT_EQ(device.result.metrics.loss_units, 0);
  EXPECT_FALSE(device.result.diverged);
  const auto trainer = trainers().create({{"name", "dp_sgd"}, {"steps", 4}, {"batch_size", 16}}, "trainer");
  EXPECT_EQ(trainer->private_steps(), 4U);
  EXPECT_EQ(trainer->examples_for(60), 64);
  EXPECT_EQ(trainer->examples_for(6), 64);
}

TEST(DpSgd, DivergesOnlyByItsWeights) {
  Device device(60, 4, 3);
  device.start = std::numeric_limits<float>::quiet_NaN();
  device.fit({{"steps", 1}});
  EXPECT_TRUE(device.result.diverged);
  EXPECT_EQ(device.result.steps, 1U);
}

TEST(DpSgd, FollowsItsScheduleMomentumAndDecay) {
  Device device(40, 4, 3);
  const std::vector<float> first = device.fit({{"steps", 1}, {"learning_rate", 0.5}, {"schedule", "exponential"}, {"decay", 0.5}}, 9, 1);
  const std::vector<float> third = device.fit({{"steps", 1}, {"learning_rate", 0.5}, {"schedule", "exponential"}, {"decay", 0.5}}, 9, 3);
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_EQ(4 * third[i], first[i]);
  // From weights of 1: w - rate (g + decay w).
  device.start = 1;
  const std::vector<float> plain = device.fit({{"steps", 1}, {"learning_rate", 0.5}});
  const std::vector<float> decayed = device.fit({{"steps", 1}, {"learning_rate", 0.5}, {"weight_decay", 0.25}});
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_NEAR(decayed[i], plain[i] - 0.125F, 1e-6);
  EXPECT_NE(device.fit({{"steps", 2}}), device.fit({{"steps", 2}, {"momentum", 0.5}}));
}

TEST(DpSgd, StopsWithinAStepWhenAsked) {
  Device device(200, 4, 3);
  int polls = 0;
  device.stop = [&] { return ++polls > 3; };
  EXPECT_THROW(device.fit({{"steps", 5}}), Interrupted);
}

TEST(DpSgd, NeedsAPromise) {
  Device device(20, 4, 3);
  const auto trainer = trainers().create({{"name", "dp_sgd"}}, "trainer");
  EXPECT_EQ(test::error_of([&] { trainer->fit({*device.model, device.model->weights(), *device.data, device.shard, 1, 1, 1, nullptr}); }),
            "trainer.name: dp_sgd needs a 'privacy' section whose mechanism is dp_sgd");
}

}  // namespace
}  // namespace fl
