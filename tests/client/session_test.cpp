#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "client/session.h"
#include "fl_core/params/kernels.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

class SessionTest : public ::testing::Test {
 protected:
  SessionTest() {
    data_ = data_sources().create({{"name", "synthetic"}, {"examples", 60}, {"test_examples", 10}, {"input", {4}}, {"classes", 3}}, "data")->load(5).train;
    model_ = test::make_toy_model(data_->shape(), 1);
    trainer_ = trainers().create({{"name", "sgd"}, {"batch_size", 5}}, "trainer");
    codec_ = codecs().create({{"name", "identity"}}, "codec");
    global_ = ParameterVector(model_->layout());
    std::copy(model_->weights().begin(), model_->weights().end(), global_.values().begin());
  }

  ClientSession session(double holdout = 0, ClientId client = 3) {
    std::vector<std::uint32_t> shard(20);
    std::iota(shard.begin(), shard.end(), 10U);
    return ClientSession(ClientKit{*model_, *trainer_, *codec_, "identity", *data_, 9, holdout, false, 65535}, client, shard);
  }
  Message task(TaskKind kind = TaskKind::train) {
    return encode_task({kind, 4, 2, model_->layout()->fingerprint(), SharedBuffer::copy_of(global_.bytes())});
  }

  std::shared_ptr<const Dataset> data_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<Codec> codec_;
  ParameterVector global_;
};

TEST_F(SessionTest, AnswersATaskWithTheDeltaThatTrainingGives) {
  const auto answer = session().handle(task(), nullptr);
  ASSERT_TRUE(answer.has_value());
  ASSERT_EQ(answer->type(), MessageType::update);
  const UpdateHeader header = parse_update_header(*answer);
  EXPECT_EQ(header.round, 4U);
  EXPECT_EQ(header.model_version, 2U);
  EXPECT_EQ(header.weight, 20U);
  EXPECT_EQ(header.steps, 4U);
  EXPECT_EQ(header.metrics.examples, 20);
  std::vector<float> delta(global_.size());
  codec_->decode(answer->body().span(), delta);

  // The same training by hand.
  std::vector<std::uint32_t> shard(20);
  std::iota(shard.begin(), shard.end(), 10U);
  std::copy(global_.values().begin(), global_.values().end(), model_->weights().begin());
  trainer_->fit({*model_, global_.values(), *data_, shard, 9, 4, 3, nullptr});
  std::vector<float> expected(global_.size());
  kernels::subtract(model_->weights(), global_.values(), expected);
  EXPECT_EQ(delta, expected);
}

TEST_F(SessionTest, HoldsBackExamplesForEvaluation) {
  auto with_holdout = session(0.25);
  const auto trained = with_holdout.handle(task(), nullptr);
  EXPECT_EQ(parse_update_header(*trained).metrics.examples, 15);
  const auto measured = with_holdout.handle(task(TaskKind::evaluate), nullptr);
  EXPECT_EQ(parse_update_header(*measured).metrics.examples, 5);
  EXPECT_EQ(measured->body().size(), 0U);
}

TEST_F(SessionTest, DivergedTrainingAnswersWithAReason) {
  global_.values()[0] = NAN;
  const auto answer = session().handle(task(), nullptr);
  ASSERT_EQ(answer->type(), MessageType::failed);
  EXPECT_NE(parse_failure(*answer).find("learning_rate"), std::string::npos);
}

TEST_F(SessionTest, RefusesWhatNoServerSends) {
  const Message wrong(MessageType::update, 1, SharedBuffer(), SharedBuffer());
  EXPECT_THROW(session().handle(wrong, nullptr), ProtocolError);
}

TEST(UpdateWeight, CountsExamplesWithinSixteenBits) {
  EXPECT_EQ(update_weight(600, 65535, false), 600U);
  EXPECT_EQ(update_weight(600, 100, false), 100U);
  EXPECT_EQ(update_weight(600, 65535, true), 65535U);
  // A cap of 131 070 = 2 · 65535 halves every weight.
  EXPECT_EQ(update_weight(600, 131070, false), 300U);
  EXPECT_EQ(update_weight(1, 1LL << 40, false), 1U);
  EXPECT_EQ(update_weight(1ULL << 50, 1LL << 40, false), 65535U);
}

TEST(TrainingSize, KeepsAtLeastOneExample) {
  EXPECT_EQ(training_size(10, 0.25), 8U);  // floor(2.5) are held back
  EXPECT_EQ(training_size(1, 0.9), 1U);
  EXPECT_EQ(training_size(10, 0), 10U);
}

}  // namespace
}  // namespace fl
