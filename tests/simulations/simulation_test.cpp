#include "simulations/simulation.h"

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "aggregator/store/journal.h"
#include "fl_core/config/json_reader.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

/// Runs the toy federation in a folder of its own.
class SimulationTest : public ::testing::Test {
 protected:
  SimulationTest() : document_(test::toy_experiment()) {}

  nlohmann::json run(std::size_t workers = 1, const std::string& folder = "", bool resume = false) {
    const Prepared prepared = prepare(parse_experiment(document_, "test"));
    SimulationOptions options;
    options.workers = workers;
    options.folder = temporary_ / (folder.empty() ? "run" + std::to_string(++runs_) : folder);
    options.resume = resume;
    options.on_round = [&](const RoundReport& report) { reports_.push_back(report); };
    options.should_stop = [&] { return stop_ && stop_(); };
    reports_.clear();
    return run_simulation(prepared, options);
  }
  std::string hash(std::size_t workers = 1) { return run(workers).at("model_sha256"); }
  std::size_t metric_lines(const std::string& folder) {
    std::ifstream file(temporary_ / folder / "metrics.jsonl");
    std::size_t lines = 0;
    for (std::string line; std::getline(file, line);) ++lines;
    return lines;
  }

  test::TemporaryFolder temporary_;
  nlohmann::json document_;
  std::vector<RoundReport> reports_;
  std::function<bool()> stop_;
  int runs_ = 0;
};

TEST_F(SimulationTest, LearnsTheSyntheticTask) {
  document_["rounds"] = 15;
  const auto summary = run();
  EXPECT_EQ(summary.at("status"), "finished");
  EXPECT_GT(summary.at("accuracy").get<double>(), 0.6);  // four classes: chance is 0.25
  EXPECT_EQ(summary.at("rounds"), 15);
}

TEST_F(SimulationTest, SameBitsForAnyNumberOfWorkersAndEveryRun) {
  const std::string one = hash(1);
  EXPECT_EQ(hash(1), one);
  EXPECT_EQ(hash(2), one);
  EXPECT_EQ(hash(4), one);
  document_["seed"] = 4;
  EXPECT_NE(hash(1), one);
}

/// What the rounds came to, but for their wall time.
std::string results_of(const std::vector<RoundReport>& reports) {
  std::string text;
  for (RoundReport report : reports) {
    report.wall_seconds = report.wall_seconds_evaluation = report.wall_seconds_evaluation_alone = 0;
    text += to_json(report).dump() + "\n";
  }
  return text;
}

TEST_F(SimulationTest, SameBitsWhetherRoundsRunWhileModelsAreEvaluatedOrNot) {
  document_["rounds"] = 8;
  document_["data"]["test_examples"] = 2100;  // nine parts
  document_["observers"] = {{{"name", "early_stop"}, {"target", 2.0}}};  // an accuracy that cannot be: it never stops the run, but might
  const std::string one_after_the_other = hash(1);
  const std::string expected = results_of(reports_);
  for (const RoundReport& report : reports_) ASSERT_TRUE(report.accuracy.has_value());
  EXPECT_EQ(hash(3), one_after_the_other);
  EXPECT_EQ(results_of(reports_), expected);
  document_.erase("observers");
  for (const std::size_t workers : {1U, 2U, 3U}) {
    EXPECT_EQ(hash(workers), one_after_the_other);
    EXPECT_EQ(results_of(reports_), expected) << workers << " workers";
  }
}

TEST_F(SimulationTest, InterruptedWhileAModelIsEvaluatedThenResumedGivesTheSameReports) {
  document_["rounds"] = 6;
  document_["data"]["test_examples"] = 20000;  // takes longer than a round
  const std::string whole = hash(2);
  const std::string expected = results_of(reports_);
  int open = 0;
  for (int polls = 10; polls < 120; polls += 13) {
    const std::string folder = "open" + std::to_string(polls);
    std::atomic<int> left = polls;
    stop_ = [&] { return --left < 0; };
    std::vector<RoundReport> before;
    try {
      run(2, folder);
    } catch (const Interrupted&) {
      before = reports_;
      if (open_journal(temporary_ / folder / "journal.db", JournalMode::read)->incomplete_report()) ++open;
      stop_ = nullptr;
      EXPECT_EQ(run(1, folder, true).at("model_sha256"), whole);
    }
    stop_ = nullptr;
    before.insert(before.end(), reports_.begin(), reports_.end());
    EXPECT_EQ(results_of(before), expected) << "interrupted after " << polls << " polls";
    EXPECT_EQ(metric_lines(folder), 6U);
  }
  EXPECT_GT(open, 0) << "no evaluation was cut: nothing was shown";
}

TEST_F(SimulationTest, NoSecondIsCountedTwice) {
  document_["data"]["test_examples"] = 2100;
  const auto summary = run(2);
  double seconds = 0;
  for (const RoundReport& report : reports_) {
    EXPECT_LE(report.wall_seconds_evaluation_alone, report.wall_seconds_evaluation);
    seconds += report.wall_seconds + report.wall_seconds_evaluation_alone;
  }
  EXPECT_DOUBLE_EQ(summary.at("seconds").get<double>(), seconds);
}

TEST_F(SimulationTest, SameBitsWithStragglersDeadlinesAndFailures) {
  document_["rounds"] = 10;
  document_["round"] = {{"cohort", 4}, {"over_selection", 1.5}, {"deadline_s", 2}, {"minimum_updates", 2}};
  document_["devices"] = {{"examples_per_s", 20}, {"speed_spread", 1}, {"failure_probability", 0.2}};
  document_["codec"] = {{"name", "fp16"}};
  const std::string one = hash(1);
  std::size_t late = 0;
  std::size_t left = 0;
  for (const RoundReport& report : reports_) {
    late += report.count(Outcome::late);
    left += report.count(Outcome::left);
  }
  EXPECT_GT(late, 0U);
  EXPECT_GT(left, 0U);
  const auto expected = reports_;
  EXPECT_EQ(hash(3), one);
  ASSERT_EQ(reports_.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(reports_[i].virtual_seconds, expected[i].virtual_seconds);
    EXPECT_EQ(reports_[i].bytes_up, expected[i].bytes_up);
  }
}

TEST_F(SimulationTest, PoissonCohortsVaryAndStayReproducible) {
  document_["sampler"] = {{"name", "poisson"}};
  document_["rounds"] = 8;
  const std::string one = hash(1);
  std::set<std::size_t> sizes;
  for (const RoundReport& report : reports_) sizes.insert(report.cohort.size());
  EXPECT_GT(sizes.size(), 1U);
  EXPECT_EQ(hash(4), one);
}

TEST_F(SimulationTest, InterruptedAnywhereThenResumedGivesTheSameBits) {
  document_["rounds"] = 6;
  document_["strategy"] = {{"name", "fedopt"}, {"optimizer", "adam"}};
  document_["evaluation"] = {{"per_client_every", 2}, {"per_client_count", 5}, {"client_holdout", 0.2}};
  document_["devices"] = {{"examples_per_s", 20}};
  const std::string whole = hash(1);
  const auto expected = reports_;
  for (int polls = 1; polls < 120; polls += 7) {
    const std::string folder = "cut" + std::to_string(polls);
    std::atomic<int> left = polls;  // polled by the engine and by workers
    stop_ = [&] { return --left < 0; };
    std::string result;
    try {
      result = run(1, folder).at("model_sha256");
    } catch (const Interrupted&) {
      const auto summary = read_json_file(temporary_ / folder / "run.json");
      EXPECT_EQ(summary.at("status"), "interrupted");
      // Also when its evaluation was interrupted, a committed round counts.
      EXPECT_EQ(summary.at("rounds"), open_journal(temporary_ / folder / "journal.db", JournalMode::read)->last_round()->round);
      stop_ = nullptr;
      result = run(2, folder, true).at("model_sha256");
    }
    EXPECT_EQ(result, whole) << "interrupted after " << polls << " polls";
    EXPECT_EQ(metric_lines(folder), expected.size());
    if (!reports_.empty()) {
      EXPECT_EQ(reports_.back().virtual_seconds, expected.back().virtual_seconds);
    }
  }
}

TEST_F(SimulationTest, ManyIdenticalClientsMakeTheModelOfOneExactly) {
  // With a single example in the world, clients differ in nothing but their number: the shuffle has nothing to reorder.
  document_["data"]["examples"] = 1;
  document_["trainer"]["epochs"] = 3;
  document_["partition"] = {{"name", "iid"}, {"clients", 1}, {"samples_per_client", 1}};
  document_["round"] = {{"cohort", 1}};
  const std::string one = hash(1);
  document_["partition"]["clients"] = 7;
  document_["round"]["cohort"] = 7;
  EXPECT_EQ(hash(2), one);
}

TEST_F(SimulationTest, EarlyStopEndsTheRunAndAFinishedRunResumesToNothing) {
  document_["rounds"] = 50;
  document_["observers"] = {{{"name", "early_stop"}, {"target", 0.3}}};
  const auto summary = run(1, "early");
  EXPECT_EQ(summary.at("status"), "stopped_early");
  EXPECT_LT(summary.at("rounds").get<int>(), 50);
  const auto again = run(1, "early", true);
  EXPECT_EQ(again.at("model_sha256"), summary.at("model_sha256"));
  EXPECT_EQ(again.at("rounds"), summary.at("rounds"));
}

TEST_F(SimulationTest, DivergenceEndsTheRunWithTheReason) {
  document_["trainer"]["learning_rate"] = 1e6;
  document_["round"]["max_abandoned"] = 2;
  const std::string message = test::error_of([&] { run(1, "diverged"); });
  EXPECT_NE(message.find("2 abandoned rounds"), std::string::npos) << message;
  EXPECT_NE(message.find("learning_rate"), std::string::npos) << message;
  EXPECT_EQ(read_json_file(temporary_ / "diverged" / "run.json").at("status"), "failed");
}

TEST_F(SimulationTest, RefusesAFolderThatHoldsSomething) {
  run(1, "taken");
  const std::string message = test::error_of([&] { run(1, "taken"); });
  EXPECT_NE(message.find("fl resume"), std::string::npos) << message;
}

TEST_F(SimulationTest, RefusesToGoOnWithOtherData) {
  document_["rounds"] = 2;
  run(1, "data");
  document_["data"]["examples"] = 401;
  const std::string message = test::error_of([&] { run(1, "data", true); });
  EXPECT_NE(message.find("data: the files have changed"), std::string::npos) << message;
}

TEST_F(SimulationTest, RefusesToGoOnWithAnotherExperimentButTakesMoreRounds) {
  document_["rounds"] = 4;
  const std::string four = run(1, "whole").at("model_sha256");
  document_["rounds"] = 2;
  run(1, "grown");
  document_["trainer"]["learning_rate"] = 0.2;
  const std::string message = test::error_of([&] { run(1, "grown", true); });
  EXPECT_NE(message.find("experiment.json was changed"), std::string::npos) << message;
  document_["trainer"]["learning_rate"] = 0.1;
  document_["rounds"] = 4;
  EXPECT_EQ(run(1, "grown", true).at("model_sha256"), four);
}

TEST_F(SimulationTest, CohortAboveThePopulationIsAnError) {
  document_["round"]["cohort"] = 21;
  const std::string message = test::error_of([&] { run(); });
  EXPECT_NE(message.find("round.cohort: got 21, expected at most the number of clients (20)"), std::string::npos) << message;
}

TEST_F(SimulationTest, PerClientEvaluationReportsHeldOutAccuracies) {
  document_["evaluation"] = {{"per_client_every", 2}, {"per_client_count", 8}, {"client_holdout", 0.2}};
  run(2);
  EXPECT_TRUE(reports_[0].client_accuracy.empty());
  EXPECT_EQ(reports_[1].client_accuracy.size(), 8U);
  EXPECT_TRUE(std::is_sorted(reports_[1].client_accuracy.begin(), reports_[1].client_accuracy.end()));
}

}  // namespace
}  // namespace fl
