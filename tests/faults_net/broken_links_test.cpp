// Whatever happens to the connections: an update that was computed is delivered, counted once, and the run ends in the bits of the
// undisturbed run.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/net_support/net/loopback.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using test::Loopback;

/// Four clients, three rounds. With `blobs` the model has 84 KB, so that it travels in pieces.
nlohmann::json experiment(bool blobs, int rounds = 3) {
  nlohmann::json document = test::toy_experiment();
  if (blobs) document["data"].merge_patch({{"input", {300}}, {"classes", 70}, {"examples", 200}, {"test_examples", 20}});
  document["trainer"]["learning_rate"] = blobs ? 0.01 : 0.1;
  document["partition"] = {{"name", "iid"}, {"clients", 4}};
  document["rounds"] = rounds;
  document["round"] = {{"cohort", 4}};
  return document;
}

class BrokenLinks : public testing::Test {
 protected:
  /// Runs the federation with these rules between clients and aggregator; every update must have been accepted, and the models
  /// be those of the simulation. Returns what the proxy did.
  static test::FaultCounts run(const nlohmann::json& document, const nlohmann::json& rules, const std::function<void(ServerConfig&)>& change = {}) {
    Loopback federation(document);
    if (change) change(federation.config());
    federation.proxy().change({{"seed", 5}, {"rules", rules}});
    federation.start_server();
    federation.start_clients(0, 4);
    federation.finish();
    EXPECT_EQ(federation.model_hashes(), test::simulated_hashes(document, 2));
    for (const RoundReport& report : federation.reports()) EXPECT_EQ(report.count(Outcome::accepted), 4U) << "round " << report.round;
    return federation.proxy().counts();
  }
};

TEST_F(BrokenLinks, ControlNothingHappens) { EXPECT_EQ(run(experiment(true), nlohmann::json::array()).connections, 4U); }

TEST_F(BrokenLinks, OneByteAtATime) { run(experiment(false), {{{"slice_bytes", 1}}}); }

TEST_F(BrokenLinks, SlowAndLate) { run(experiment(true), {{{"bandwidth_bytes_s", 600'000}, {"delay_ms", 3}, {"jitter_ms", 5}}}); }

TEST_F(BrokenLinks, ResetsInTheMiddleOfFetches) {
  // A handshake and a round's 84 KB come down; half of the connections end on the way.
  EXPECT_GE(run(experiment(true), {{{"direction", "down"}, {"probability", 0.5}, {"reset_after_bytes", 50'000}}}).resets, 1U);
}

TEST_F(BrokenLinks, ResetsInTheMiddleOfUploads) {
  EXPECT_GE(run(experiment(true), {{{"direction", "up"}, {"probability", 0.5}, {"reset_after_bytes", 60'000}}}).resets, 1U);
}

TEST_F(BrokenLinks, NoConnectionCarriesAWholeUpdate) {
  // An update has 600 KB and travels in pieces of 256 KiB; each connection carries 400 KB up and dies. Only because uploads go on
  // where they were does it ever end: at least one break for each of 4 clients in each of 2 rounds.
  auto document = experiment(true, 2);
  document["data"].merge_patch({{"input", {999}}, {"classes", 150}});
  EXPECT_GE(run(document, {{{"direction", "up"}, {"reset_after_bytes", 400'000}}}).resets, 8U);
}

TEST_F(BrokenLinks, OrderlyEndsInTheMiddle) {
  EXPECT_GE(run(experiment(true), {{{"direction", "up"}, {"probability", 0.6}, {"cut_after_bytes", 55'000}}}).cuts, 1U);
}

TEST_F(BrokenLinks, HalfOpenConnectionsAreFoundAndReplaced) {
  const auto counts = run(experiment(true), {{{"direction", "up"}, {"connection", 1}, {"half_open_after_bytes", 30'000}},
                                             {{"direction", "down"}, {"connection", 2}, {"half_open_after_bytes", 30'000}}},
                          [](ServerConfig& config) { config.limits.heartbeat_s = 1; });
  EXPECT_EQ(counts.half_open, 2U);
  EXPECT_GE(counts.connections, 6U);
}

TEST_F(BrokenLinks, FlippedBitsNeverReachTheModel) {
  EXPECT_GE(run(experiment(true), {{{"direction", "up"}, {"probability", 0.5}, {"corrupt_byte", 20'000}},
                                   {{"direction", "down"}, {"probability", 0.5}, {"corrupt_byte", 70'000}}})
                .corrupted,
            1U);
}

TEST_F(BrokenLinks, RepeatedBytesNeverReachTheModel) {
  EXPECT_GE(run(experiment(true), {{{"direction", "up"}, {"probability", 0.5}, {"duplicate_bytes", {20'000, 500}}}}).duplicated, 500U);
}

TEST_F(BrokenLinks, RefusedConnectionsAreTriedAgain) { EXPECT_GE(run(experiment(false), {{{"probability", 0.6}, {"refuse", true}}}).refused, 1U); }

TEST_F(BrokenLinks, ADozenOfRandomScripts) {
  for (int seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    run(experiment(true, 2), {{{"probability", 0.3}, {"direction", "up"}, {"reset_after_bytes", 7'000 + seed * 9'000}},
                              {{"probability", 0.3}, {"direction", "down"}, {"cut_after_bytes", 4'000 + seed * 11'000}},
                              {{"probability", 0.2}, {"corrupt_byte", 5'000 * seed}},
                              {{"jitter_ms", 2}, {"slice_bytes", 3'000}}});
  }
}

TEST_F(BrokenLinks, APartitionHealsWithoutDoubleCounting) {
  const auto document = experiment(true, 6);
  Loopback federation(document);
  federation.config().limits.heartbeat_s = 1;
  federation.start_server();
  federation.start_clients(0, 4);
  federation.await_rounds(1);
  federation.proxy().pause();
  // Both sides find out by themselves: three heartbeats of silence.
  for (std::size_t i = 0; i < 4; ++i) federation.client(i).await("disconnected");
  federation.proxy().go_on();
  federation.finish();
  EXPECT_EQ(federation.model_hashes(), test::simulated_hashes(document, 1));
  for (const RoundReport& report : federation.reports()) EXPECT_EQ(report.count(Outcome::accepted), 4U);
}

TEST_F(BrokenLinks, TheAggregatorIsReplacedBehindAPartition) {
  const auto document = experiment(true, 6);
  Loopback federation(document);
  federation.start_server();
  federation.start_clients(0, 4);
  federation.await_rounds(2);
  federation.proxy().pause();
  federation.stop_server();  // its goodbyes do not arrive
  federation.proxy().close_all();
  federation.start_server();  // another port, the same folder
  federation.proxy().go_on();
  federation.finish();
  EXPECT_EQ(federation.model_hashes(), test::simulated_hashes(document, 1));
}

TEST_F(BrokenLinks, AClientThatIsReplacedInTheMiddleDeliversWhatItComputed) {
  const auto document = experiment(true, 4);
  Loopback federation(document);
  federation.start_server();
  federation.start_clients(0, 3);
  for (int life = 0; life < 3; ++life) {
    auto& client = federation.start_client(3);
    client.await("trained");
    federation.stop_client(3);  // with its answer in the state folder, delivered or not
  }
  federation.start_client(3);
  federation.finish();
  const auto reports = federation.reports();
  ASSERT_EQ(reports.size(), 4U);
  EXPECT_EQ(reports.back().count(Outcome::accepted), 4U);
}

}  // namespace
}  // namespace fl
