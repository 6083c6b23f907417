#include "simulations/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "aggregator/engine/checkpoint.h"
#include "fl_core/base/error.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using ::testing::HasSubstr;

/// Every file below a folder with its bytes.
std::map<std::string, std::string> contents_of(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ostringstream bytes;
    bytes << std::ifstream(entry.path(), std::ios::binary).rdbuf();
    files[entry.path().string()] = bytes.str();
  }
  return files;
}

/// Records a run of the toy federation and replays it.
class ReplayTest : public ::testing::Test {
 protected:
  ReplayTest() : document_(test::toy_experiment()), folder_(temporary_ / "run") {}

  nlohmann::json record(const SimulationOptions& changes = {}) {
    const Prepared prepared = prepare(parse_experiment(document_, "test"));
    SimulationOptions options = changes;
    options.folder = folder_;
    return run_simulation(prepared, options);
  }
  /// Every client answers late or not at all now and then, and more are asked than are needed.
  void use_stragglers() {
    document_["rounds"] = 8;
    document_["round"] = {{"cohort", 4}, {"over_selection", 1.5}, {"deadline_s", 2}, {"minimum_updates", 2}};
    document_["devices"] = {{"examples_per_s", 20}, {"speed_spread", 1}, {"failure_probability", 0.3}};
  }
  std::optional<ReplayDifference> replayed(std::size_t workers = 1) {
    const RecordedRun recorded = read_recorded_run(folder_);
    const Prepared prepared = prepare(replay_experiment(recorded));
    ReplayOptions options;
    options.workers = workers;
    options.on_round = [&](std::uint32_t round, const std::string& sha256) {
      agreed_.push_back(round);
      last_ = sha256;
    };
    agreed_.clear();
    return replay(recorded, prepared, options);
  }
  std::size_t agreed() const { return agreed_.size(); }
  void change_recorded_experiment(const char* path, const nlohmann::json& value) {
    const auto file = folder_ / "experiment.json";
    nlohmann::json document = nlohmann::json::parse(std::ifstream(file));
    document[nlohmann::json::json_pointer(path)] = value;
    std::ofstream(file) << document.dump();
  }

  test::TemporaryFolder temporary_;
  nlohmann::json document_;
  std::filesystem::path folder_;
  std::vector<std::uint32_t> agreed_;
  std::string last_;
};

TEST_F(ReplayTest, AgreesWithARunInEveryRound) {
  const auto summary = record();
  EXPECT_FALSE(replayed());
  EXPECT_EQ(agreed_, (std::vector<std::uint32_t>{1, 2, 3, 4}));
  EXPECT_EQ(last_, summary.at("model_sha256"));
}

TEST_F(ReplayTest, LeavesOutWhoWasNotAcceptedAndNeedsNoClock) {
  use_stragglers();
  record();
  std::size_t missing = 0;
  for (const RoundReport& round : read_recorded_run(folder_).rounds) missing += round.cohort.size() - round.count(Outcome::accepted);
  ASSERT_GT(missing, 0U) << "nobody was late or gone: the test shows nothing";
  EXPECT_FALSE(replayed(1));
  EXPECT_FALSE(replayed(3));
  EXPECT_EQ(agreed(), 8U);
}

TEST_F(ReplayTest, TakesServerStateWeightingAndCodecFromTheRecord) {
  use_stragglers();
  document_["round"]["over_selection"] = 1;  // a poisson cohort varies by itself
  document_["round"]["weighting"] = "uniform";
  document_["strategy"] = {{"name", "fedopt"}, {"optimizer", "adam"}};
  document_["codec"] = {{"name", "fp16"}};
  document_["sampler"] = {{"name", "poisson"}};
  document_["evaluation"] = {{"client_holdout", 0.2}, {"per_client_every", 2}, {"per_client_count", 3}};
  record();
  EXPECT_FALSE(replayed());
  EXPECT_EQ(agreed(), 8U);
}

TEST_F(ReplayTest, UsesTheRecordedScaleOfTheExactSum) {
  SimulationOptions options;
  // T = 2^20: s = min(51 - 22, 63 - 22 - 20) = 21 instead of 29, so means are rounded more coarsely.
  options.max_updates = 1U << 20U;
  record(options);
  EXPECT_FALSE(replayed());
  EXPECT_EQ(agreed(), 4U);
}

TEST_F(ReplayTest, ReplaysAbandonedRounds) {
  document_["rounds"] = 6;
  document_["round"] = {{"cohort", 4}, {"minimum_updates", 4}, {"max_abandoned", 6}};
  document_["devices"] = {{"failure_probability", 0.15}};
  record();
  std::size_t abandoned = 0;
  for (const RoundReport& round : read_recorded_run(folder_).rounds) abandoned += round.abandoned ? 1U : 0U;
  ASSERT_GT(abandoned, 0U);
  ASSERT_LT(abandoned, 6U);
  EXPECT_FALSE(replayed());
  EXPECT_EQ(agreed(), 6U);
}

TEST_F(ReplayTest, ReplaysARunThatWasStoppedByAnObserverOrByTheUser) {
  document_["rounds"] = 50;
  std::atomic<int> rounds = 0;
  SimulationOptions options;
  options.on_round = [&](const RoundReport&) { ++rounds; };
  options.should_stop = [&] { return rounds >= 3; };
  EXPECT_THROW(record(options), Interrupted);
  EXPECT_FALSE(replayed());
  // Round 3 was completed while round 4 ran, which may have come to its end.
  EXPECT_GE(agreed(), 3U);
  EXPECT_LE(agreed(), 4U);
}

TEST_F(ReplayTest, ReplaysARoundWhoseReportWasNeverCompleted) {
  SimulationOptions options;
  record(options);
  {
    RunFolder folder(folder_, RunFolderMode::resume);
    CommittedRound next = *folder.store().last_round();
    RoundReport report;
    report.round = next.round = 5;
    report.model_version = next.model_version;
    report.abandoned = next.abandoned = true;  // nobody was asked: the model stays
    folder.store().commit_round(next, report);
  }
  EXPECT_FALSE(replayed());
  EXPECT_EQ(agreed(), 5U);
}

TEST_F(ReplayTest, NamesTheFirstRoundThatDiffers) {
  record();
  change_recorded_experiment("/trainer/learning_rate", 0.2);
  const auto difference = replayed();
  ASSERT_TRUE(difference);
  const RecordedRun recorded = read_recorded_run(folder_);
  EXPECT_EQ(difference->round, 1U);
  EXPECT_EQ(difference->recorded, recorded.model_sha256[1]);
  EXPECT_NE(difference->replayed, recorded.model_sha256[1]);
  EXPECT_EQ(difference->replayed.size(), 64U);
  EXPECT_THAT(difference->why, HasSubstr("other data than experiment.json says"));
  EXPECT_EQ(agreed(), 0U);
}

TEST_F(ReplayTest, SaysWhichClientDiffersInWhat) {
  record();
  const ClientId member = read_recorded_run(folder_).rounds[0].cohort[0].client;
  change_recorded_experiment("/trainer/learning_rate", 1e6);  // the loss is soon no finite number
  const auto difference = replayed();
  ASSERT_TRUE(difference);
  EXPECT_THAT(difference->why, HasSubstr("client " + std::to_string(member) + " was accepted then and is failed now"));
}

TEST_F(ReplayTest, SaysWhenTheDataAreOthers) {
  record();
  change_recorded_experiment("/data/examples", 401);
  const auto difference = replayed();
  ASSERT_TRUE(difference);
  EXPECT_THAT(difference->why, HasSubstr("not those that the run began with"));
}

TEST_F(ReplayTest, SaysWhenTheInitialModelIsAnother) {
  record();
  change_recorded_experiment("/seed", 4);  // seeds the initial weights
  const auto difference = replayed();
  ASSERT_TRUE(difference);
  EXPECT_EQ(difference->round, 0U);
}

TEST_F(ReplayTest, RefusesClientsThatThePartitionDoesNotHave) {
  record();
  ClientId most = 0;
  for (const RoundReport& round : read_recorded_run(folder_).rounds) most = std::max(most, round.cohort.back().client);
  change_recorded_experiment("/partition/clients", most);  // ids 0 … most - 1
  EXPECT_THAT(test::error_of([&] { replayed(); }), HasSubstr("client " + std::to_string(most) + " took part in round "));
}

TEST_F(ReplayTest, DoesNotTouchTheRecordedRun) {
  record();
  const auto before = contents_of(folder_);
  EXPECT_FALSE(replayed());
  EXPECT_EQ(contents_of(folder_), before);
}

TEST_F(ReplayTest, RefusesAFolderThatAProcessWorksOn) {
  record();
  const RunFolder busy(folder_, RunFolderMode::resume);
  EXPECT_THAT(test::error_of([&] { replayed(); }), HasSubstr("another process works on this run"));
}

TEST_F(ReplayTest, RefusesWhatIsNoRunAndARunWithoutARound) {
  EXPECT_THAT(test::error_of([&] { replayed(); }), HasSubstr("not a run folder"));
  SimulationOptions options;
  options.should_stop = [] { return true; };
  EXPECT_THROW(record(options), Interrupted);
  EXPECT_THAT(test::error_of([&] { replayed(); }), HasSubstr("nothing to replay"));
}

TEST_F(ReplayTest, CanBeInterrupted) {
  record();
  const RecordedRun recorded = read_recorded_run(folder_);
  const Prepared prepared = prepare(replay_experiment(recorded));
  ReplayOptions options;
  options.should_stop = [] { return true; };
  EXPECT_THROW(replay(recorded, prepared, options), Interrupted);
}

}  // namespace
}  // namespace fl
