// Runs on several ranks (threads here, which exchange the letters that MPI carries elsewhere) and their end.

#include "simulations/mpi/cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <functional>
#include <future>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "aggregator/store/journal.h"
#include "fl_core/config/json_reader.h"
#include "simulations/mpi/rank.h"
#include "simulations/simulation.h"
#include "tests/support/local_ranks.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr const char* kVersion = "this build";

std::string fingerprint(const Prepared& prepared) { return prepared.data.train->fingerprint() + prepared.data.test->fingerprint(); }

/// Also where both are withheld.
bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

/// Clients of different sizes, so that it matters who is begun first.
json uneven_experiment(const json& changes = json::object()) {
  json document = test::toy_experiment();
  document["partition"] = {{"name", "quantity"}, {"clients", 20}, {"sigma", 1.0}};
  document["round"] = {{"cohort", 9}};
  document.merge_patch(changes);
  return document;
}

json private_changes(const json& mechanism, const std::string& sampling = "none") {
  json changes = {{"round", {{"weighting", "uniform"}}},
                  {"privacy", {{"mechanism", mechanism}, {"noise_multiplier", 1.2}, {"delta", 1e-5}, {"sampling", sampling}, {"randomness", "seeded"}}}};
  if (sampling == "poisson") {
    changes["sampler"] = {{"name", "poisson"}};
  } else {
    changes["sampler"] = {{"name", "cyclic"}, {"separation", 2}};
    changes["privacy"]["accountant"] = {{"name", "rdp"}};
    changes["privacy"]["adjacency"] = "replace_one";
  }
  return changes;
}

/// A rank that a test plays by hand: it says what it wants, and takes leave when it is told to.
class PlayedRank {
 public:
  /// `on_jobs`: called when it was given its first jobs.
  PlayedRank(Communicator& communicator, std::function<void()> on_jobs) : communicator_(communicator), on_jobs_(std::move(on_jobs)) {}
  /// The next letter about `topic`; others are skipped.
  Letter next(Topic topic) {
    for (;;) {
      auto received = communicator_.poll();
      if (!received) {
        std::this_thread::yield();
        continue;
      }
      const Topic seen = LetterReader(received->letter).topic();
      if (seen == Topic::jobs && on_jobs_) std::exchange(on_jobs_, nullptr)();
      if (seen == topic) return std::move(received->letter);
      EXPECT_NE(seen, Topic::end) << "rank 0 ended too early";
    }
  }
  void say(LetterWriter letter) { communicator_.post(0, letter.finish()); }
  void say_ready(const std::string& data, std::uint64_t workers = 1) { say(std::move(LetterWriter(Topic::ready).text("node7").number(workers).text(data))); }
  void leave() {
    next(Topic::end);
    say(LetterWriter(Topic::bye));
  }

 private:
  Communicator& communicator_;
  std::function<void()> on_jobs_;
};

class ClusterTest : public testing::Test {
 protected:
  struct Outcome {
    json summary;
    std::vector<RoundReport> reports;
    std::size_t broadcasts = 0;
  };

  /// The run on one rank, without a cluster.
  Outcome alone(const json& document, const std::string& folder = "", bool resume = false) {
    return finish(document, folder, resume, 1, nullptr, prepare(parse_experiment(document, "test")));
  }

  /// The run on several ranks with so many workers each.
  Outcome on_ranks(const json& document, const std::vector<std::size_t>& workers, const std::string& folder = "", bool resume = false) {
    test::LocalRanks ranks(workers.size());
    const RankOptions options{0, kVersion, {}, [this] { return others_stop_ && others_stop_(); }};
    std::vector<std::thread> others;
    for (std::size_t rank = 1; rank < workers.size(); ++rank) {
      others.emplace_back([&, rank] {
        RankOptions own = options;
        own.workers = workers[rank];
        serve_rank(ranks.rank(rank), own);
      });
    }
    std::exception_ptr error;
    Outcome outcome;
    {
      Cluster cluster(ranks.rank(0), workers[0], should_stop());
      try {
        cluster.announce(document.dump(), "test", kVersion);
        const Prepared prepared = prepare(parse_experiment(document, "test"));
        cluster.await_ready(fingerprint(prepared));
        outcome = finish(document, folder, resume, workers[0], &cluster, prepared);
      } catch (...) {
        error = std::current_exception();
      }
      EXPECT_EQ(cluster.end(), "");
    }
    for (std::thread& other : others) other.join();
    if (error) std::rethrow_exception(error);
    outcome.broadcasts = ranks.broadcasts();
    return outcome;
  }

  /// Rank 0 with one other rank that `play` plays. Returns the error of the run.
  std::string with_played_rank(const json& document, const std::function<void(PlayedRank&, const std::string& data)>& play, const std::string& folder = "") {
    test::LocalRanks ranks(2);
    const Prepared prepared = prepare(parse_experiment(document, "test"));
    // Rank 0's worker begins after the played rank was given something, or it might be done before.
    std::promise<void> given;
    local_setup_ = [begin = given.get_future().share()] { begin.wait(); };
    std::thread other([&] {
      PlayedRank played(ranks.rank(1), [&] { given.set_value(); });
      play(played, fingerprint(prepared));
    });
    std::string error;
    {
      Cluster cluster(ranks.rank(0), 1, should_stop());
      error = test::error_of([&] {
        cluster.announce(document.dump(), "test", kVersion);
        cluster.await_ready(fingerprint(prepared));
        finish(document, folder, false, 1, &cluster, prepared);
      });
      silent_ = cluster.end();
    }
    other.join();
    local_setup_ = nullptr;
    return error;
  }

  void expect_the_same(const Outcome& one, const Outcome& expected) {
    EXPECT_EQ(one.summary.at("model_sha256"), expected.summary.at("model_sha256"));
    EXPECT_EQ(one.summary.at("accuracy"), expected.summary.at("accuracy"));
    EXPECT_EQ(one.summary.at("loss"), expected.summary.at("loss"));
    ASSERT_EQ(one.reports.size(), expected.reports.size());
    for (std::size_t i = 0; i < expected.reports.size(); ++i) {
      const RoundReport& a = one.reports[i];
      const RoundReport& b = expected.reports[i];
      ASSERT_EQ(a.cohort.size(), b.cohort.size());
      for (std::size_t c = 0; c < b.cohort.size(); ++c) {
        EXPECT_EQ(a.cohort[c].client, b.cohort[c].client);
        EXPECT_EQ(a.cohort[c].outcome, b.cohort[c].outcome);
      }
      EXPECT_EQ(a.bytes_up, b.bytes_up);
      EXPECT_EQ(a.bytes_down, b.bytes_down);
      EXPECT_TRUE(same(a.virtual_seconds, b.virtual_seconds));
      EXPECT_TRUE(same(a.training_loss, b.training_loss));
      EXPECT_EQ(a.examples, b.examples);
      EXPECT_EQ(a.steps, b.steps);
      EXPECT_EQ(a.class_accuracy, b.class_accuracy);
      EXPECT_EQ(a.client_accuracy, b.client_accuracy);
    }
  }

  std::function<bool()> should_stop() {
    return [this] { return stop_ && stop_(); };
  }

  test::TemporaryFolder temporary_;
  std::function<bool()> stop_;
  std::function<bool()> others_stop_;
  std::function<void(const RoundReport&)> on_round_;
  std::function<void()> local_setup_;
  std::string silent_;
  int runs_ = 0;

 private:
  Outcome finish(const json&, const std::string& folder, bool resume, std::size_t workers, Cluster* cluster, const Prepared& prepared) {
    Outcome outcome;
    SimulationOptions options;
    options.workers = workers;
    options.cluster = cluster;
    options.folder = temporary_ / (folder.empty() ? "run" + std::to_string(++runs_) : folder);
    options.resume = resume;
    options.on_round = [&](const RoundReport& report) {
      outcome.reports.push_back(report);
      if (on_round_) on_round_(report);
    };
    options.should_stop = should_stop();
    options.worker_setup = local_setup_;
    outcome.summary = run_simulation(prepared, options);
    return outcome;
  }
};

TEST_F(ClusterTest, TheModelIsThatOfOneProcessForAnyRanks) {
  const json document = uneven_experiment();
  const Outcome expected = alone(document);
  for (const std::vector<std::size_t>& workers : {std::vector<std::size_t>{1, 1}, {1, 1, 1}, {2, 3}, {1, 1, 2, 1, 1}}) {
    SCOPED_TRACE(workers.size());
    const Outcome one = on_ranks(document, workers);
    expect_the_same(one, expected);
    EXPECT_EQ(one.summary.at("ranks"), workers.size());
  }
}

TEST_F(ClusterTest, AModelTravelsOnceForItsEvaluationAndTheNextRound) {
  // Four models are evaluated and the first is not; that one may stay here when the other rank begins too late for round 1.
  const std::size_t broadcasts = on_ranks(uneven_experiment({{"data", {{"test_examples", 2100}}}}), {1, 1}).broadcasts;
  EXPECT_GE(broadcasts, 4U);
  EXPECT_LE(broadcasts, 5U);
}

TEST_F(ClusterTest, RoundsRunWhileModelsAreEvaluatedOrNot) {
  // An accuracy that cannot be: the observer never stops the run, but might, so rounds wait.
  const json changes = {{"data", {{"test_examples", 2100}}}, {"rounds", 6}, {"observers", {{{"name", "early_stop"}, {"target", 2.0}}}}};
  const Outcome expected = alone(uneven_experiment(changes));
  expect_the_same(on_ranks(uneven_experiment(changes), {1, 2}), expected);
  json at_once = uneven_experiment(changes);
  at_once.erase("observers");
  expect_the_same(on_ranks(at_once, {1, 2}), expected);
  expect_the_same(on_ranks(at_once, {2, 1, 1}), expected);
}

TEST_F(ClusterTest, WhateverTheExperimentAsksFor) {
  const std::map<std::string, json> variants = {
      {"devices that leave", {{"devices", {{"examples_per_s", 20}, {"speed_spread", 1}, {"failure_probability", 0.3}}}}},
      {"a deadline", {{"round", {{"deadline_s", 2}}}, {"devices", {{"examples_per_s", 20}, {"speed_spread", 1}, {"failure_probability", 0.1}}}}},
      {"over-selection", {{"round", {{"over_selection", 1.5}, {"deadline_s", 3}}}, {"devices", {{"examples_per_s", 20}, {"speed_spread", 1}}}, {"codec", {{"name", "fp16"}}}}},
      {"fp16", {{"codec", {{"name", "fp16"}}}}},
      {"adam on the server", {{"strategy", {{"name", "fedopt"}, {"optimizer", "adam"}, {"learning_rate", 0.01}}}}},
      {"cohorts that may be empty", {{"rounds", 12}, {"sampler", {{"name", "poisson"}}}, {"round", {{"cohort", 1}}}}},
      {"uniform weights", {{"round", {{"weighting", "uniform"}}}}},
      {"measuring clients", {{"devices", {{"examples_per_s", 20}}}, {"evaluation", {{"per_client_every", 2}, {"per_client_count", 8}, {"client_holdout", 0.2}}}}},
      {"a large test set", {{"data", {{"test_examples", 2100}}}}},
      {"a bound that some updates break", {{"round", {{"update_bound_bits", -2}, {"max_abandoned", 10}}}}},
      {"some that diverge", {{"trainer", {{"learning_rate", 1e6}}}, {"round", {{"max_abandoned", 10}}}}},
      {"noise of the server", private_changes({{"name", "central_gaussian"}, {"clip_norm", 0.5}}, "poisson")},
      {"noise on the devices", private_changes({{"name", "local_gaussian"}, {"clip_norm", 0.5}})},
      {"integers with noise of the devices", private_changes({{"name", "distributed_skellam"}, {"clip_norm", 0.5}})},
      {"secure aggregation", {{"secure_aggregation", json::object()}}},
      {"secure aggregation and devices that leave",
       {{"round", {{"cohort", 15}}}, {"secure_aggregation", {{"dropout_rate", 0.4}, {"adversary_rate", 0}}}, {"devices", {{"failure_probability", 0.1}, {"speed_spread", 0.5}}}}},
  };
  for (const auto& [name, changes] : variants) {
    SCOPED_TRACE(name);
    const json document = uneven_experiment(changes);
    const Outcome expected = alone(document);
    expect_the_same(on_ranks(document, {1, 2}), expected);
    expect_the_same(on_ranks(document, {2, 1, 1}), expected);
  }
}

TEST_F(ClusterTest, SecureAggregationUnderAPromise) {
  json document = uneven_experiment(private_changes({{"name", "distributed_skellam"}, {"clip_norm", 0.5}}));
  document["secure_aggregation"] = json::object();
  const Outcome expected = alone(document);
  expect_the_same(on_ranks(document, {1, 1, 1}), expected);
}

TEST_F(ClusterTest, TheVariantsAreWhatTheySay) {
  // Which outcomes the variants above must show to be a test of them.
  const auto seen = [&](const json& changes) {
    std::set<std::string> names;
    for (const RoundReport& report : alone(uneven_experiment(changes)).reports) {
      for (const ClientOutcome& member : report.cohort) names.insert(outcome_name(member.outcome));
    }
    return names;
  };
  EXPECT_THAT(seen({{"round", {{"deadline_s", 2}}}, {"devices", {{"examples_per_s", 20}, {"speed_spread", 1}, {"failure_probability", 0.1}}}}), testing::IsSupersetOf({"accepted", "late", "left"}));
  EXPECT_THAT(seen({{"round", {{"update_bound_bits", -2}, {"max_abandoned", 10}}}}), testing::IsSupersetOf({"accepted", "out_of_bound"}));
  EXPECT_THAT(seen({{"trainer", {{"learning_rate", 1e6}}}, {"round", {{"max_abandoned", 10}}}}), testing::IsSupersetOf({"failed", "out_of_bound"}));
}

TEST_F(ClusterTest, OtherRanksDoTheirShare) {
  std::size_t given = 0;
  const std::string error = with_played_rank(uneven_experiment(), [&](PlayedRank& rank, const std::string& data) {
    rank.next(Topic::begin);
    rank.say_ready(data, 8);
    const Letter letter = rank.next(Topic::jobs);
    LetterReader jobs(letter);
    while (!jobs.done()) {
      jobs.number();
      jobs.number();
      EXPECT_EQ(jobs.number(), 1U) << "no update of this experiment has to travel";
      jobs.message({});
      ++given;
    }
    rank.say(std::move(LetterWriter(Topic::failed).error(std::make_exception_ptr(IoError("the disk is on fire")))));
    rank.leave();
  });
  EXPECT_GT(given, 0U);
  EXPECT_EQ(error, "rank 1 on node7: the disk is on fire");
  EXPECT_EQ(silent_, "");
}

TEST_F(ClusterTest, InterruptedAnywhereThenResumedOnOtherRanksGivesTheSameBits) {
  json document = uneven_experiment({{"rounds", 6}, {"strategy", {{"name", "fedopt"}, {"optimizer", "adam"}}}, {"devices", {{"examples_per_s", 20}}}});
  const Outcome whole = alone(document);
  int resumed = 0;
  for (const int polls : {1, 5, 20, 60, 110}) {
    const std::string folder = "cut" + std::to_string(polls);
    std::atomic<int> left = polls;
    stop_ = [&] { return --left < 0; };
    json summary;
    try {
      summary = on_ranks(document, {1, 1}, folder).summary;
    } catch (const Interrupted&) {
      // Interrupted while ranks load their data, a run has not begun.
      const bool begun = std::filesystem::exists(temporary_ / folder);
      if (begun) {
        EXPECT_EQ(read_json_file(temporary_ / folder / "run.json").at("status"), "interrupted");
        ++resumed;
      }
      stop_ = nullptr;
      summary = polls % 2 == 0 ? alone(document, folder, begun).summary : on_ranks(document, {1, 2, 1}, folder, begun).summary;
    }
    stop_ = nullptr;
    EXPECT_EQ(summary.at("model_sha256"), whole.summary.at("model_sha256")) << "interrupted after " << polls << " polls";
  }
  EXPECT_GT(resumed, 0);
}

TEST_F(ClusterTest, ARankThatIsInterruptedInterruptsTheRun) {
  std::atomic<bool> stop = false;
  others_stop_ = [&] { return stop.load(); };
  on_round_ = [&](const RoundReport& report) {
    if (report.round == 2) stop = true;
  };
  const json document = uneven_experiment({{"rounds", 500}});
  EXPECT_THAT(test::error_of([&] { on_ranks(document, {1, 1}, "run"); }), HasSubstr("interrupted after round"));
  EXPECT_EQ(read_json_file(temporary_ / "run" / "run.json").at("status"), "interrupted");
}

TEST_F(ClusterTest, ARankThatDiesInARoundIsNamedAndTheRunGoesOnWithoutIt) {
  const json document = uneven_experiment();
  const std::string expected = alone(document).summary.at("model_sha256");
  const std::string error = with_played_rank(
      document,
      [](PlayedRank& rank, const std::string& data) {
        rank.next(Topic::begin);
        rank.say_ready(data);
        rank.next(Topic::jobs);
        rank.say(std::move(LetterWriter(Topic::failed).error(std::make_exception_ptr(std::bad_alloc()))));
        rank.leave();
      },
      "run");
  EXPECT_THAT(error, HasSubstr("rank 1 on node7: out of memory"));
  EXPECT_EQ(open_journal(temporary_ / "run" / "journal.db", JournalMode::read)->last_round()->round, 0U);
  EXPECT_EQ(on_ranks(document, {1, 1}, "run", true).summary.at("model_sha256"), expected);
}

TEST_F(ClusterTest, ARankThatVanishesIsNamedWhenTheRunIsInterrupted) {
  // What rank 0 sees when a launcher ends the job because rank 1 was killed.
  std::atomic<bool> gone = false;
  stop_ = [&] { return gone.load(); };
  const std::string error = with_played_rank(uneven_experiment(), [&](PlayedRank& rank, const std::string& data) {
    rank.next(Topic::begin);
    rank.say_ready(data);
    rank.next(Topic::jobs);
    gone = true;
  });
  EXPECT_THAT(error, HasSubstr("interrupted after round 0"));
  EXPECT_EQ(silent_, "rank 1 on node7");
}

TEST_F(ClusterTest, RefusesARankWithOtherData) {
  const std::string error = with_played_rank(uneven_experiment(), [](PlayedRank& rank, const std::string&) {
    rank.next(Topic::begin);
    rank.say_ready("others");
    rank.leave();
  });
  EXPECT_EQ(error, "rank 1 on node7: data: the files differ from those of rank 0 on here; give every machine the same files");
}

TEST_F(ClusterTest, ARankRefusesAnotherBuildAndSaysSoThroughRankZero) {
  test::LocalRanks ranks(2);
  std::thread other([&] { serve_rank(ranks.rank(1), {1, "another build", {}, [] { return false; }}); });
  Cluster cluster(ranks.rank(0), 1, {});
  const std::string error = test::error_of([&] {
    cluster.announce(uneven_experiment().dump(), "test", kVersion);
    cluster.await_ready("");
  });
  EXPECT_EQ(error, "rank 1: this fl is another build, that of rank 0 is this build; start the same build on every machine");
  EXPECT_EQ(cluster.end(), "");
  other.join();
}

TEST_F(ClusterTest, ARankSaysWhatItCannotLoad) {
  test::LocalRanks ranks(2);
  std::thread other([&] { serve_rank(ranks.rank(1), {1, kVersion, {}, [] { return false; }}); });
  Cluster cluster(ranks.rank(0), 1, {});
  const json document = uneven_experiment({{"round", {{"cohort", 21}}}});
  const std::string error = test::error_of([&] {
    cluster.announce(document.dump(), "study.json", kVersion);
    cluster.await_ready("");
  });
  EXPECT_EQ(error, "rank 1: study.json: round.cohort: got 21, expected at most the number of clients (20)");
  EXPECT_EQ(cluster.end(), "");
  other.join();
}

TEST(Letters, CarryWhatWasWritten) {
  JobResult result;
  result.answer = encode_failure(7, "no");
  result.summed_bytes = 40;
  JobResult failed;
  failed.error = std::make_exception_ptr(ConfigError("nonsense"));
  Evaluation sums;
  sums.loss_units = -5;
  sums.correct = {1, 2};
  sums.examples = {3, 4};
  sums.finite = false;
  const Letter letter = LetterWriter(Topic::answers).result(3, result).result(4, failed).result(5, {}).evaluation(sums).text("end").finish();
  LetterReader reader(letter);
  EXPECT_EQ(reader.topic(), Topic::answers);
  const auto [ticket, read] = reader.result();
  EXPECT_EQ(ticket, 3U);
  EXPECT_EQ(parse_failure(*read.answer), "no");
  EXPECT_EQ(read.answer->round(), 7U);
  EXPECT_EQ(read.summed_bytes, 40U);
  EXPECT_THROW(std::rethrow_exception(reader.result().second.error), ConfigError);
  EXPECT_FALSE(reader.result().second.answer);
  const Evaluation again = reader.evaluation();
  EXPECT_EQ(again.loss_units, -5);
  EXPECT_EQ(again.correct, sums.correct);
  EXPECT_EQ(again.examples, sums.examples);
  EXPECT_FALSE(again.finite);
  EXPECT_EQ(reader.text(), "end");
  EXPECT_TRUE(reader.done());
}

TEST(Letters, ThatEndTooEarlyAreRefused) {
  const Letter letter = LetterWriter(Topic::ready).text("somewhere").finish();
  for (std::size_t size = 8; size < letter.size(); ++size) {
    LetterReader reader(std::span<const std::byte>(letter.data(), size));
    EXPECT_THROW(reader.text(), ProtocolError);
  }
}

}  // namespace
}  // namespace fl
