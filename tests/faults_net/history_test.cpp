// Random histories of crashes of everybody, and the books that must balance afterwards: an update that was acknowledged is in the
// journal once, and the model is the sum of what the journal says was accepted, each counted once.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <set>

#include "aggregator/store/journal.h"
#include "fl_core/base/rng.h"
#include "tests/net_support/net/loopback.h"
#include "tests/net_support/net/recount.h"
#include "tests/net_support/net/test_programs.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using test::ChildProcess;
using test::Crash;
using test::Loopback;

constexpr std::uint64_t kClients = 3;
constexpr int kServerLives = 8;
constexpr int kClientLives = 6;

/// The model is a blob, so that fetches and uploads are broken off in the middle too.
nlohmann::json experiment(std::uint64_t seed) {
  nlohmann::json document = test::toy_experiment();
  document["seed"] = seed;
  document["data"] = {{"name", "synthetic"}, {"examples", 90}, {"test_examples", 10}, {"input", {300}}, {"classes", 70}};
  document["partition"] = {{"name", "iid"}, {"clients", kClients}};
  document["trainer"]["learning_rate"] = 0.01;
  document["rounds"] = 4;
  document["round"] = {{"cohort", kClients}, {"max_abandoned", 1000}};
  document["evaluation"] = {{"every", 0}};
  return document;
}

/// One federation in which the aggregator and the clients die at random changes of their folders, and are started again.
class History {
 public:
  explicit History(std::uint64_t seed) : rng_(seed, Purpose::device), federation_(experiment(seed)) {
    ServerConfig& config = federation_.config();
    config.clients.minimum = static_cast<std::int64_t>(1 + rng_.below(kClients));
    config.limits.grace_s = rng_.below(2) == 0 ? 0.05 : 20;
    config.limits.uploads = static_cast<std::int64_t>(1 + rng_.below(2));
    if (rng_.below(3) == 0) federation_.proxy().change({{"seed", seed}, {"rules", {{{"probability", 0.3}, {"reset_after_bytes", 40'000}}}}});
  }

  void run() {
    clients_.resize(kClients);
    client_lives_.resize(kClients);
    for (std::size_t i = 0; i < kClients; ++i) start_client(i);
    for (int life = 0; life < kServerLives; ++life) {
      server_ = spawn_server(federation_, last(life, kServerLives) ? Crash{} : draw(120));
      const int code = watch();
      if (code == 0) return check();
      ++server_crashes_;
      ASSERT_EQ(code, -SIGKILL) << server_->last_line();
    }
    FAIL() << "the aggregator's last life was not crashed on purpose, and yet it did not end in order";
  }

  int server_crashes() const { return server_crashes_; }
  int client_crashes() const { return client_crashes_; }

 private:
  static bool last(int life, int lives) { return life + 1 == lives; }
  /// A crash at one of the first `changes` changes, or none.
  Crash draw(std::uint64_t changes) {
    if (rng_.below(5) == 0) return {};
    return {static_cast<long>(1 + rng_.below(changes)), rng_.below(2) == 0, ""};
  }

  void start_client(std::size_t i) {
    keep_acknowledgements(i);
    clients_[i] = spawn_client(federation_, i, last(client_lives_[i]++, kClientLives) ? Crash{} : draw(25));
  }

  /// Until the aggregator ends: whoever died is started again.
  int watch() {
    while (!server_->ended()) {
      for (std::size_t i = 0; i < kClients; ++i) {
        if (!clients_[i]->ended() || clients_[i]->wait() == 0) continue;
        ++client_crashes_;
        EXPECT_EQ(clients_[i]->wait(), -SIGKILL) << clients_[i]->last_line();
        start_client(i);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return server_->wait();
  }

  /// What the client's program was told, before it is replaced by the next.
  void keep_acknowledgements(std::size_t i) {
    if (!clients_[i]) return;
    for (const std::string& line : clients_[i]->lines()) {
      const auto event = nlohmann::json::parse(line, nullptr, false);
      if (!event.is_object() || event.value("event", "") != "settled" || event.value("outcome", "") != "accepted") continue;
      acknowledged_.emplace(event.at("round").get<std::uint32_t>(), i);
    }
  }

  void check() {
    for (std::size_t i = 0; i < kClients; ++i) {
      clients_[i]->kill(SIGKILL);
      clients_[i]->wait();
      keep_acknowledgements(i);
    }
    const auto reports = federation_.reports();
    ASSERT_EQ(reports.size(), 4U);
    std::set<std::pair<std::uint32_t, std::size_t>> counted;
    for (const RoundReport& report : reports) {
      std::set<ClientId> members;
      for (const ClientOutcome& member : report.cohort) {
        EXPECT_TRUE(members.insert(member.client).second) << "client " << member.client << " twice in round " << report.round;
        if (member.outcome == Outcome::accepted) counted.emplace(report.round, member.client);
      }
    }
    for (const auto& [round, client] : acknowledged_) {
      EXPECT_TRUE(counted.contains({round, client})) << "client " << client << " was told that round " << round << " counted it";
    }
    const auto store = open_journal(std::filesystem::path(federation_.config().folder) / "journal.db", JournalMode::existing);
    EXPECT_EQ(test::recounted_hashes(federation_.prepared(), reports, std::stoull(store->meta("max_updates").value())), store->model_hashes());
  }

  Rng rng_;
  Loopback federation_;
  std::unique_ptr<ChildProcess> server_;
  std::vector<std::unique_ptr<ChildProcess>> clients_;
  std::vector<int> client_lives_;
  std::set<std::pair<std::uint32_t, std::size_t>> acknowledged_;  ///< round, client
  int server_crashes_ = 0;
  int client_crashes_ = 0;
};

/// Thirty of them; 200 when FL_WHOLE_SWEEP is set (ctest -L slow).
TEST(CrashHistories, TheBooksBalance) {
  const std::uint64_t histories = std::getenv("FL_WHOLE_SWEEP") != nullptr ? 200 : 30;
  int servers = 0;
  int clients = 0;
  for (std::uint64_t seed = 1; seed <= histories; ++seed) {
    SCOPED_TRACE("history " + std::to_string(seed));
    History history(seed);
    history.run();
    servers += history.server_crashes();
    clients += history.client_crashes();
    if (testing::Test::HasFailure()) break;
  }
  RecordProperty("aggregators_killed", servers);
  RecordProperty("clients_killed", clients);
  EXPECT_GE(servers, static_cast<int>(histories)) << "hardly anything was killed";
  EXPECT_GE(clients, static_cast<int>(histories)) << "hardly anything was killed";
}

}  // namespace
}  // namespace fl
