#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "aggregator/server_config.h"
#include "client/client_config.h"
#include "client/net/deployed_client.h"
#include "fl_core/round/types.h"
#include "simulations/simulation.h"
#include "tests/net_support/net/fault_proxy.h"
#include "tests/net_support/net/test_pki.h"
#include "tests/support/test_support.h"

namespace fl::test {

/// Clients of an experiment as they are deployed, each with its shard, certificate and state folder.
class LoopbackClient {
 public:
  LoopbackClient(ClientConfig config, LocalData data, ClientHooks hooks);
  /// Stops it politely.
  ~LoopbackClient();
  LoopbackClient(const LoopbackClient&) = delete;
  LoopbackClient& operator=(const LoopbackClient&) = delete;

  /// Blocks until an event of this name came since the last call for it, and returns it. Throws Error when the client ends
  /// before, or after a minute.
  ClientEvent await(const std::string& name);
  /// How often an event came.
  std::size_t count(const std::string& name) const;
  /// Blocks until the client has ended. Rethrows what ended it.
  ExitCode wait();

 private:
  void note(const ClientEvent& event);

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<ClientEvent> events_;
  std::map<std::string, std::size_t> seen_;  ///< by await(): events of this name, counted over events_
  bool over_ = false;
  ExitCode code_ = ExitCode::ok;
  std::exception_ptr error_;
  std::unique_ptr<DeployedClient> client_;
  std::thread thread_;
};

/// A whole federation over mutual TLS on loop-back, in this process and without LibTorch: serve() in one thread, deployed
/// clients in others, and a fault proxy between them. Clients are listed, so that their numbers are the simulation's.
class Loopback {
 public:
  /// `experiment` names the model "toy_softmax". Everybody of its partition gets a certificate.
  explicit Loopback(const nlohmann::json& experiment);
  ~Loopback();
  Loopback(const Loopback&) = delete;
  Loopback& operator=(const Loopback&) = delete;

  /// What the aggregator will be started with: change it before start_server().
  ServerConfig& config() { return config_; }
  TestPki& pki() { return pki_; }
  /// All clients go through it.
  FaultProxy& proxy() { return proxy_; }
  const Prepared& prepared() const { return prepared_; }
  std::uint64_t population() const { return prepared_.partition->clients(); }
  std::filesystem::path folder() const { return folder_.path(); }

  /// Runs first on every thread that evaluates: set it before start_server().
  std::function<void()> evaluation_setup;

  /// Opens the port; returns when it is open. Throws what serve() throws.
  void start_server();
  /// Blocks until the run has ended; returns run.json. Rethrows.
  nlohmann::json finish();
  /// Interrupts the run politely, as SIGTERM does; returns when it has ended.
  void stop_server();
  /// Reads certificates and the revocation list again, as SIGHUP does.
  void reload() { reload_ = true; }
  std::uint16_t port() const { return port_; }

  ClientConfig client_config(std::size_t number) const;
  LocalData local_data(std::size_t number) const;
  LoopbackClient& start_client(std::size_t number, ClientHooks hooks = {});
  void start_clients(std::size_t first, std::size_t count);
  LoopbackClient& client(std::size_t number) { return *clients_.at(number); }
  void stop_client(std::size_t number) { clients_.at(number).reset(); }
  void stop_clients() { clients_.clear(); clients_.resize(population()); }

  /// Rounds that were reported so far.
  std::size_t rounds() const;
  /// Blocks until `more` further rounds were reported. Throws Error when the run ends before, or after two minutes.
  void await_rounds(std::size_t more);
  /// Lines for people that hold this text, so far.
  bool said(const std::string& text) const;

  /// From the journal, which may be in use: the model's hash after each round, from round 0 on.
  std::vector<std::string> model_hashes() const;
  /// The committed rounds' reports, cohort and outcomes included.
  std::vector<RoundReport> reports() const;

  /// Seeded ones where the experiment wants them, as no deployed program has; null otherwise.
  std::shared_ptr<NoiseKeys> noise_keys() const;

 private:
  void run_server();

  TemporaryFolder folder_;
  Prepared prepared_;
  TestPki pki_;
  ServerConfig config_;
  FaultProxy proxy_{1};
  std::uint16_t port_ = 0;
  std::atomic<bool> stop_ = false;
  std::atomic<bool> reload_ = false;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool open_ = false;
  bool over_ = false;
  std::size_t rounds_ = 0;
  std::vector<std::string> lines_;
  nlohmann::json summary_;
  std::exception_ptr error_;
  std::thread thread_;
  std::vector<std::unique_ptr<LoopbackClient>> clients_;
};

/// The model's hash after each round of the experiment, from round 0 on, simulated in this process.
std::vector<std::string> simulated_hashes(const nlohmann::json& experiment, std::size_t workers);

}  // namespace fl::test
