// A run whose evaluations take as long as the test wants: what waits for them and what does not, and what is left when the run ends meanwhile.

#include "aggregator/engine/federation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <nlohmann/json.hpp>

#include "aggregator/engine/run.h"
#include "fl_core/base/error.h"
#include "fl_core/wire/message.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// Never ends a run.
class OnLooker final : public Observer {
 public:
  explicit OnLooker(const NoOptions&) {}
  Verdict after_round(const RoundReport&) override { return Verdict::go_on; }
  bool may_stop() const override { return false; }
};
FL_REGISTER(observers(), "test_on_looker", OnLooker, NoOptions, "sees rounds and never stops a run, for tests");

/// What happened, in order, as the tests read it: "begin 1" (an evaluation), "send 2" (the first task of a round), "done 1" (its result is
/// there), "wait 1" (the engine waits for it), "give up 1", "commit 2", "complete 1", "round 1" (its observers and lines).
using Log = std::vector<std::string>;

class FederationTest : public testing::Test {
 protected:
  FederationTest() : document_(test::toy_experiment()) {
    document_["partition"]["clients"] = 3;
    document_["rounds"] = 3;
    document_["round"] = {{"cohort", 3}, {"max_abandoned", 2}};
  }

  /// Runs, or goes on with the run. Returns run.json.
  nlohmann::json run() {
    const Experiment experiment = parse_experiment(document_, "test");
    const bool resume = std::filesystem::exists(temporary_ / "run");
    RunFolder folder(temporary_ / "run", resume ? RunFolderMode::resume : RunFolderMode::create, "{}");
    folder.watch_steps([this](const std::string& step) {
      if (step == "round committed") note("commit", committed_++);
      if (step == "report stored") log_.emplace_back("complete");
    });
    const auto last = folder.store().last_round();
    committed_ = last ? last->round + 1 : 0;
    Clients clients(*this);
    RunParts parts(experiment, folder, clients, ParameterVector(layout_));
    parts.population = 3;
    parts.evaluate = [this](const SharedBuffer& weights) { return std::make_unique<Held>(*this, weights); };
    parts.on_round = [this](const RoundReport& report) {
      note("round", report.round);
      accuracies_.push_back(report.accuracy.value_or(-1));
    };
    fl::Run whole(std::move(parts));
    struct Close {
      FederationTest& test;
      RunFolder& folder;
      ~Close() {
        test.open_ = folder.store().incomplete_report().has_value();
        test.hashes_ = folder.store().model_hashes();
      }
    } close{*this, folder};
    return whole.run();
  }

  /// The log from here to there, both included.
  Log between(const std::string& first, const std::string& last) const {
    const auto begin = std::find(log_.begin(), log_.end(), first);
    const auto end = std::find(begin, log_.end(), last);
    return end == log_.end() ? Log{"there is no " + first + " … " + last} : Log(begin, end + 1);
  }

  nlohmann::json document_;
  Log log_;
  std::vector<double> accuracies_;
  std::vector<std::string> hashes_;  ///< of the models, after a run
  bool open_ = false;                ///< after a run: its newest round was not completed
  std::uint32_t done_after_ = 1000;  ///< answers after which an evaluation has its result; when asked for it, it has it at once
  std::function<void(std::uint32_t round)> evaluate_;                ///< may throw
  std::function<bool(std::uint32_t round, ClientId client)> leaves_;
  std::function<void(std::uint32_t round, std::uint32_t answers)> on_wait_;  ///< before the engine is given an answer; may throw

 private:
  /// An evaluation of the round whose weights it was given.
  class Held final : public PendingEvaluation {
   public:
    Held(FederationTest& test, const SharedBuffer& weights) : test_(test), round_(test.committed_ - 1), weights_(weights), left_(test.done_after_) {
      test_.note("begin", round_);
      test_.running_ = this;
    }
    ~Held() override {
      if (test_.running_ != this) return;
      test_.running_ = nullptr;
      test_.note("give up", round_);
    }
    void answer_came() {
      if (left_ > 0 && --left_ == 0) test_.note("done", round_);
    }
    bool ready() override { return left_ == 0; }
    Evaluation result() override {
      if (left_ > 0) test_.note("wait", round_);
      test_.running_ = nullptr;
      if (test_.evaluate_) test_.evaluate_(round_);
      float first = 0;
      std::memcpy(&first, weights_.span().data(), sizeof first);
      Evaluation sums;
      sums.correct = {static_cast<std::int64_t>(first)};  // the clients add 1 a round
      sums.examples = {10};
      return sums;
    }

   private:
    FederationTest& test_;
    std::uint32_t round_;
    SharedBuffer weights_;
    std::uint32_t left_;
  };

  /// Three clients that move each weight by 1, or leave.
  class Clients final : public Transport {
   public:
    explicit Clients(FederationTest& test) : test_(test) {}
    Roster roster() override { return {3, {}}; }
    void send(ClientId client, const Message& message) override {
      if (client == 0) test_.note(message.type() == MessageType::train ? "send" : "measure", message.round());
      std::optional<Message> answer;
      const Task task = parse_task(message, *test_.layout_);
      const std::vector<float> delta(test_.layout_->size(), 1);
      if (!test_.leaves_ || !test_.leaves_(message.round(), client)) {
        answer = encode_update({task.round, task.model_version, task.fingerprint, 1, 1, {1, 1, 0}, "identity"}, SharedBuffer::copy_of(std::as_bytes(std::span(delta))));
      }
      arrivals_.push_back({answer ? Arrival::Kind::message : Arrival::Kind::left, client, message.round(), 0, std::move(answer)});
    }
    std::optional<Arrival> wait(Seconds) override {
      Arrival first = std::move(arrivals_.at(0));
      arrivals_.pop_front();
      if (test_.on_wait_) test_.on_wait_(first.round, answers_);
      ++answers_;
      if (test_.running_ != nullptr) test_.running_->answer_came();
      return first;
    }
    void close_round(std::uint32_t) override { answers_ = 0; }
    Seconds now() const override { return 0; }

   private:
    FederationTest& test_;
    std::deque<Arrival> arrivals_;
    std::uint32_t answers_ = 0;  ///< of this round
  };

  void note(const char* what, std::uint64_t round) { log_.push_back(std::string(what) + " " + std::to_string(round)); }

  test::TemporaryFolder temporary_;
  SharedLayout layout_ = std::make_shared<Layout>(std::vector<Slot>{{"w", {4}, SlotKind::weight}});
  std::uint32_t committed_ = 0;  ///< the round that is committed next
  Held* running_ = nullptr;
};

TEST_F(FederationTest, TheNextRoundRunsWhileAModelIsEvaluated) {
  const nlohmann::json summary = run();
  EXPECT_THAT(between("commit 1", "round 3"),
              ElementsAre("commit 1", "begin 1", "send 2", "wait 1", "complete", "round 1",    //
                          "commit 2", "begin 2", "send 3", "wait 2", "complete", "round 2",    //
                          "commit 3", "begin 3", "wait 3", "complete", "round 3"));
  EXPECT_THAT(accuracies_, ElementsAre(0.1, 0.2, 0.3)) << "each is of its own round's model";
  EXPECT_EQ(summary.at("accuracy"), 0.3);
  EXPECT_FALSE(open_);
}

TEST_F(FederationTest, ARoundIsCompletedAsSoonAsItsEvaluationIsThere) {
  done_after_ = 2;
  on_wait_ = [this](std::uint32_t round, std::uint32_t answers) {
    if (round == 2) log_.push_back("answer " + std::to_string(answers));
  };
  run();
  EXPECT_THAT(between("commit 1", "commit 2"),
              ElementsAre("commit 1", "begin 1", "send 2", "answer 0", "answer 1", "done 1", "complete", "round 1", "answer 2", "commit 2"));
}

TEST_F(FederationTest, OnlyOnesThatAreDueAreBegun) {
  document_["evaluation"] = {{"every", 2}};
  run();
  EXPECT_THAT(between("commit 1", "commit 3"),
              ElementsAre("commit 1", "complete", "round 1", "send 2", "commit 2", "begin 2", "send 3", "wait 2", "complete", "round 2", "commit 3"));
}

TEST_F(FederationTest, ARoundWaitsForTheOneBeforeWhenAnObserverMayStopTheRun) {
  document_["observers"] = {{{"name", "early_stop"}, {"target", 0.2}}};
  EXPECT_EQ(run().at("status"), "stopped_early");
  EXPECT_THAT(between("commit 1", "round 2"),
              ElementsAre("commit 1", "begin 1", "wait 1", "complete", "round 1", "send 2", "commit 2", "begin 2", "wait 2", "complete", "round 2"));
  EXPECT_EQ(log_.back(), "round 2");
}

TEST_F(FederationTest, AnObserverThatOnlyLooksOnHoldsNothingUp) {
  document_["observers"] = {{{"name", "test_on_looker"}}};
  run();
  EXPECT_THAT(between("begin 1", "wait 1"), ElementsAre("begin 1", "send 2", "wait 1"));
}

TEST_F(FederationTest, ARoundWaitsForTheOneBeforeWhenClientsMeasure) {
  document_["evaluation"] = {{"per_client_every", 2}, {"per_client_count", 3}, {"client_holdout", 0.2}};
  run();
  EXPECT_THAT(between("commit 2", "send 3"), ElementsAre("commit 2", "begin 2", "wait 2", "measure 2", "complete", "round 2", "send 3"));
}

TEST_F(FederationTest, ARunThatGivesUpDoesNotBeginAnotherRound) {
  leaves_ = [](std::uint32_t, ClientId) { return true; };
  EXPECT_THAT(test::error_of([&] { run(); }), HasSubstr("gave up after 2 abandoned rounds"));
  EXPECT_THAT(between("commit 1", "round 2"),
              ElementsAre("commit 1", "begin 1", "send 2", "wait 1", "complete", "round 1", "commit 2", "begin 2", "wait 2", "complete", "round 2"));
  EXPECT_EQ(log_.back(), "round 2");
}

TEST_F(FederationTest, AnEvaluationThatFailsEndsTheRunWithItsError) {
  evaluate_ = [](std::uint32_t round) {
    if (round == 1) throw IoError("the test set is gone");
  };
  EXPECT_EQ(test::error_of([&] { run(); }), "the test set is gone");
  EXPECT_TRUE(open_);
  EXPECT_THAT(hashes_, testing::SizeIs(2)) << "round 2 must not be committed while round 1 is open";
  EXPECT_THAT(accuracies_, IsEmpty());
  evaluate_ = nullptr;
  EXPECT_EQ(run().at("status"), "finished");
  EXPECT_THAT(accuracies_, ElementsAre(0.1, 0.2, 0.3));
}

TEST_F(FederationTest, OneThatFailsInTheMiddleOfTheNextRoundEndsItToo) {
  done_after_ = 1;
  evaluate_ = [](std::uint32_t) { throw IoError("the test set is gone"); };
  EXPECT_EQ(test::error_of([&] { run(); }), "the test set is gone");
  EXPECT_EQ(log_.back(), "done 1");
  EXPECT_TRUE(open_);
}

TEST_F(FederationTest, AnInterruptedRunGivesItsEvaluationUpAndGoesOnWithIt) {
  on_wait_ = [](std::uint32_t round, std::uint32_t answers) {
    if (round == 2 && answers == 1) throw Interrupted("Ctrl-C");
  };
  EXPECT_THAT(test::error_of([&] { run(); }), HasSubstr("interrupted after round 1 of 3"));
  EXPECT_EQ(log_.back(), "give up 1");
  EXPECT_TRUE(open_);
  on_wait_ = nullptr;
  log_.clear();
  EXPECT_EQ(run().at("status"), "finished");
  EXPECT_THAT(between("begin 1", "commit 2"), ElementsAre("begin 1", "send 2", "wait 1", "complete", "round 1", "commit 2"));
  EXPECT_THAT(accuracies_, ElementsAre(0.1, 0.2, 0.3));
}

TEST_F(FederationTest, AnInterruptedRunKeepsAnEvaluationThatIsThere) {
  done_after_ = 0;  // there at once, and nobody has looked yet
  on_wait_ = [](std::uint32_t round, std::uint32_t) {
    if (round == 2) throw Interrupted("Ctrl-C");
  };
  EXPECT_THAT(test::error_of([&] { run(); }), HasSubstr("interrupted after round 1 of 3"));
  EXPECT_EQ(log_.back(), "round 1");
  EXPECT_FALSE(open_);
}

TEST_F(FederationTest, ARunThatFailsInTheNextRoundCompletesTheOneBefore) {
  on_wait_ = [](std::uint32_t round, std::uint32_t answers) {
    if (round == 2 && answers == 1) throw IoError("the network is gone");
  };
  EXPECT_EQ(test::error_of([&] { run(); }), "the network is gone");
  EXPECT_THAT(between("send 2", "round 1"), ElementsAre("send 2", "wait 1", "complete", "round 1"));
  EXPECT_FALSE(open_);
}

TEST_F(FederationTest, TheFirstErrorIsTheOneThatIsTold) {
  on_wait_ = [](std::uint32_t round, std::uint32_t) {
    if (round == 2) throw IoError("the network is gone");
  };
  evaluate_ = [](std::uint32_t) { throw IoError("the test set is gone"); };
  EXPECT_EQ(test::error_of([&] { run(); }), "the network is gone");
  EXPECT_TRUE(open_);
}

}  // namespace
}  // namespace fl
