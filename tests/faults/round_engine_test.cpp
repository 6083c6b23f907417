#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <limits>

#include "aggregator/engine/round_engine.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

/// What a scripted client does with a task.
struct Script {
  std::function<std::optional<Message>(const Message&)> answer;  ///< nothing: the client leaves
  Seconds time = 1;
};

/// A transport whose clients follow scripts; arrivals come in order of time, then client.
class ScriptedTransport final : public Transport {
 public:
  std::map<ClientId, Script> scripts;
  std::vector<std::uint32_t> closed;

  Roster roster() override { return {scripts.size(), {}}; }
  void send(ClientId client, const Message& message) override {
    const Script& script = scripts.at(client);
    auto answer = script.answer(message);
    const auto kind = answer ? Arrival::Kind::message : Arrival::Kind::left;
    arrivals_.emplace(std::pair(now_ + script.time, client), Arrival{kind, client, message.round(), now_ + script.time, std::move(answer)});
  }
  std::optional<Arrival> wait(Seconds deadline) override {
    if (arrivals_.empty() || arrivals_.begin()->first.first > deadline) {
      now_ = deadline;
      return std::nullopt;
    }
    auto first = arrivals_.extract(arrivals_.begin());
    now_ = std::max(now_, first.mapped().time);
    return std::move(first.mapped());
  }
  std::optional<Arrival> poll() override {
    if (!polls || arrivals_.empty() || arrivals_.begin()->first.first > now_) return std::nullopt;
    return wait(now_);
  }
  void close_round(std::uint32_t round) override { closed.push_back(round); }
  Seconds now() const override { return now_; }
  bool polls = false;

 private:
  std::multimap<std::pair<Seconds, ClientId>, Arrival> arrivals_;
  Seconds now_ = 0;
};

/// Four clients with a layout of three floats; every client is asked in each round. The parameter: whether the transport tells of arrivals
/// that wait, so that updates are folded several at a time.
class RoundEngineTest : public ::testing::TestWithParam<bool> {
 protected:
  RoundEngineTest()
      : experiment_(make_experiment()),
        layout_(std::make_shared<Layout>(std::vector<Slot>{{"w", {3}, SlotKind::weight}})),
        codec_(codecs().create(experiment_.codec, "codec")),
        sampler_(samplers().create(experiment_.sampler, "sampler")),
        strategy_(strategies().create(experiment_.strategy, "strategy", {layout_, 16, 6})),
        global_(layout_) {
    transport_.polls = GetParam();
    for (ClientId client = 0; client < 4; ++client) transport_.scripts[client] = {honest({1, 2, 3}), 1};
  }

  static Experiment make_experiment() {
    nlohmann::json document = test::toy_experiment();
    document["partition"]["clients"] = 4;
    document["round"] = {{"cohort", 4}};
    return parse_experiment(document, "test");
  }

  /// A client that answers with this delta; `change` may spoil the header.
  std::function<std::optional<Message>(const Message&)> honest(std::vector<float> delta, std::uint32_t weight = 10,
                                                               std::function<void(UpdateHeader&)> change = nullptr) {
    return [=, this](const Message& message) -> std::optional<Message> {
      const Task task = parse_task(message, *layout_);
      UpdateHeader header{task.round, task.model_version, task.fingerprint, weight, 2, {30, 0, 60LL << 32}, "identity"};
      if (change) change(header);
      return encode_update(header, SharedBuffer::copy_of(std::as_bytes(std::span(delta))));
    };
  }

  RoundReport run(std::uint32_t round = 1) {
    RoundEngine engine({experiment_, transport_, *sampler_, *strategy_, *codec_, layout_, nullptr, nullptr, nullptr});
    RoundReport report = engine.run_round(round, global_, version_);
    reason_ = engine.last_reason();
    return report;
  }
  Outcome outcome_of_client_3(std::function<std::optional<Message>(const Message&)> answer) {
    transport_.scripts[3].answer = std::move(answer);
    const RoundReport report = run();
    EXPECT_EQ(report.count(Outcome::accepted), 3U);
    EXPECT_FLOAT_EQ(global_.values()[0], 1);  // the others' deltas are untouched by the bad one
    return report.cohort[3].outcome;
  }

  Experiment experiment_;
  SharedLayout layout_;
  std::unique_ptr<Codec> codec_;
  std::unique_ptr<Sampler> sampler_;
  std::unique_ptr<Strategy> strategy_;
  ParameterVector global_;
  std::uint32_t version_ = 0;
  ScriptedTransport transport_;
  std::string reason_;
};

TEST_P(RoundEngineTest, AddsTheWeightedMeanOfAllUpdates) {
  transport_.scripts[0].answer = honest({4, 0, 0}, 30);
  const RoundReport report = run();
  // (30·4 + 3·10·1) / 60 = 2.5 ; (3·10·2) / 60 = 1 ; (3·10·3) / 60 = 1.5
  EXPECT_FLOAT_EQ(global_.values()[0], 2.5F);
  EXPECT_FLOAT_EQ(global_.values()[1], 1.0F);
  EXPECT_FLOAT_EQ(global_.values()[2], 1.5F);
  EXPECT_EQ(version_, 1U);
  EXPECT_EQ(report.examples, 4 * 30);
  EXPECT_EQ(report.steps, 8U);
  EXPECT_DOUBLE_EQ(report.training_loss, 2.0);  // 60 nats over 30 examples
  EXPECT_NEAR(report.update_norm, std::sqrt(2.5 * 2.5 + 1 + 1.5 * 1.5), 1e-6);
  EXPECT_GT(report.bytes_down, 4U * 12U);
  EXPECT_EQ(transport_.closed, std::vector<std::uint32_t>{1});
}

TEST_P(RoundEngineTest, ArrivalOrderDoesNotChangeABit) {
  const std::vector<std::vector<float>> deltas = {{0.1F, 1e-7F, 3}, {-0.7F, 2e-7F, 1e-3F}, {0.3F, -1e-7F, 5}, {0.9F, 9, -4}};
  std::vector<float> first;
  for (int order = 0; order < 4; ++order) {
    global_ = ParameterVector(layout_);
    version_ = 0;
    for (ClientId client = 0; client < 4; ++client) {
      transport_.scripts[client] = {honest(deltas[client], static_cast<std::uint32_t>(7 + client)), static_cast<double>((client * 3 + static_cast<ClientId>(order)) % 4)};
    }
    run();
    const std::vector<float> result(global_.values().begin(), global_.values().end());
    if (order == 0) first = result;
    EXPECT_EQ(result, first);
  }
}

TEST_P(RoundEngineTest, NamesTheReasonForEachBadUpdate) {
  EXPECT_EQ(outcome_of_client_3([](const Message&) { return std::nullopt; }), Outcome::left);
}
TEST_P(RoundEngineTest, RejectsNaN) {
  EXPECT_EQ(outcome_of_client_3(honest({1, NAN, 3})), Outcome::not_finite);
  EXPECT_NE(reason_.find("learning_rate"), std::string::npos);
}
TEST_P(RoundEngineTest, RejectsInfinity) {
  EXPECT_EQ(outcome_of_client_3(honest({std::numeric_limits<float>::infinity(), 2, 3})), Outcome::not_finite);
}
TEST_P(RoundEngineTest, RejectsWhatIsOutOfBound) { EXPECT_EQ(outcome_of_client_3(honest({1, 2, 64})), Outcome::out_of_bound); }
TEST_P(RoundEngineTest, RejectsAnotherRound) {
  EXPECT_EQ(outcome_of_client_3(honest({1, 2, 3}, 10, [](UpdateHeader& h) { h.round = 7; })), Outcome::wrong_round);
}
TEST_P(RoundEngineTest, RejectsAnotherModelVersion) {
  EXPECT_EQ(outcome_of_client_3(honest({1, 2, 3}, 10, [](UpdateHeader& h) { h.model_version = 9; })), Outcome::wrong_round);
}
TEST_P(RoundEngineTest, RejectsAnotherModel) {
  EXPECT_EQ(outcome_of_client_3(honest({1, 2, 3}, 10, [](UpdateHeader& h) { h.fingerprint ^= 1; })), Outcome::wrong_model);
}
TEST_P(RoundEngineTest, RejectsAnotherCodec) {
  EXPECT_EQ(outcome_of_client_3(honest({1, 2, 3}, 10, [](UpdateHeader& h) { h.codec = "fp16"; })), Outcome::malformed);
}
TEST_P(RoundEngineTest, RejectsTooFewFloats) { EXPECT_EQ(outcome_of_client_3(honest({1, 2})), Outcome::malformed); }
TEST_P(RoundEngineTest, RejectsTooManyFloats) { EXPECT_EQ(outcome_of_client_3(honest({1, 2, 3, 4})), Outcome::malformed); }
TEST_P(RoundEngineTest, RejectsGarbage) {
  EXPECT_EQ(outcome_of_client_3([](const Message& m) {
              return Message(MessageType::update, m.round(), SharedBuffer::copy_of(std::as_bytes(std::span("xyz"))), SharedBuffer());
            }),
            Outcome::malformed);
}
TEST_P(RoundEngineTest, KeepsAClientsOwnReason) {
  EXPECT_EQ(outcome_of_client_3([](const Message& m) { return encode_failure(m.round(), "out of battery"); }), Outcome::failed);
  EXPECT_EQ(reason_, "out of battery");
}

TEST_P(RoundEngineTest, TooFewUpdatesAbandonTheRoundAndLeaveTheModel) {
  experiment_.round.minimum_updates = 4;
  transport_.scripts[1].answer = [](const Message&) { return std::nullopt; };
  RoundReport report = run();
  EXPECT_TRUE(report.abandoned);
  EXPECT_EQ(version_, 0U);
  EXPECT_EQ(global_.values()[0], 0);
  // Nothing of the abandoned round leaks into the next one.
  transport_.scripts[1].answer = honest({1, 2, 3});
  report = run(2);
  EXPECT_FALSE(report.abandoned);
  EXPECT_FLOAT_EQ(global_.values()[2], 3);
}

TEST_P(RoundEngineTest, DeadlineCountsTheMissingAsLate) {
  experiment_.round.deadline_s = 5;
  transport_.scripts[2].time = 6;
  const RoundReport report = run();
  EXPECT_EQ(report.cohort[2].outcome, Outcome::late);
  EXPECT_EQ(report.count(Outcome::accepted), 3U);
  EXPECT_DOUBLE_EQ(report.virtual_seconds, 5);
}

TEST_P(RoundEngineTest, ALateAnswerDoesNotCountInTheNextRound) {
  experiment_.round.deadline_s = 5;
  transport_.scripts[2] = {honest({50, 50, 50}), 6};
  run();
  transport_.scripts[2] = {honest({1, 2, 3}), 1};
  global_ = ParameterVector(layout_);
  const RoundReport report = run(2);
  EXPECT_EQ(report.count(Outcome::accepted), 4U);
  EXPECT_FLOAT_EQ(global_.values()[0], 1);
}

TEST_P(RoundEngineTest, OverSelectionClosesWhenEnoughAnswered) {
  experiment_.round.cohort = 2;
  experiment_.round.over_selection = 2;
  transport_.scripts[0].time = 9;
  transport_.scripts[2].time = 8;
  const RoundReport report = run();
  ASSERT_EQ(report.cohort.size(), 4U);
  EXPECT_EQ(report.cohort[1].outcome, Outcome::accepted);
  EXPECT_EQ(report.cohort[3].outcome, Outcome::accepted);
  EXPECT_EQ(report.cohort[0].outcome, Outcome::late);
  EXPECT_EQ(report.cohort[2].outcome, Outcome::late);
}

INSTANTIATE_TEST_SUITE_P(Arrivals, RoundEngineTest, ::testing::Bool(), [](const auto& parameter) { return parameter.param ? "Together" : "OneByOne"; });

}  // namespace
}  // namespace fl
