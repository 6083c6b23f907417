#include <gtest/gtest.h>

#include <numeric>

#include "client/trainer/trainer.h"
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

  /// Trains a fresh trainer on a fresh model and returns the weights.
  std::vector<float> fit(nlohmann::json options = {}, TrainingResult* result = nullptr) {
    options["name"] = GetParam();
    const auto model = test::make_toy_model(data_->shape(), 1);
    const std::vector<float> global(model->weights().begin(), model->weights().end());
    const auto trainer = trainers().create(options, "trainer");
    const auto got = trainer->fit({*model, global, *data_, shard_, 4, 2, 6, nullptr});
    if (result != nullptr) *result = got;
    EXPECT_EQ(got.metrics.examples, trainer->examples_for(shard_.size()));
    return {model->weights().begin(), model->weights().begin() + static_cast<std::ptrdiff_t>(model->layout()->weight_count())};
  }
  std::vector<float> start() {
    const auto model = test::make_toy_model(data_->shape(), 1);
    return {model->weights().begin(), model->weights().begin() + static_cast<std::ptrdiff_t>(model->layout()->weight_count())};
  }

  std::shared_ptr<const Dataset> data_;
  std::vector<std::uint32_t> shard_;
};

TEST_P(TrainerContract, ZeroLearningRateGivesZeroDelta) { EXPECT_EQ(fit({{"learning_rate", 0}}), start()); }

TEST_P(TrainerContract, SameJobGivesSameBits) { EXPECT_EQ(fit(), fit()); }

TEST_P(TrainerContract, MovesTheModelAndLowersTheLoss) {
  TrainingResult one;
  TrainingResult ten;
  EXPECT_NE(fit({{"epochs", 1}}, &one), start());
  fit({{"epochs", 10}}, &ten);
  const auto mean = [](const TrainingResult& r) { return static_cast<double>(r.metrics.loss_units) / static_cast<double>(r.metrics.examples); };
  EXPECT_LT(mean(ten), mean(one));
}

TEST_P(TrainerContract, ReusedTrainerKeepsNothingOfTheClientBefore) {
  const nlohmann::json options = {{"name", GetParam()}, {"momentum", 0.9}, {"epochs", 2}};
  const auto trainer = trainers().create(options, "trainer");
  const auto model = test::make_toy_model(data_->shape(), 1);
  const std::vector<float> global(model->weights().begin(), model->weights().end());
  const auto run = [&](ClientId client) {
    std::copy(global.begin(), global.end(), model->weights().begin());
    trainer->fit({*model, global, *data_, shard_, 4, 2, client, nullptr});
    return std::vector<float>(model->weights().begin(), model->weights().end());
  };
  const auto first = run(6);
  run(7);
  EXPECT_EQ(run(6), first);
}

INSTANTIATE_TEST_SUITE_P(Registered, TrainerContract, ::testing::ValuesIn(trainers().names()), [](const auto& name) { return name.param; });

}  // namespace
}  // namespace fl
