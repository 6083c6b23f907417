#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "simulations/cli/report.h"
#include "tests/report/sample_runs.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::complete_run;
using test::round_of;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

TEST(ReadRun, ReadsWhatARunWrote) {
  const test::TemporaryFolder folder;
  const RunData run = complete_run();
  write(folder / "experiment.json", run.experiment.dump());
  write(folder / "run.json", run.run.dump());
  write(folder / "partition.json", run.partition->dump());
  write(folder / "metrics.jsonl", to_json(run.rounds[0]).dump() + "\n" + to_json(run.rounds[1]).dump() + "\n");
  RunData read = read_run(folder.path());
  EXPECT_EQ(read.folder, folder.path().string());
  read.folder = run.folder;
  EXPECT_EQ(render_report({read}), render_report({run}));
}

TEST(ReadRun, NeedsOnlyTheExperiment) {
  const test::TemporaryFolder folder;
  write(folder / "experiment.json", "{\"name\": \"x\"}");
  const RunData run = read_run(folder.path());
  EXPECT_TRUE(run.run.is_null());
  EXPECT_TRUE(run.rounds.empty());
  EXPECT_FALSE(run.partition.has_value());
}

TEST(ReadRun, LeavesOutALineThatIsStillBeingWritten) {
  const test::TemporaryFolder folder;
  write(folder / "experiment.json", "{}");
  const std::string line = to_json(round_of(1, 0.5, kNan)).dump();
  write(folder / "metrics.jsonl", line + "\n" + line.substr(0, 40));
  const RunData run = read_run(folder.path());
  ASSERT_EQ(run.rounds.size(), 1U);
  EXPECT_TRUE(std::isnan(*run.rounds[0].loss));
}

TEST(ReadRun, KeepsTheLaterReportOfARoundThatWasRunAgain) {
  const test::TemporaryFolder folder;
  write(folder / "experiment.json", "{}");
  std::string lines;
  for (const auto& [number, accuracy] : {std::pair{1U, 0.1}, {2U, 0.2}, {3U, 0.3}, {2U, 0.4}})
    lines += to_json(round_of(number, accuracy, 1)).dump() + "\n";
  write(folder / "metrics.jsonl", lines);
  const RunData run = read_run(folder.path());
  ASSERT_EQ(run.rounds.size(), 3U);
  EXPECT_EQ(run.rounds[1].round, 2U);
  EXPECT_EQ(run.rounds[1].accuracy, 0.4);
}

TEST(ReadRun, NamesTheFileAndTheLineThatIsWrong) {
  const test::TemporaryFolder folder;
  const std::string path = folder.path().string();
  EXPECT_THAT(test::error_of([&] { read_run(folder / "nowhere"); }), HasSubstr("nowhere: no such folder"));
  EXPECT_THROW(read_run(folder / "nowhere"), IoError);
  EXPECT_THAT(test::error_of([&] { read_run(folder.path()); }),
              StartsWith(path + " is not a run folder: it has no experiment.json"));
  EXPECT_THROW(read_run(folder.path()), ConfigError);
  write(folder / "experiment.json", "[1]");
  EXPECT_EQ(test::error_of([&] { read_run(folder.path()); }), path + "/experiment.json: got [1], expected an object");
  EXPECT_THAT(test::error_of([&] { read_run(folder / "experiment.json"); }), HasSubstr("is not a run folder"));
  write(folder / "experiment.json", "{}");
  write(folder / "metrics.jsonl", to_json(round_of(1, 0.5, 1)).dump() + "\n{\"round\": -1}\n");
  EXPECT_THAT(test::error_of([&] { read_run(folder.path()); }), StartsWith(path + "/metrics.jsonl:2: "));
  write(folder / "metrics.jsonl", "{\n");
  EXPECT_THAT(test::error_of([&] { read_run(folder.path()); }), StartsWith(path + "/metrics.jsonl:1:"));
}

}  // namespace
}  // namespace fl
