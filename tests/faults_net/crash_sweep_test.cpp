// The aggregator is killed at every write, fsync, rename, link, unlink and truncation in its run folder.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "aggregator/engine/checkpoint.h"
#include "tests/net_support/net/loopback.h"
#include "tests/net_support/net/test_programs.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

namespace fs = std::filesystem;
using test::ChildProcess;
using test::Crash;
using test::Loopback;

/// Three clients, three rounds, and a server state beside the model.
nlohmann::json experiment() {
  nlohmann::json document = test::toy_experiment();
  document["partition"] = {{"name", "iid"}, {"clients", 3}};
  document["rounds"] = 3;
  document["round"] = {{"cohort", 3}};
  document["strategy"] = {{"name", "fedopt"}, {"optimizer", "adam"}, {"learning_rate", 0.01}};
  return document;
}

/// The same under a promise of differential privacy: each round is charged before it is asked for.
nlohmann::json private_experiment() {
  nlohmann::json document = experiment();
  document["round"]["weighting"] = "uniform";
  document["privacy"] = {{"mechanism", {{"name", "central_gaussian"}, {"clip_norm", 0.5}}}, {"noise_multiplier", 1.0}, {"delta", 1e-5}, {"randomness", "seeded"}};
  return document;
}

/// Of every so many crash points one is tried; all of them when FL_WHOLE_SWEEP is set (ctest -L slow).
long stride() { return std::getenv("FL_WHOLE_SWEEP") != nullptr ? 1 : 12; }

class CrashSweep : public testing::Test {
 protected:
  /// Rounds that the aggregator reported.
  static std::uint32_t reported(const ChildProcess& server) {
    std::uint32_t rounds = 0;
    for (const std::string& line : server.lines()) rounds += line.rfind("{\"abandoned\"", 0) == 0 ? 1 : 0;
    return rounds;
  }

  /// What is on disk after a crash, looked at in a copy: opening it puts things right.
  void expect_whole_version(const fs::path& run, std::uint32_t k) const {
    const test::TemporaryFolder temporary;
    const fs::path copy = temporary / "run";
    fs::copy(run, copy, fs::copy_options::recursive);
    if (k == 0 && !fs::exists(copy / "experiment.json") && !fs::exists(copy / "journal.db")) return;  // it died before it was a run
    try {
      RunFolder folder(copy, RunFolderMode::resume);
      const auto last = folder.store().last_round();
      if (!last) {
        EXPECT_EQ(k, 0U);
        return;
      }
      EXPECT_TRUE(last->round == k || last->round == k + 1) << "version " << last->round << " after " << k << " rounds were reported";
      EXPECT_EQ(last->model_sha256, expected_.at(last->round));
      const bool charged = !folder.ledger().empty();
      const auto spent = charged ? folder.ledger().back().charge.at("round").get<std::uint32_t>() : 0;
      EXPECT_TRUE(!document_.contains("privacy") || spent >= last->round) << "released " << last->round << ", charged " << spent;
      folder.read_blob(last->model_sha256);
      if (last->state_sha256) folder.read_blob(*last->state_sha256);
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
    }
  }

  /// Runs the federation; the aggregator dies at the crash and is started again. False when the crash point was never reached.
  bool run(const Crash& crash) {
    Loopback federation(document_);
    auto server = spawn_server(federation, crash);
    federation.start_clients(0, 3);
    int code = server->wait();
    const bool struck = code == -SIGKILL;
    if (struck) {
      expect_whole_version(federation.config().folder, reported(*server));
      server = spawn_server(federation);
      code = server->wait();
    }
    EXPECT_EQ(code, 0) << server->last_line();
    EXPECT_EQ(federation.model_hashes(), expected_);
    return struck;
  }

  void sweep(bool half, long first) {
    long tried = 0;
    for (long at = first;; at += stride()) {
      SCOPED_TRACE("killed at change " + std::to_string(at));
      if (!run({at, half, ""})) break;
      ++tried;
      if (HasFailure()) return;
    }
    EXPECT_GE(tried * stride(), 60) << "three rounds make more changes than that";
  }

  /// What is run.
  void use(const nlohmann::json& document) {
    document_ = document;
    expected_ = test::simulated_hashes(document, 1);
  }

  nlohmann::json document_ = experiment();
  std::vector<std::string> expected_ = test::simulated_hashes(experiment(), 1);
};

TEST_F(CrashSweep, AnUndisturbedProcessGivesTheSimulationsModels) { EXPECT_FALSE(run({})); }

TEST_F(CrashSweep, KilledBeforeAChange) { sweep(false, 1); }

TEST_F(CrashSweep, KilledInTheMiddleOfAWrite) { sweep(true, 1 + stride() / 2); }

TEST_F(CrashSweep, UnderAPromiseWhatWasSpentIsNeverLessThanWhatWasReleased) {
  use(private_experiment());
  EXPECT_FALSE(run({})) << "the control";
  sweep(false, 1 + stride() / 3);
}

}  // namespace
}  // namespace fl
