#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "aggregator/sampler/sampler.h"
#include "fl_core/config/experiment.h"
#include "fl_core/ml/accelerator.h"
#include "fl_core/ml/dataset.h"
#include "fl_core/ml/model.h"
#include "fl_core/round/types.h"
#include "fl_core/transport/transport.h"
#include "simulations/partition/partitioner.h"

namespace fl {

class Cluster;
class InProcess;
class Promise;

/// An experiment with its data loaded and its parts built and checked against each other.
struct Prepared {
  Experiment experiment;
  DataSplits data;
  std::unique_ptr<Partition> partition;
  std::unique_ptr<ModelFactory> model;
  std::unique_ptr<Devices> devices = std::make_unique<Devices>();  ///< where workers' models compute
};
/// Throws ConfigError with file, path and expectation.
Prepared prepare(Experiment experiment);

struct SimulationOptions {
  std::size_t workers = 1;
  std::filesystem::path folder;      ///< the run folder: new, or one to go on with
  bool resume = false;
  nlohmann::json* versions = nullptr;  ///< noted in the journal and in run.json; may be null
  std::function<void()> worker_setup;  ///< runs first on every worker's thread (LibTorch's thread limits)
  std::function<void(const Promise&)> on_promise;  ///< once it is known, before the first round; only with a privacy section
  std::function<void(const RoundReport&)> on_round;
  std::function<void(std::uint32_t round, std::size_t answered, std::size_t asked)> on_progress;
  std::function<bool()> should_stop;   ///< called from several threads at a time
  Cluster* cluster = nullptr;          ///< of a run on several ranks, which have loaded the experiment; `workers` are then this rank's
  /// For a replay: a transport around the simulated one, another sampler, and the recorded run's scale of the exact sum.
  std::function<Transport&(InProcess&)> transport;
  std::function<std::unique_ptr<Sampler>()> sampler;
  std::optional<std::uint64_t> max_updates;
  std::optional<std::string> privacy_noise;  ///< likewise: what the recorded run's PrivacyGuard began with
};

/// Runs (or goes on with) a federation in this process and writes the run folder: experiment.json, journal.db, blobs/,
/// metrics.jsonl, model.safetensors, partition.json, run.json. Returns run.json as Run::run() does, and `workers`.
/// The model's bits do not depend on `workers` or ranks. A run that is refused (ConfigError) before it begins leaves no folder. Throws Interrupted and TrainingError after run.json was written, and
/// IoError; what was committed before is safe.
nlohmann::json run_simulation(const Prepared& prepared, const SimulationOptions& options);

/// Label counts of up to `shown` clients and the spread of shard sizes, for reports and plans.
nlohmann::json describe_partition(const Partition& partition, const Dataset& data, std::size_t shown);

}  // namespace fl
