// Runs with a promise of differential privacy, from the experiment to what is published.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "aggregator/store/journal.h"
#include "fl_core/base/file.h"
#include "fl_core/config/json_reader.h"
#include "privacy/accounting/accountant.h"
#include "privacy/mechanism/promise.h"
#include "simulations/simulation.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using nlohmann::json;
using testing::HasSubstr;

/// 20 clients, each in a round with a chance of 1/4, four rounds, noise of 1.2 clip norms, seeded.
json private_experiment(const json& changes = json::object()) {
  json document = test::toy_experiment();
  document["sampler"] = {{"name", "poisson"}};
  document["round"] = {{"cohort", 5}, {"weighting", "uniform"}};
  document["privacy"] = {{"mechanism", {{"name", "central_gaussian"}, {"clip_norm", 0.5}}},
                         {"noise_multiplier", 1.2},
                         {"delta", 1e-5},
                         {"sampling", "poisson"},
                         {"randomness", "seeded"}};
  document.merge_patch(changes);
  return document;
}

class PrivateRun : public testing::Test {
 protected:
  json run(const json& document, const std::string& folder = "", std::size_t workers = 1, bool resume = false) {
    const Prepared prepared = prepare(parse_experiment(document, "test"));
    SimulationOptions options;
    options.workers = workers;
    options.folder = folder.empty() ? fresh() : temporary_ / folder;
    options.resume = resume;
    options.should_stop = [&] { return stop_ && stop_(); };
    return run_simulation(prepared, options);
  }
  std::filesystem::path fresh() { return temporary_ / ("run" + std::to_string(++runs_)); }
  std::string problem(const json& changes) {
    return test::error_of([&] { run(private_experiment(changes)); });
  }
  std::vector<LedgerEntry> ledger(const std::string& folder) {
    return open_journal(temporary_ / folder / "journal.db", JournalMode::read)->ledger();
  }
  std::vector<json> metrics(const std::string& folder) {
    std::ifstream file(temporary_ / folder / "metrics.jsonl");
    std::vector<json> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
    return lines;
  }

  test::TemporaryFolder temporary_;
  std::function<bool()> stop_;
  int runs_ = 0;
};

TEST_F(PrivateRun, SeededNoiseGivesTheSameBitsForAnyNumberOfWorkers) {
  const json document = private_experiment();
  const json one = run(document);
  EXPECT_EQ(run(document, "", 2).at("model_sha256"), one.at("model_sha256"));
  EXPECT_EQ(run(document, "", 4).at("model_sha256"), one.at("model_sha256"));
  EXPECT_NE(run(private_experiment({{"seed", 4}})).at("model_sha256"), one.at("model_sha256"));
  EXPECT_FALSE(one.at("privacy").at("private").get<bool>());
  EXPECT_THAT(one.at("privacy").at("why_not_private").get<std::string>(), HasSubstr("seed"));
}

TEST_F(PrivateRun, SecureNoiseNeverRepeats) {
  const json secure = private_experiment({{"privacy", {{"randomness", "secure"}}}});
  const json one = run(secure);
  EXPECT_NE(run(secure).at("model_sha256"), one.at("model_sha256"));
  EXPECT_TRUE(one.at("privacy").at("private").get<bool>());
}

TEST_F(PrivateRun, InterruptedThenResumedGivesTheSameBitsAndTheSameLedger) {
  for (const char* mechanism : {"central_gaussian", "adaptive", "dp_ftrl_tree", "dp_ftrl_banded", "local_gaussian", "distributed_discrete_gaussian", "distributed_skellam"}) {
    SCOPED_TRACE(mechanism);
    json document = private_experiment({{"rounds", 5}});
    if (std::string(mechanism) == "adaptive") {
      document["privacy"]["mechanism"]["adaptive"] = {{"quantile", 0.5}, {"count_stddev", 3}};
    } else if (std::string(mechanism) != "central_gaussian") {
      document["privacy"]["mechanism"] = {{"name", mechanism}, {"clip_norm", 0.5}};
      document["privacy"]["sampling"] = "none";
      document["privacy"]["accountant"] = {{"name", "rdp"}};
      document["privacy"]["adjacency"] = "replace_one";
      document["sampler"] = {{"name", "cyclic"}, {"separation", 4}};
    }
    const std::string whole = run(document, std::string(mechanism) + "-whole").at("model_sha256");
    const auto expected = ledger(std::string(mechanism) + "-whole");
    ASSERT_EQ(expected.size(), 5U);
    for (int polls = 3; polls < 60; polls += 11) {
      const std::string folder = std::string(mechanism) + std::to_string(polls);
      std::atomic<int> left = polls;
      stop_ = [&] { return --left < 0; };
      std::string result;
      try {
        result = run(document, folder).at("model_sha256");
      } catch (const Interrupted&) {
        stop_ = nullptr;
        result = run(document, folder, 2, true).at("model_sha256");
      }
      stop_ = nullptr;
      EXPECT_EQ(result, whole) << "interrupted after " << polls << " polls";
      const auto entries = ledger(folder);
      EXPECT_GE(entries.size(), expected.size());
      EXPECT_GE(entries.back().charge.at("epsilon"), expected.back().charge.at("epsilon"));
    }
  }
}

TEST_F(PrivateRun, TheLedgerHoldsWhatTheAccountantSays) {
  run(private_experiment(), "run");
  const auto entries = ledger("run");
  ASSERT_EQ(entries.size(), 4U);
  const auto pld = accountants().create({{"name", "pld"}}, "accountant");
  for (std::uint32_t round = 1; round <= 4; ++round) {
    const json& charge = entries[round - 1].charge;
    EXPECT_EQ(charge.at("round"), round);
    // q = 5 / 20.
    const PrivacyEvent events[] = {PrivacyEvent::gaussian(0.25, 1.2, round)};
    EXPECT_DOUBLE_EQ(charge.at("epsilon").get<double>(), pld->epsilon(events, 1e-5, Adjacency::add_or_remove_one));
    EXPECT_EQ(metrics("run").at(round - 1).at("privacy").at("epsilon"), charge.at("epsilon"));
    for (const char* key : {"delta", "unit", "adjacency", "sampling", "sampling_rate", "accountant", "mechanism", "noise_multiplier"}) EXPECT_TRUE(charge.contains(key)) << key;
  }
}

TEST_F(PrivateRun, ATargetIsCalibratedAndARaisedNumberOfRoundsEndsAtTheBudget) {
  const json document = private_experiment({{"privacy", {{"noise_multiplier", nullptr}, {"epsilon", 2}}}});
  const json summary = run(document, "run");
  const double spent = summary.at("privacy").at("epsilon");
  EXPECT_LE(spent, 2);
  EXPECT_GT(spent, 1.95);
  const auto model = read_file(temporary_ / "run/model.safetensors", 1 << 20);
  json longer = document;
  longer["rounds"] = 10;
  std::string why;
  try {
    run(longer, "run", 1, true);
  } catch (const BudgetExhausted& error) {
    why = error.what();
    EXPECT_EQ(error.exit_code(), ExitCode::budget);
  }
  EXPECT_THAT(why, testing::AllOf(HasSubstr("round 5 would bring"), HasSubstr("above privacy.epsilon 2"), HasSubstr("the model of round 4 is kept")));
  EXPECT_EQ(read_json_file(temporary_ / "run/run.json").at("status"), "budget_exhausted");
  EXPECT_EQ(read_file(temporary_ / "run/model.safetensors", 1 << 20), model);
  EXPECT_EQ(ledger("run").size(), 4U);
}

TEST_F(PrivateRun, WithoutNoiseItIsTheSameFederation) {
  // Everybody takes part, nobody is clipped: what is left is the mean with equal weights, in another fixed point.
  const json everybody = {{"sampler", {{"name", "uniform"}}},
                          {"round", {{"cohort", 20}}},
                          {"privacy", {{"noise_multiplier", 0}, {"sampling", "none"}, {"mechanism", {{"clip_norm", 60}}}}}};
  const json with = run(private_experiment(everybody), "with");
  json without = private_experiment(everybody);
  without.erase("privacy");
  const json reference = run(without, "without");
  EXPECT_EQ(with.at("accuracy"), reference.at("accuracy"));
  EXPECT_NEAR(with.at("loss").get<double>(), reference.at("loss").get<double>(), 1e-6);
  EXPECT_TRUE(with.at("privacy").at("epsilon").is_null()) << "infinite";
  EXPECT_FALSE(with.at("privacy").at("private").get<bool>());
}

TEST_F(PrivateRun, AnEmptyRoundIsNoisedChargedAndReleased) {
  const json document = private_experiment({{"round", {{"cohort", 1}}}, {"rounds", 12}, {"partition", {{"clients", 20}}}});
  run(document, "run");
  std::set<std::string> models;
  std::size_t empty = 0;
  const auto store = open_journal(temporary_ / "run/journal.db", JournalMode::read);
  for (const RoundReport& report : store->reports()) {
    if (report.round == 0) continue;
    empty += report.cohort.empty() ? 1 : 0;
    EXPECT_FALSE(report.abandoned);
  }
  for (const std::string& hash : store->model_hashes()) models.insert(hash);
  EXPECT_GT(empty, 0U) << "P(nobody of 20 comes with chance 1/20) = 0.36 a round";
  EXPECT_EQ(models.size(), 13U);
  EXPECT_EQ(store->ledger().size(), 12U);
}

/// P7: two data sets that differ in all of one client's examples give the same metrics but for what comes of the noisy model.
TEST_F(PrivateRun, NothingThatIsPublishedTellsOfAClientButTheModel) {
  json document = private_experiment({{"rounds", 6}, {"partition", {{"name", "dirichlet"}, {"alpha", 1.0}, {"clients", 20}}}});
  document["devices"] = {{"examples_per_s", 20}};  // so that time would tell of sizes
  run(document, "one");
  document["partition"] = {{"name", "dirichlet"}, {"alpha", 0.2}, {"clients", 20}};
  run(document, "other");
  const auto one = metrics("one");
  const auto other = metrics("other");
  ASSERT_EQ(one.size(), 6U);
  ASSERT_EQ(other.size(), 6U);
  const std::set<std::string> of_the_model = {"accuracy", "loss", "class_accuracy", "update_norm", "wall_seconds", "wall_seconds_evaluation", "wall_seconds_evaluation_alone"};
  bool models_differ = false;
  for (std::size_t i = 0; i < one.size(); ++i) {
    for (const auto& [key, value] : one[i].items()) {
      if (of_the_model.count(key) != 0) {
        models_differ = models_differ || value != other[i].at(key);
      } else if (key == "privacy") {
        json a = value;
        json b = other[i].at(key);
        a.erase("signal_to_noise");
        b.erase("signal_to_noise");
        EXPECT_EQ(a, b);
      } else {
        EXPECT_EQ(value, other[i].at(key)) << key;
      }
    }
    EXPECT_EQ(one[i].at("examples"), 0);
    EXPECT_TRUE(one[i].at("cohort").at("clients").empty());
    EXPECT_TRUE(one[i].at("training_loss").is_null());
  }
  EXPECT_TRUE(models_differ) << "the control: the data did matter";
  const json summary = read_json_file(temporary_ / "one/run.json");
  for (const char* key : {"bytes_up", "bytes_down", "train_samples_per_s", "client_rounds_per_s"}) EXPECT_TRUE(summary.at(key).is_null()) << key;
}

TEST_F(PrivateRun, TheJournalKeepsTheCohortForTheOperator) {
  run(private_experiment(), "run");
  std::size_t members = 0;
  for (const RoundReport& report : open_journal(temporary_ / "run/journal.db", JournalMode::read)->reports()) members += report.cohort.size();
  EXPECT_GT(members, 0U);
}

TEST_F(PrivateRun, TellsClipNoiseAndSignalOfEachRound) {
  run(private_experiment(), "run");
  for (const json& line : metrics("run")) {
    const json& privacy = line.at("privacy");
    EXPECT_EQ(privacy.at("clip_norm"), 0.5);
    EXPECT_DOUBLE_EQ(privacy.at("noise_stddev").get<double>(), 1.2 * 0.5 / 5);
    EXPECT_GE(privacy.at("signal_to_noise").get<double>(), 0);
    EXPECT_FALSE(privacy.at("private").get<bool>());
  }
  run(private_experiment({{"privacy", {{"mechanism", {{"adaptive", {{"quantile", 0.5}, {"count_stddev", 3}}}}}}}}), "adaptive");
  for (const json& line : metrics("adaptive")) {
    EXPECT_GE(line.at("privacy").at("clipped_fraction").get<double>(), 0);
    EXPECT_LE(line.at("privacy").at("clipped_fraction").get<double>(), 1);
  }
}

TEST_F(PrivateRun, RefusesWhatWouldBreakThePromise) {
  EXPECT_EQ(problem(json::object()), "") << "the positive control";
  EXPECT_THAT(problem({{"round", {{"weighting", "examples"}}}}), HasSubstr("round.weighting"));
  EXPECT_THAT(problem({{"sampler", {{"name", "uniform"}}}}), HasSubstr("a cohort of fixed size is not covered by that accounting"));
  EXPECT_THAT(problem({{"sampler", {{"name", "uniform"}}}, {"privacy", {{"sampling", "none"}}}}), HasSubstr("one client more would displace another"));
  EXPECT_EQ(problem({{"sampler", {{"name", "uniform"}}}, {"privacy", {{"sampling", "none"}, {"adjacency", "replace_one"}}}}), "");
  // A Poisson cohort that is not counted on changes with the number of clients, as one of fixed size does.
  EXPECT_THAT(problem({{"privacy", {{"sampling", "none"}}}}), HasSubstr("one client more would displace another"));
  for (const char* mechanism : {"local_gaussian", "distributed_discrete_gaussian", "distributed_skellam"}) {
    EXPECT_THAT(problem({{"privacy", {{"sampling", "none"}, {"accountant", {{"name", "rdp"}}}, {"mechanism", {{"name", mechanism}}}}}}), HasSubstr("it is seen who answered")) << mechanism;
  }
  EXPECT_THAT(problem({{"evaluation", {{"per_client_every", 1}, {"client_holdout", 0.2}}}}), HasSubstr("evaluation.per_client_every"));
  EXPECT_THAT(problem({{"round", {{"minimum_updates", 3}}}}), HasSubstr("round.minimum_updates"));
  EXPECT_THAT(problem({{"privacy", {{"epsilon", 3}}}}), HasSubstr("privacy.noise_multiplier"));
  EXPECT_THAT(problem({{"privacy", {{"noise_multiplier", nullptr}}}}), HasSubstr("privacy.epsilon"));
  EXPECT_THAT(problem({{"privacy", {{"delta", nullptr}}}}), HasSubstr("privacy.delta"));
  EXPECT_THAT(problem({{"privacy", {{"unit", "example"}}}}), HasSubstr("privacy.unit"));
  EXPECT_THAT(problem({{"privacy", {{"accountant", {{"name", "zcdp"}}}}}}), HasSubstr("pld"));
  EXPECT_THAT(problem({{"privacy", {{"accountant", {{"name", "rdp"}}}, {"adjacency", "replace_one"}}}}), HasSubstr("pld"));
  EXPECT_THAT(problem({{"trainer", {{"name", "dp_sgd"}}}}), HasSubstr("trainer.name"));
  EXPECT_THAT(problem({{"privacy", {{"sampling", "none"}, {"sampling_rate", 0.5}}}}), HasSubstr("privacy.sampling_rate"));
}

TEST_F(PrivateRun, ExampleLevelPrivacyNeedsItsTrainerAndNoBatchNorm) {
  json document = private_experiment({{"sampler", {{"name", "uniform"}}}});
  document["privacy"] = {{"mechanism", {{"name", "dp_sgd"}, {"clip_norm", 1}, {"sampling_rate", 0.5}}}, {"unit", "example"}, {"noise_multiplier", 1.0},
                         {"delta", 1e-5}, {"randomness", "seeded"}};
  EXPECT_THAT(test::error_of([&] { run(document); }), HasSubstr("dp_sgd"));
  document["trainer"] = {{"name", "dp_sgd"}, {"steps", 3}, {"batch_size", 5}};
  // The toy model has a running statistic, as BatchNorm has.
  EXPECT_THAT(test::error_of([&] { run(document); }), HasSubstr("no running statistics under example-level privacy"));
}

TEST_F(PrivateRun, ALedgerThatWasTakenAwayIsFoundOut) {
  run(private_experiment(), "run");
  json longer = private_experiment({{"rounds", 6}});
  std::filesystem::copy(temporary_ / "run", temporary_ / "copy", std::filesystem::copy_options::recursive);
  EXPECT_EQ(test::error_of([&] { run(longer, "copy", 1, true); }), "");
  std::filesystem::remove(temporary_ / "run/ledger.head");
  EXPECT_THAT(test::error_of([&] { run(longer, "run", 1, true); }), HasSubstr("ledger.head is missing"));
}

}  // namespace
}  // namespace fl
