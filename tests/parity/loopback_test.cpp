#include "tests/net_support/net/loopback.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>

#include "aggregator/net/serve.h"
#include "aggregator/store/journal.h"
#include "fl_core/config/json_reader.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using test::Loopback;
using test::LoopbackClient;

/// Eight clients; five are asked a round.
nlohmann::json experiment(const nlohmann::json& changes = nlohmann::json::object()) {
  nlohmann::json document = test::toy_experiment();
  document["partition"] = {{"name", "dirichlet"}, {"clients", 8}, {"alpha", 1.0}};
  document["rounds"] = 4;
  document.merge_patch(changes);
  return document;
}

/// Clients in the order in which they sent their answers, round by round.
class Order {
 public:
  ClientHooks hooks(std::size_t client) {
    ClientHooks hooks;
    hooks.on_event = [this, client](const ClientEvent& event) {
      if (event.name != "sent") return;
      const std::lock_guard lock(mutex_);
      sent_.push_back(client);
    };
    return hooks;
  }
  std::vector<std::size_t> sent() const { return sent_; }

 private:
  std::mutex mutex_;
  std::vector<std::size_t> sent_;
};

/// The same experiment in process with 1 and 4 workers, and over TLS where every piece of every connection is held for a time
/// of its own, so that answers come in another order each time.
void expect_parity(const nlohmann::json& document) {
  const auto expected = test::simulated_hashes(document, 1);
  ASSERT_EQ(expected.size(), document.at("rounds").get<std::size_t>() + 1);
  EXPECT_EQ(test::simulated_hashes(document, 4), expected);
  std::set<std::vector<std::size_t>> orders;
  for (const int seed : {1, 2, 3}) {
    Loopback federation(document);
    Order order;
    federation.proxy().change({{"seed", seed}, {"rules", {{{"jitter_ms", 12}}}}});
    federation.start_server();
    for (std::size_t i = 0; i < federation.population(); ++i) federation.start_client(i, order.hooks(i));
    const auto summary = federation.finish();
    EXPECT_EQ(summary.at("model_sha256"), expected.back());
    EXPECT_EQ(federation.model_hashes(), expected) << "delays with seed " << seed;
    federation.stop_clients();
    orders.insert(order.sent());
  }
  EXPECT_GT(orders.size(), 1U) << "the answers came in the same order each time: nothing was shown";
}

TEST(LoopbackParity, FedAvg) { expect_parity(experiment()); }

TEST(LoopbackParity, FedOptAdam) {
  expect_parity(experiment({{"strategy", {{"name", "fedopt"}, {"optimizer", "adam"}, {"learning_rate", 0.01}}}}));
}

TEST(LoopbackParity, FedOptYogi) {
  expect_parity(experiment({{"strategy", {{"name", "fedopt"}, {"optimizer", "yogi"}, {"learning_rate", 0.01}}}}));
}

TEST(LoopbackParity, Fp16Codec) { expect_parity(experiment({{"codec", {{"name", "fp16"}}}})); }

TEST(LoopbackParity, PoissonSampler) { expect_parity(experiment({{"sampler", {{"name", "poisson"}}}, {"rounds", 6}})); }

TEST(LoopbackParity, ClientHoldoutAndPerClientEvaluation) {
  expect_parity(experiment({{"evaluation", {{"client_holdout", 0.25}, {"per_client_every", 2}, {"per_client_count", 6}}}}));
}

TEST(LoopbackParity, SeveralEpochsWithMomentumAndUniformWeights) {
  expect_parity(experiment({{"trainer", {{"epochs", 2}, {"momentum", 0.9}}}, {"round", {{"weighting", "uniform"}}}}));
}

/// Weights and updates above 64 KiB travel as blobs: 70 × 300 + 71 floats are 84 KB.
TEST(LoopbackParity, ModelsThatTravelAsBlobs) {
  expect_parity(experiment({{"data", {{"input", {300}}, {"classes", 70}, {"examples", 400}}}, {"rounds", 3}, {"trainer", {{"learning_rate", 0.01}}}}));
}

/// An evaluation that cannot go on before the answers to the next round are in: it would never end if devices waited for it.
TEST(LoopbackParity, DevicesDoNotWaitForAnEvaluation) {
  const auto document = experiment({{"rounds", 3}, {"partition", {{"clients", 5}}}});
  const auto expected = test::simulated_hashes(document, 1);
  Loopback federation(document);
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t sent = 0;
  std::size_t evaluations = 0;
  bool in_time = true;
  federation.evaluation_setup = [&] {
    std::unique_lock lock(mutex);
    const std::size_t wanted = ++evaluations < 3 ? 5 * (evaluations + 1) : 0;  // the last has no round after it
    in_time = in_time && changed.wait_for(lock, std::chrono::minutes(1), [&] { return sent >= wanted; });
  };
  federation.config().workers = 1;
  federation.start_server();
  for (std::size_t i = 0; i < federation.population(); ++i) {
    ClientHooks hooks;
    hooks.on_event = [&](const ClientEvent& event) {
      if (event.name != "sent") return;
      const std::lock_guard lock(mutex);
      ++sent;
      changed.notify_all();
    };
    federation.start_client(i, hooks);
  }
  const auto summary = federation.finish();
  EXPECT_EQ(evaluations, 3U);
  EXPECT_TRUE(in_time) << "no device was asked before the evaluation was over";
  EXPECT_EQ(federation.model_hashes(), expected);
  const auto reports = federation.reports();
  ASSERT_EQ(reports.size(), 3U);
  for (const RoundReport& report : reports) EXPECT_TRUE(report.accuracy.has_value());
  EXPECT_EQ(summary.at("accuracy"), *reports.back().accuracy);
  federation.stop_clients();
}

/// With seeded noise, which no deployed program has.
nlohmann::json private_experiment(const nlohmann::json& mechanism, const nlohmann::json& changes = nlohmann::json::object()) {
  nlohmann::json document = experiment({{"round", {{"cohort", 4}, {"weighting", "uniform"}}},
                                        {"sampler", {{"name", "cyclic"}, {"separation", 2}}},
                                        {"privacy", {{"noise_multiplier", 0.8}, {"delta", 1e-5}, {"randomness", "seeded"}, {"accountant", {{"name", "rdp"}}}, {"adjacency", "replace_one"}}}});
  document["privacy"]["mechanism"] = mechanism;
  document.merge_patch(changes);
  return document;
}

TEST(LoopbackParity, CentralNoiseOverPoissonCohorts) {
  expect_parity(private_experiment({{"name", "central_gaussian"}, {"clip_norm", 0.5}}, {{"sampler", {{"name", "poisson"}, {"separation", nullptr}}}, {"privacy", {{"sampling", "poisson"}, {"adjacency", "add_or_remove_one"}}}, {"rounds", 6}}));
}
TEST(LoopbackParity, AdaptiveClip) {
  expect_parity(private_experiment({{"name", "central_gaussian"}, {"clip_norm", 0.1}, {"adaptive", {{"quantile", 0.5}, {"count_stddev", 3}}}}));
}
TEST(LoopbackParity, LocalNoise) { expect_parity(private_experiment({{"name", "local_gaussian"}, {"clip_norm", 0.5}})); }
TEST(LoopbackParity, CorrelatedNoise) { expect_parity(private_experiment({{"name", "dp_ftrl_tree"}, {"clip_norm", 0.5}})); }
TEST(LoopbackParity, DistributedIntegerNoise) { expect_parity(private_experiment({{"name", "distributed_discrete_gaussian"}, {"clip_norm", 0.5}})); }

TEST(LoopbackParity, TheLedgerOfASecureDeploymentIsTheSimulations) {
  auto document = private_experiment({{"name", "central_gaussian"}, {"clip_norm", 0.5}}, {{"privacy", {{"randomness", "secure"}}}});
  Loopback federation(document);
  federation.start_server();
  federation.start_clients(0, federation.population());
  const auto summary = federation.finish();
  const test::TemporaryFolder folder;
  SimulationOptions options;
  options.folder = folder / "run";
  const auto simulated = run_simulation(federation.prepared(), options);
  EXPECT_EQ(summary.at("privacy"), simulated.at("privacy"));
  EXPECT_TRUE(summary.at("privacy").at("private").get<bool>());
  EXPECT_NE(summary.at("model_sha256"), simulated.at("model_sha256")) << "noise never repeats";
  const auto charges = [](const std::filesystem::path& run) {
    std::vector<std::string> hashes;
    for (const LedgerEntry& entry : open_journal(run / "journal.db", JournalMode::existing)->ledger()) hashes.push_back(entry.hash);
    return hashes;
  };
  EXPECT_EQ(charges(federation.config().folder), charges(folder / "run"));
  EXPECT_EQ(charges(folder / "run").size(), 4U);
}

TEST(LoopbackParity, SeededNoiseIsRefusedByWhatIsDeployed) {
  const auto document = private_experiment({{"name", "local_gaussian"}, {"clip_norm", 0.5}});
  Loopback federation(document);
  ServeHooks hooks;  // as fl-aggregator's: no seeded keys
  EXPECT_THAT(test::error_of([&] { serve(federation.config(), hooks); }), testing::HasSubstr("privacy.randomness: got \"seeded\", expected \"secure\""));
  // A client that has none refuses the plan of a server that has.
  federation.start_server();
  ClientHooks secure;
  secure.noise_keys = std::make_shared<SecureNoiseKeys>();
  LoopbackClient& client = federation.start_client(0, secure);
  EXPECT_THAT(client.await("warning").text, testing::HasSubstr("privacy.randomness"));
}

/// Four rounds, of which the sampler lets a client take part in two. A server that begins again asks more often than was promised.
TEST(LoopbackParity, ADeviceTakesPartAsOftenAsWasPromisedAndNoMore) {
  Loopback federation(private_experiment({{"name", "local_gaussian"}, {"clip_norm", 0.5}}));
  federation.start_server();
  federation.start_clients(0, federation.population());
  EXPECT_EQ(federation.finish().at("rounds"), 4);
  federation.stop_clients();
  for (std::size_t i = 0; i < federation.population(); ++i) {
    const auto log = read_json_file(federation.client_config(i).state + "/participations.json");
    ASSERT_EQ(log.size(), 1U);
    EXPECT_EQ(log.begin()->get<int>(), 2);
  }
  federation.config().folder = (federation.folder() / "again").string();
  federation.start_server();
  federation.start_clients(0, federation.population());
  EXPECT_THAT(test::error_of([&] { federation.finish(); }), testing::HasSubstr("as often as the privacy promise allows"));
}

TEST(LoopbackParity, TheSeedMatters) {
  // The positive control of all the above: hashes differ when anything that counts does.
  auto other = experiment();
  other["seed"] = 4;
  EXPECT_NE(test::simulated_hashes(other, 1), test::simulated_hashes(experiment(), 1));
}

}  // namespace
}  // namespace fl
