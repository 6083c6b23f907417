#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "simulations/in_process.h"
#include "simulations/simulation.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

/// Cohorts of 300 clients with five examples each: workers take many jobs at once.
class ShortJobsTest : public ::testing::Test {
 protected:
  ShortJobsTest() : document_(test::toy_experiment()) {
    document_["data"]["examples"] = 2000;
    document_["partition"]["clients"] = 400;
    document_["round"] = {{"cohort", 300}};
    document_["rounds"] = 3;
  }

  /// The model and all that the rounds report but for their wall time.
  std::string run(std::size_t workers, const std::string& folder = "", bool resume = false) {
    const Prepared prepared = prepare(parse_experiment(document_, "test"));
    SimulationOptions options;
    options.workers = workers;
    options.folder = temporary_ / (folder.empty() ? std::to_string(++runs_) : folder);
    options.resume = resume;
    if (!sums_) options.transport = [](InProcess& transport) -> Transport& { return transport; };
    options.should_stop = [this] { return stop_ && stop_(); };
    std::string rounds;
    options.on_round = [&](const RoundReport& report) {
      RoundReport same = report;
      same.wall_seconds = same.wall_seconds_evaluation = same.wall_seconds_evaluation_alone = 0;
      rounds += to_json(same).dump();
    };
    const std::string hash = run_simulation(prepared, options).at("model_sha256");
    return resume ? hash : hash + rounds;
  }

  test::TemporaryFolder temporary_;
  nlohmann::json document_;
  std::function<bool()> stop_;
  bool sums_ = true;  ///< whether workers add updates up
  int runs_ = 0;
};

TEST_F(ShortJobsTest, GiveTheSameBitsForAnyNumberOfWorkers) {
  const std::string one = run(1);
  EXPECT_EQ(run(2), one);
  EXPECT_EQ(run(5), one);
  sums_ = false;
  EXPECT_EQ(run(1), one);
  EXPECT_EQ(run(3), one);
}

TEST_F(ShortJobsTest, GiveTheSameBitsWithClientsThatAreLateLeaveOrFail) {
  document_["round"] = {{"cohort", 300}, {"deadline_s", 1}, {"minimum_updates", 10}, {"update_bound_bits", -4}};
  document_["devices"] = {{"examples_per_s", 10}, {"speed_spread", 1}, {"failure_probability", 0.2}};
  const std::string one = run(1);
  for (const char* outcome : {"\"late\"", "\"left\"", "\"out_of_bound\"", "\"accepted\""}) EXPECT_NE(one.find(outcome), std::string::npos) << outcome;
  EXPECT_EQ(run(4), one);
  sums_ = false;
  EXPECT_EQ(run(2), one);
}

TEST_F(ShortJobsTest, GoOnAfterAnInterruptionWithinThem) {
  const std::string whole = run(2);
  int cuts = 0;
  for (int polls = 40; polls < 4000; polls = polls * 3 / 2) {
    const std::string folder = "cut" + std::to_string(polls);
    std::atomic<int> left = polls;  // polled by the engine and by workers
    stop_ = [&] { return --left < 0; };
    bool cut = false;
    try {
      EXPECT_EQ(run(3, folder), whole);
    } catch (const Interrupted&) {
      cut = true;
    }
    stop_ = nullptr;
    if (!cut) continue;
    ++cuts;
    EXPECT_EQ(run(2, folder, true), whole.substr(0, 64)) << polls;
  }
  EXPECT_GT(cuts, 4);  // a run polls at least once for each of its 900 jobs
}

}  // namespace
}  // namespace fl
