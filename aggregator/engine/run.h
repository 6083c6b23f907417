#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "aggregator/engine/federation.h"

namespace fl {

/// What a run needs beside its experiment. References are borrowed and outlive the run.
struct RunParts {
  RunParts(const Experiment& e, RunFolder& f, Transport& t, ParameterVector i) : experiment(e), folder(f), transport(t), initial(std::move(i)) {}

  const Experiment& experiment;
  RunFolder& folder;
  Transport& transport;
  ParameterVector initial;                 ///< the model of round 0
  std::uint64_t population = 0;            ///< the most clients that there can be
  std::string data_fingerprint;            ///< of the data in this process; empty without any
  PrivacyGuard* privacy = nullptr;         ///< of an experiment with a privacy section
  SecureCollector* secure = nullptr;       ///< of an experiment with a secure_aggregation section
  std::unique_ptr<Sampler> sampler;        ///< the experiment's when empty; a replay brings its own
  nlohmann::json facts = nlohmann::json::object();  ///< versions and the like, for the journal and run.json
  std::string how_to_go_on;                ///< ends the message of an interrupted run: "fl resume runs/x"
  BeginEvaluation evaluate;                ///< on the test set; empty without test data
  std::function<void(std::uint32_t round)> on_begin;           ///< when its tasks were sent
  std::function<void(const RoundReport&)> on_round;            ///< when it was completed; the next one may have begun
  std::function<void(std::uint32_t round, std::size_t answered, std::size_t asked)> on_progress;
  std::function<void(Seconds)> set_clock;
  std::function<bool()> should_stop;
};

/// The most updates that a round may add. The exact sum is scaled for it, so it belongs to the run's bits: what the run began with holds.
std::uint64_t max_updates_of(const Experiment& experiment, const Sampler& sampler, std::uint64_t population, Store& store);

/// One run, simulated or deployed: builds codec, sampler, strategy and engine from the experiment, runs the federation, and
/// keeps run.json. What differs between simulation and deployment is the transport alone.
class Run {
 public:
  /// Throws ConfigError when the folder's run was begun with other data or another experiment (but for more rounds).
  explicit Run(RunParts parts);

  /// Returns run.json: status, rounds, accuracy, loss, client_accuracy {clients, mean, p10, p90} or null, model_sha256,
  /// seconds (of rounds, and of evaluations while nothing else went on), seconds_rounds and cpu_seconds_rounds (FederationTotals), train_samples_per_s, client_rounds_per_s, peak_rss_bytes, bytes_up, bytes_down, parameters, privacy (with a promise only), and the facts.
  /// Rates and bytes are null where noise hides who took part.
  /// Throws Interrupted, TrainingError and BudgetExhausted after run.json was written, and IoError; what was committed before is safe.
  nlohmann::json run();

  /// Whether updates may be added up before the engine sees them: it only needs their sum, and judges none by those before it.
  bool takes_sums() const;

 private:
  void note_facts();
  void check_fact(const std::string& key, const std::string& value, const char* complaint);
  std::unique_ptr<Strategy> make_strategy();
  nlohmann::json write_summary(const FederationTotals& totals, const std::string& status);

  RunParts parts_;
  std::unique_ptr<Codec> codec_;
  std::unique_ptr<Strategy> strategy_;
  RoundEngine engine_;
};

}  // namespace fl
