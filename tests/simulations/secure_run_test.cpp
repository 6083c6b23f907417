// Runs under secure aggregation, from the experiment to what is published.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "fl_core/config/json_reader.h"
#include "simulations/device_model/device_model.h"
#include "simulations/replay.h"
#include "simulations/simulation.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using nlohmann::json;
using testing::HasSubstr;

/// 20 clients of different sizes, ten a round, four rounds.
json secure_experiment(const json& changes = json::object()) {
  json document = test::toy_experiment();
  document["partition"] = {{"name", "dirichlet"}, {"clients", 20}, {"alpha", 1.0}};
  document["round"] = {{"cohort", 10}};
  document["secure_aggregation"] = json::object();
  document.merge_patch(changes);
  return document;
}

json without(json document) {
  document["secure_aggregation"] = nullptr;
  return document;
}

/// Noise from the seed, so that runs can be compared.
json private_experiment(const json& mechanism, const json& changes = json::object()) {
  json document = secure_experiment({{"round", {{"cohort", 10}, {"weighting", "uniform"}}},
                                     {"sampler", {{"name", "cyclic"}, {"separation", 2}}},
                                     {"privacy", {{"noise_multiplier", 0.8}, {"delta", 1e-5}, {"randomness", "seeded"}, {"accountant", {{"name", "rdp"}}}, {"adjacency", "replace_one"}}}});
  document["privacy"]["mechanism"] = mechanism;
  document.merge_patch(changes);
  return document;
}

class SecureRun : public testing::Test {
 protected:
  json run(const json& document, std::size_t workers = 1, const std::string& folder = "", bool resume = false) {
    const Prepared prepared = prepare(parse_experiment(document, "test"));
    SimulationOptions options;
    options.workers = workers;
    options.folder = folder.empty() ? temporary_ / ("run" + std::to_string(++runs_)) : temporary_ / folder;
    options.resume = resume;
    options.on_round = [&](const RoundReport& report) { reports_.push_back(report); };
    options.should_stop = [&] { return stop_ && stop_(); };
    reports_.clear();
    return run_simulation(prepared, options);
  }
  std::string hash(const json& document, std::size_t workers = 1) { return run(document, workers).at("model_sha256"); }
  std::string problem(const json& changes) {
    return test::error_of([&] { run(secure_experiment(changes)); });
  }

  test::TemporaryFolder temporary_;
  std::vector<RoundReport> reports_;
  std::function<bool()> stop_;
  int runs_ = 0;
};

TEST_F(SecureRun, TheModelHasTheBitsOfARunWithout) {
  const std::string expected = hash(without(secure_experiment()));
  EXPECT_EQ(hash(secure_experiment()), expected);
  EXPECT_EQ(hash(secure_experiment(), 3), expected);
  EXPECT_EQ(hash(secure_experiment({{"secure_aggregation", {{"server", "curious"}, {"adversary_rate", 0.3}}}})), expected);
  EXPECT_NE(hash(secure_experiment({{"seed", 4}})), expected);
}

TEST_F(SecureRun, WhateverElseTheExperimentAsksFor) {
  const std::map<std::string, json> variants = {
      {"uniform weights", {{"round", {{"weighting", "uniform"}}}}},
      {"scaled weights", {{"round", {{"weight_cap", 1'000'000}}}}},
      {"fp16", {{"codec", {{"name", "fp16"}}}}},
      {"adam on the server", {{"strategy", {{"name", "fedopt"}, {"optimizer", "adam"}, {"learning_rate", 0.01}}}}},
      {"poisson cohorts", {{"sampler", {{"name", "poisson"}}}}},
      {"over-selection", {{"round", {{"over_selection", 1.5}}}, {"devices", {{"speed_spread", 0.5}}}}},
      {"another bound", {{"round", {{"update_bound_bits", 2}}}}},
      {"several epochs", {{"trainer", {{"epochs", 2}, {"momentum", 0.9}}}}},
  };
  for (const auto& [name, changes] : variants) {
    SCOPED_TRACE(name);
    const json document = secure_experiment(changes);
    EXPECT_EQ(hash(document, 2), hash(without(document)));
  }
}

/// A fifth of the devices leaves: before they answered the train task, before their shares, before their vector, and after it.
TEST_F(SecureRun, DropOutsAtEveryStepChangeNothing) {
  const json document = secure_experiment(
      {{"rounds", 12}, {"round", {{"cohort", 15}}}, {"devices", {{"failure_probability", 0.1}}}, {"secure_aggregation", {{"dropout_rate", 0.4}, {"adversary_rate", 0}}}});
  const std::string expected = hash(without(document));
  const auto plain = reports_;
  EXPECT_EQ(hash(document, 2), expected);
  ASSERT_EQ(plain.size(), reports_.size());
  const DeviceModel devices(parse_experiment(document, "test").devices, 3);
  std::set<std::uint32_t> left_in;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    EXPECT_FALSE(reports_[i].abandoned);
    for (std::size_t k = 0; k < plain[i].cohort.size(); ++k) {
      const ClientOutcome& member = reports_[i].cohort[k];
      EXPECT_EQ(member.outcome, plain[i].cohort[k].outcome) << "round " << i + 1 << ", client " << member.client;
      left_in.insert(devices.leaves_in_step(member.client, reports_[i].round));
    }
    // What clients say of themselves is the sum, to the last digit.
    EXPECT_EQ(reports_[i].examples, plain[i].examples);
    EXPECT_EQ(reports_[i].steps, plain[i].steps);
    EXPECT_EQ(reports_[i].training_loss, plain[i].training_loss);
    EXPECT_EQ(reports_[i].update_norm, plain[i].update_norm);
  }
  EXPECT_EQ(left_in, (std::set<std::uint32_t>{0, 1, 2, 3, 4, 5})) << "not every step was left";
}

TEST_F(SecureRun, MoreDropOutsThanPlannedAbandonTheRound) {
  const json document = secure_experiment({{"rounds", 3}, {"devices", {{"failure_probability", 0.7}}}, {"secure_aggregation", {{"dropout_rate", 0}}}});
  EXPECT_THAT(test::error_of([&] { run(document); }), HasSubstr("gave up after 3 abandoned rounds"));
  ASSERT_EQ(reports_.size(), 3U);
  bool aborted = false;
  for (const RoundReport& report : reports_) {
    EXPECT_TRUE(report.abandoned);
    EXPECT_EQ(report.count(Outcome::accepted), 0U);
    EXPECT_EQ(report.model_version, 0U);
    EXPECT_EQ(report.examples, 0);
    aborted = aborted || report.count(Outcome::not_summed) > 0;
  }
  EXPECT_TRUE(aborted);
}

TEST_F(SecureRun, InterruptedAndResumedGivesTheSameBits) {
  const json document = secure_experiment({{"devices", {{"failure_probability", 0.1}}}, {"secure_aggregation", {{"dropout_rate", 0.4}, {"adversary_rate", 0}}}});
  const std::string expected = hash(document);
  std::atomic<int> polls = 0;
  stop_ = [&] { return ++polls > 60; };
  int resumed = 0;
  for (bool finished = false; !finished; ++resumed) {
    ASSERT_LT(resumed, 200);
    polls = resumed == 0 ? 0 : -200;
    try {
      EXPECT_EQ(run(document, 1, "interrupted", resumed > 0).at("model_sha256"), expected);
      finished = true;
    } catch (const Interrupted&) {
    }
  }
  EXPECT_GT(resumed, 1) << "it was never interrupted";
}

TEST_F(SecureRun, PrivacyComposesWithTheSameBits) {
  const std::map<std::string, json> variants = {
      {"central", private_experiment({{"name", "central_gaussian"}, {"clip_norm", 0.05}})},
      {"central, poisson", private_experiment({{"name", "central_gaussian"}, {"clip_norm", 0.05}},
                                              {{"sampler", {{"name", "poisson"}, {"separation", nullptr}}}, {"privacy", {{"sampling", "poisson"}, {"adjacency", "add_or_remove_one"}}}})},
      {"tree", private_experiment({{"name", "dp_ftrl_tree"}, {"clip_norm", 0.05}})},
      {"banded", private_experiment({{"name", "dp_ftrl_banded"}, {"clip_norm", 0.05}})},
      {"local", private_experiment({{"name", "local_gaussian"}, {"clip_norm", 0.05}})},
      {"discrete gaussian", private_experiment({{"name", "distributed_discrete_gaussian"}, {"clip_norm", 0.05}}, {{"round", {{"minimum_updates", 4}}}})},
      {"skellam", private_experiment({{"name", "distributed_skellam"}, {"clip_norm", 0.05}}, {{"round", {{"minimum_updates", 4}}}})},
  };
  for (const auto& [name, document] : variants) {
    SCOPED_TRACE(name);
    const std::string expected = hash(without(document));
    EXPECT_EQ(hash(document, 2), expected);
    json more = document;
    more["privacy"]["noise_multiplier"] = 0.9;
    EXPECT_NE(hash(more), expected);
  }
}

TEST_F(SecureRun, FewerBitsCostLittleAccuracyAndAreRounded) {
  const json changes = {{"rounds", 8}, {"round", {{"update_bound_bits", -2}}}};
  const json exact = run(secure_experiment(changes));
  json document = secure_experiment(changes);
  document["secure_aggregation"]["value_bits"] = 16;
  const json rounded = run(document);
  EXPECT_NE(rounded.at("model_sha256"), exact.at("model_sha256"));
  EXPECT_EQ(hash(document, 3), rounded.at("model_sha256"));
  EXPECT_NEAR(rounded.at("accuracy").get<double>(), exact.at("accuracy").get<double>(), 0.03);
  EXPECT_LT(rounded.at("bytes_up").get<std::uint64_t>(), exact.at("bytes_up").get<std::uint64_t>());
}

TEST_F(SecureRun, AReplayAgrees) {
  for (const json& value_bits : {json(nullptr), json(20)}) {
    const json document = secure_experiment(
        {{"round", {{"update_bound_bits", 0}}}, {"devices", {{"failure_probability", 0.15}}}, {"secure_aggregation", {{"dropout_rate", 0.4}, {"adversary_rate", 0}, {"value_bits", value_bits}}}});
    const std::string folder = "recorded" + value_bits.dump();
    run(document, 1, folder);
    const RecordedRun recorded = read_recorded_run(temporary_ / folder);
    const Prepared prepared = prepare(replay_experiment(recorded));
    ReplayOptions options;
    options.workers = 2;
    const auto difference = replay(recorded, prepared, options);
    EXPECT_FALSE(difference) << difference->why;
  }
}

TEST_F(SecureRun, RefusesWhatWouldShowSingleUpdatesOrCannotWork) {
  EXPECT_THAT(problem({{"evaluation", {{"per_client_every", 1}, {"client_holdout", 0.2}}}}), HasSubstr("evaluation.per_client_every: got 1, expected 0 under secure_aggregation"));
  EXPECT_THAT(problem({{"round", {{"cohort", 2}}}}), HasSubstr("round.cohort: got 2, expected at least 3"));
  EXPECT_THAT(problem({{"secure_aggregation", {{"minimum_survivors", 2}}}}), HasSubstr("secure_aggregation.minimum_survivors"));
  EXPECT_THAT(problem({{"secure_aggregation", {{"dropout_rate", 0.5}, {"adversary_rate", 0.5}}}}), HasSubstr("dropout_rate"));
  EXPECT_THAT(problem({{"secure_aggregation", {{"value_bits", 7}}}}), HasSubstr("secure_aggregation.value_bits"));
  EXPECT_THAT(problem({{"secure_aggregation", {{"values", 7}}}}), HasSubstr("secure_aggregation.values"));
  json adaptive = private_experiment({{"name", "central_gaussian"}, {"clip_norm", 0.1}, {"adaptive", {{"quantile", 0.5}, {"count_stddev", 3}}}});
  EXPECT_THAT(test::error_of([&] { run(adaptive); }), HasSubstr("privacy.mechanism.adaptive: got \"on\", expected null under secure aggregation"));
  json rounded = private_experiment({{"name", "local_gaussian"}, {"clip_norm", 0.1}});
  rounded["secure_aggregation"]["value_bits"] = 16;
  EXPECT_THAT(test::error_of([&] { run(rounded); }), HasSubstr("secure_aggregation.value_bits: got 16, expected null under privacy"));
}

}  // namespace
}  // namespace fl
