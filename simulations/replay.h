#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fl_core/round/types.h"
#include "simulations/simulation.h"

namespace fl {

/// A run as its journal tells it: everything on which its models depend beside the clients' data.
struct RecordedRun {
  std::filesystem::path folder;
  nlohmann::json experiment;               ///< experiment.json
  std::vector<RoundReport> rounds;         ///< 1, 2, …
  std::vector<std::string> model_sha256;   ///< after each round, beginning with round 0: one more than `rounds`
  std::optional<std::uint64_t> max_updates;  ///< the scale of the exact sum; absent in old records
  std::optional<std::string> privacy_noise;  ///< of a run with a promise: what its noise was scaled for
  std::string data_fingerprint;            ///< of the data that the server had; may be empty
};

/// Reads the record of a run, deployed or simulated, without writing to its folder. Throws ConfigError when the folder holds
/// no run, a damaged one, one without a round, or one that a process works on; IoError.
RecordedRun read_recorded_run(const std::filesystem::path& folder);

/// The recorded experiment as a replay runs it: as many rounds as were committed, without devices, deadline,
/// over-selection, evaluation and observers, since the record says who was asked and who was accepted. Throws ConfigError.
Experiment replay_experiment(const RecordedRun& recorded);

struct ReplayOptions {
  std::size_t workers = 1;
  std::function<void()> worker_setup;                     ///< as in SimulationOptions
  std::function<void(std::uint32_t round, const std::string& model_sha256)> on_round;  ///< of each round that agrees
  std::function<bool()> should_stop;                      ///< called from several threads at a time; may be empty
};

/// Where a replay and its record part.
struct ReplayDifference {
  std::uint32_t round = 0;  ///< the first round that differs; 0 is the initial model
  std::string recorded;     ///< SHA-256 of the model
  std::string replayed;
  std::string why;          ///< what is known of the cause, as one sentence
};

/// Runs the recorded rounds again in this process: in each the recorded cohort is asked, and who was not accepted then does
/// not answer now. Compares the model's SHA-256 after every round and stops at the first difference; nothing when all
/// agree. `prepared` is made from replay_experiment(). Works in a temporary folder. Throws ConfigError when clients took part
/// that the experiment's partition does not have, Interrupted, and IoError.
std::optional<ReplayDifference> replay(const RecordedRun& recorded, const Prepared& prepared, const ReplayOptions& options);

}  // namespace fl
