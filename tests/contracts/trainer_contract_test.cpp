#include <gtest/gtest.h>

#include <numeric>

#include "client/trainer/trainer.h"
#include "fl_core/ml/batches.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

class TrainerContract : public ::testing::TestWithParam<std::string> {
 protected:
  TrainerContract() {
    data_ = data_sources().create({{"name", "synthetic"}, {"examples", 40}, {"test_examples", 10}, {"input", {5}}, {"classes", 3}}, "data")->load(2).train;
    shard_.resize(17);
    std::iota(shard_.begin(), shard_.end(), 3U);
  }

  /// A trainer with private steps gets the promise that it needs.
  TrainingJob job(const Trainer& trainer, Model& model, std::span<const float> global, ClientId client) const {
    TrainingJob job{model, global, *data_, shard_, 4, 2, client, nullptr};
    if (trainer.private_steps() > 0) job.example_noise = ExampleNoise{0.5, 1, 0.1, {std::byte{static_cast<unsigned char>(client)}}};
    return job;
  }

  /// Trains a fresh trainer on a fresh model and returns the weights; loss_ becomes the model's loss on the shard.
  std::vector<float> fit(nlohmann::json options = {}) {
    options["name"] = GetParam();
    const auto model = test::make_toy_model(data_->shape(), 1);
    const std::vector<float> global(model->weights().begin(), model->weights().end());
    const auto trainer = trainers().create(options, "trainer");
    const auto got = trainer->fit(job(*trainer, *model, global, 6));
    // A private trainer says nothing of its examples.
    const bool is_private = trainer->private_steps() > 0;
    EXPECT_EQ(got.metrics.examples, is_private ? 0 : trainer->examples_for(shard_.size()));
    if (is_private) {
      EXPECT_EQ(got.steps, trainer->private_steps());
    }
    loss_ = evaluate_examples(*model, *data_, shard_, shard_.size()).loss();
    return {model->weights().begin(), model->weights().begin() + static_cast<std::ptrdiff_t>(model->layout()->weight_count())};
  }
  std::vector<float> start() {
    const auto model = test::make_toy_model(data_->shape(), 1);
    return {model->weights().begin(), model->weights().begin() + static_cast<std::ptrdiff_t>(model->layout()->weight_count())};
  }

  std::shared_ptr<const Dataset> data_;
  std::vector<std::uint32_t> shard_;
  double loss_ = 0;
};

TEST_P(TrainerContract, ZeroLearningRateGivesZeroDelta) { EXPECT_EQ(fit({{"learning_rate", 0}}), start()); }

TEST_P(TrainerContract, SameJobGivesSameBits) { EXPECT_EQ(fit(), fit()); }

TEST_P(TrainerContract, MovesTheModelAndLowersTheLoss) {
  EXPECT_NE(fit({{"steps", 2}}), start());
  const double after_two = loss_;
  fit({{"steps", 40}});
  EXPECT_LT(loss_, after_two);
}

TEST_P(TrainerContract, ReusedTrainerKeepsNothingOfTheClientBefore) {
  const nlohmann::json options = {{"name", GetParam()}, {"momentum", 0.9}, {"steps", 4}};
  const auto trainer = trainers().create(options, "trainer");
  const auto model = test::make_toy_model(data_->shape(), 1);
  const std::vector<float> global(model->weights().begin(), model->weights().end());
  const auto run = [&](ClientId client) {
    std::copy(global.begin(), global.end(), model->weights().begin());
    trainer->fit(job(*trainer, *model, global, client));
    return std::vector<float>(model->weights().begin(), model->weights().end());
  };
  const auto first = run(6);
  run(7);
  EXPECT_EQ(run(6), first);
}

INSTANTIATE_TEST_SUITE_P(Registered, TrainerContract, ::testing::ValuesIn(trainers().names()), [](const auto& name) { return name.param; });

}  // namespace
}  // namespace fl
