#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "client/trainer/local_sgd.h"
#include "fl_core/params/kernels.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

/// A client with 23 examples of a small synthetic task.
class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    const auto source = data_sources().create({{"name", "synthetic"}, {"examples", 60}, {"test_examples", 10}, {"input", {4}}, {"classes", 3}}, "data");
    data_ = source->load(5).train;
    model_ = test::make_toy_model(data_->shape(), 1);
    global_.assign(model_->weights().begin(), model_->weights().end());
    shard_.resize(23);
    std::iota(shard_.begin(), shard_.end(), 7U);
  }

  std::vector<float> fit(const nlohmann::json& trainer, std::uint32_t round = 1, ClientId client = 2) {
    std::copy(global_.begin(), global_.end(), model_->weights().begin());
    result_ = trainers().create(trainer, "trainer")->fit({*model_, global_, *data_, shard_, 9, round, client, stop_});
    return {model_->weights().begin(), model_->weights().end()};
  }

  std::shared_ptr<const Dataset> data_;
  std::unique_ptr<Model> model_;
  std::vector<float> global_;
  std::vector<std::uint32_t> shard_;
  std::function<bool()> stop_;
  TrainingResult result_;
};

TEST_F(TrainerTest, StepsAreBatchesPerEpochTimesEpochs) {
  fit({{"name", "sgd"}, {"epochs", 3}, {"batch_size", 10}});
  // 23 examples in batches of 10 make 3 steps an epoch, the last one with 3 examples.
  EXPECT_EQ(result_.steps, 9U);
  EXPECT_EQ(result_.metrics.examples, 69);
}

TEST_F(TrainerTest, StepsOptionOverridesEpochsAndMatchesItsForecast) {
  const nlohmann::json trainer = {{"name", "sgd"}, {"steps", 5}, {"batch_size", 10}};
  fit(trainer);
  EXPECT_EQ(result_.steps, 5U);
  EXPECT_EQ(result_.metrics.examples, 10 + 10 + 3 + 10 + 10);
  EXPECT_EQ(trainers().create(trainer, "trainer")->examples_for(23), 43);
}

TEST_F(TrainerTest, OneFullBatchStepIsGradientDescent) {
  const auto moved = fit({{"name", "sgd"}, {"batch_size", 23}, {"learning_rate", 0.5}});
  std::copy(global_.begin(), global_.end(), model_->weights().begin());
  BatchBuffer buffer;
  Rng rng(0, Purpose::dropout);
  model_->backward(buffer.gather(*data_, shard_), rng);
  for (std::size_t i = 0; i < model_->gradient().size(); ++i) {
    EXPECT_NEAR(moved[i], global_[i] - 0.5F * model_->gradient()[i], 1e-6);  // the batch's order differs by the shuffle
  }
}

TEST_F(TrainerTest, ZeroLearningRateLeavesTheWeights) {
  const auto moved = fit({{"name", "sgd"}, {"learning_rate", 0}, {"epochs", 2}});
  const std::size_t weights = model_->layout()->weight_count();
  EXPECT_TRUE(std::equal(moved.begin(), moved.begin() + static_cast<std::ptrdiff_t>(weights), global_.begin()));
}

TEST_F(TrainerTest, SameKeyGivesSameBitsAndEachPartOfTheKeyMatters) {
  const nlohmann::json trainer = {{"name", "sgd"}, {"batch_size", 4}};
  const auto first = fit(trainer);
  EXPECT_EQ(first, fit(trainer));
  EXPECT_NE(first, fit(trainer, 2, 2));
  EXPECT_NE(first, fit(trainer, 1, 3));
}

TEST_F(TrainerTest, ClipNormBoundsTheStep) {
  const auto moved = fit({{"name", "sgd"}, {"batch_size", 23}, {"learning_rate", 1}, {"clip_norm", 0.01}});
  const std::size_t weights = model_->layout()->weight_count();
  const double distance = std::sqrt(kernels::squared_distance(std::span(moved).first(weights), std::span(global_).first(weights)));
  EXPECT_NEAR(distance, 0.01, 1e-6);
}

TEST_F(TrainerTest, FedProxWithoutPullIsSgdBitForBit) {
  EXPECT_EQ(fit({{"name", "fedprox"}, {"mu", 0}, {"epochs", 3}}), fit({{"name", "sgd"}, {"epochs", 3}}));
}

TEST_F(TrainerTest, FedProxAddsMuTimesTheDistanceToTheGradient) {
  // Two full-batch steps. Step 1 starts at the global model, where the pull is zero: w1 = w0 - r·g0.
  // Step 2: w2 = w1 - r·(g1 + mu·(w1 - w0)), so against plain SGD's w2 it differs by -r·mu·(w1 - w0).
  const nlohmann::json plain = {{"name", "sgd"}, {"batch_size", 23}, {"learning_rate", 0.1}};
  nlohmann::json twice = plain;
  twice["epochs"] = 2;
  nlohmann::json pulled = twice;
  pulled["name"] = "fedprox";
  pulled["mu"] = 0.5;
  const auto one = fit(plain);
  const auto two = fit(twice);
  const auto prox = fit(pulled);
  for (std::size_t i = 0; i < model_->layout()->weight_count(); ++i) {
    EXPECT_NEAR(prox[i], two[i] - 0.1F * 0.5F * (one[i] - global_[i]), 1e-6);
  }
}

TEST_F(TrainerTest, StopsWithinABatchWhenAsked) {
  int polls = 0;
  stop_ = [&] { return ++polls > 2; };
  EXPECT_THROW(fit({{"name", "sgd"}, {"batch_size", 4}}), Interrupted);
  EXPECT_EQ(polls, 3);
}

TEST_F(TrainerTest, DivergenceIsReportedNotReturned) {
  global_[0] = NAN;
  fit({{"name", "sgd"}});
  EXPECT_TRUE(result_.diverged);
  EXPECT_EQ(result_.steps, 0U);
}

TEST(LearningRate, FollowsItsSchedule) {
  LocalSgdOptions options;
  options.learning_rate = 0.8;
  EXPECT_DOUBLE_EQ(options.rate(1), 0.8);
  EXPECT_DOUBLE_EQ(options.rate(1000), 0.8);
  options.schedule = "exponential";
  options.decay = 0.5;
  EXPECT_DOUBLE_EQ(options.rate(1), 0.8);
  EXPECT_DOUBLE_EQ(options.rate(4), 0.1);  // 0.8 · 0.5³
  options.schedule = "step";
  options.decay_every = 10;
  EXPECT_DOUBLE_EQ(options.rate(10), 0.8);
  EXPECT_DOUBLE_EQ(options.rate(11), 0.4);
  options.schedule = "cosine";
  options.decay = 0.1;
  EXPECT_DOUBLE_EQ(options.rate(1), 0.8);
  EXPECT_NEAR(options.rate(6), 0.8 * 0.55, 1e-12);  // half way: the mean of 1 and 0.1
  EXPECT_NEAR(options.rate(11), 0.08, 1e-12);
  EXPECT_NEAR(options.rate(500), 0.08, 1e-12);
  options = {};
  options.warmup_rounds = 3;
  options.learning_rate = 0.4;
  EXPECT_DOUBLE_EQ(options.rate(1), 0.1);
  EXPECT_DOUBLE_EQ(options.rate(3), 0.3);
  EXPECT_DOUBLE_EQ(options.rate(4), 0.4);
}

}  // namespace
}  // namespace fl
