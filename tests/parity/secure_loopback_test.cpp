// Secure aggregation between deployed programs: the bits of the simulation and of a run without it, whoever leaves and whenever.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "fl_core/config/json_reader.h"
#include "simulations/replay.h"
#include "tests/net_support/net/loopback.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using nlohmann::json;
using test::Loopback;
using test::LoopbackClient;
using testing::HasSubstr;

/// Eight clients, all of them asked; three may leave.
json experiment(const json& changes = json::object()) {
  json document = test::toy_experiment();
  document["partition"] = {{"name", "dirichlet"}, {"clients", 8}, {"alpha", 1.0}};
  document["round"] = {{"cohort", 8}};
  document["secure_aggregation"] = {{"adversary_rate", 0}, {"dropout_rate", 0.4}};
  document.merge_patch(changes);
  return document;
}

json without(json document) {
  document["secure_aggregation"] = nullptr;
  return document;
}

void expect_parity(const json& document) {
  const auto expected = test::simulated_hashes(without(document), 1);
  EXPECT_EQ(test::simulated_hashes(document, 2), expected);
  for (const int seed : {1, 2}) {
    Loopback federation(document);
    federation.proxy().change({{"seed", seed}, {"rules", {{{"jitter_ms", 6}}}}});
    federation.start_server();
    federation.start_clients(0, federation.population());
    federation.finish();
    EXPECT_EQ(federation.model_hashes(), expected) << "delays with seed " << seed;
    for (const RoundReport& report : federation.reports()) {
      EXPECT_EQ(report.count(Outcome::accepted), report.cohort.size());
    }
  }
}

TEST(SecureLoopback, TheBitsOfARunWithout) { expect_parity(experiment()); }

/// 84 KB of weights, 147 KB of masked integers.
TEST(SecureLoopback, ModelsThatTravelAsBlobs) {
  expect_parity(experiment({{"data", {{"input", {300}}, {"classes", 70}, {"examples", 400}}}, {"rounds", 2}, {"trainer", {{"learning_rate", 0.01}}}}));
}

TEST(SecureLoopback, DistributedNoise) {
  expect_parity(experiment({{"round", {{"cohort", 4}, {"weighting", "uniform"}, {"minimum_updates", 3}}},
                            {"sampler", {{"name", "cyclic"}, {"separation", 2}}},
                            {"privacy", {{"mechanism", {{"name", "distributed_discrete_gaussian"}, {"clip_norm", 0.5}}}, {"noise_multiplier", 0.8}, {"delta", 1e-5}, {"randomness", "seeded"},
                                         {"accountant", {{"name", "rdp"}}}, {"adjacency", "replace_one"}}}}));
}

TEST(SecureLoopback, CentralNoise) {
  expect_parity(experiment({{"round", {{"cohort", 4}, {"weighting", "uniform"}}},
                            {"sampler", {{"name", "cyclic"}, {"separation", 2}}},
                            {"privacy", {{"mechanism", {{"name", "central_gaussian"}, {"clip_norm", 0.5}}}, {"noise_multiplier", 0.8}, {"delta", 1e-5}, {"randomness", "seeded"},
                                         {"accountant", {{"name", "rdp"}}}, {"adjacency", "replace_one"}}}}));
}

/// Every model of the run follows from who was accepted in which round, whatever else happened.
void expect_replay_agrees(const Loopback& federation) {
  const RecordedRun recorded = read_recorded_run(const_cast<Loopback&>(federation).config().folder);
  const Prepared prepared = prepare(replay_experiment(recorded));
  const auto difference = replay(recorded, prepared, ReplayOptions{});
  EXPECT_FALSE(difference) << difference->why;
}

TEST(SecureLoopback, ClientsThatLeaveInTheMiddleOfTheProtocol) {
  Loopback federation(experiment({{"rounds", 6}, {"round", {{"max_abandoned", 6}}}}));
  federation.config().limits.grace_s = 1;
  federation.config().clients.minimum = 5;
  federation.start_server();
  federation.start_clients(0, federation.population());
  // Three go, each when it has begun another step; the others finish.
  for (const auto& [client, step] : {std::pair<std::size_t, int>{1, 2}, {4, 3}, {6, 5}}) {
    while (federation.client(client).await("secure_step").facts.at("step") != step) {
    }
    federation.stop_client(client);
  }
  EXPECT_EQ(federation.finish().at("rounds"), 6);
  const RoundReport last = federation.reports().back();
  EXPECT_FALSE(last.abandoned);
  EXPECT_EQ(last.count(Outcome::accepted), 5U);
  expect_replay_agrees(federation);
}

TEST(SecureLoopback, AServerThatStopsAndComesBack) {
  const json document = experiment({{"rounds", 8}, {"round", {{"max_abandoned", 8}}}});
  Loopback federation(document);
  federation.start_server();
  federation.start_clients(0, federation.population());
  for (int i = 0; i < 2; ++i) {
    federation.await_rounds(2);
    federation.stop_server();
    federation.start_server();
  }
  EXPECT_EQ(federation.finish().at("rounds"), 8);
  // A round that was masked before the server stopped cannot be done again: it is abandoned, and the next one goes on.
  std::size_t summed = 0;
  for (const RoundReport& report : federation.reports()) summed += report.round > 0 && !report.abandoned ? 1 : 0;
  EXPECT_GE(summed, 6U);
  expect_replay_agrees(federation);
}

TEST(SecureLoopback, AClientRemembersWhatItMasked) {
  Loopback federation(experiment({{"rounds", 2}}));
  federation.start_server();
  federation.start_clients(0, federation.population());
  federation.finish();
  federation.stop_clients();
  for (std::size_t i = 0; i < federation.population(); ++i) {
    const json log = read_json_file(federation.client_config(i).state + "/masked_rounds.json");
    EXPECT_THAT(log.dump(), HasSubstr("2")) << log;
  }
}

TEST(SecureLoopback, AnOwnerWhoInsistsIsNotTalkedOutOfIt) {
  Loopback federation(without(experiment()));
  federation.start_server();
  ClientConfig config = federation.client_config(0);
  config.secure_aggregation.required = true;
  LoopbackClient client(config, federation.local_data(0), {});
  EXPECT_THAT(client.await("warning").text, HasSubstr("secure_aggregation.required"));

  Loopback curious(experiment({{"secure_aggregation", {{"server", "curious"}}}}));
  curious.start_server();
  LoopbackClient& other = curious.start_client(0);
  EXPECT_THAT(other.await("warning").text, HasSubstr("this client insists on \"semi_malicious\""));
}

TEST(SecureLoopback, WithoutAStateFolderAClientTakesNoPart) {
  Loopback federation(experiment());
  federation.start_server();
  ClientConfig config = federation.client_config(0);
  config.state.clear();
  LoopbackClient client(config, federation.local_data(0), {});
  EXPECT_THAT(client.await("warning").text, HasSubstr("state: without a folder"));
}

}  // namespace
}  // namespace fl
