#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <memory>
#include <string>

#include "aggregator/server_config.h"
#include "privacy/noise/noise_keys.h"

namespace fl {

/// How the program around serve() takes part. All may be empty.
struct ServeHooks {
  std::function<bool()> should_stop;                    ///< SIGTERM: end politely, the run can go on later
  std::function<bool()> take_reload;                    ///< SIGHUP: true once, certificates are read again
  std::function<void(const std::string&)> say;          ///< a line for a person
  std::function<void(const nlohmann::json&)> line;      ///< a line for a program: each round's report
  std::function<void()> worker_setup;                   ///< first on every thread that evaluates (LibTorch's thread limits)
  nlohmann::json* versions = nullptr;
  std::shared_ptr<NoiseKeys> noise_keys;                ///< of a privacy promise; default: SecureNoiseKeys. Tests put seeded ones
};

/// The deployed aggregator: starts the run in config.folder or goes on with it, serves clients until the last round is
/// committed, says goodbye, and returns run.json. Throws ConfigError before the port is opened when anything does not fit,
/// Interrupted when asked to stop (clients are told when to come back), TrainingError and IoError as Run does.
nlohmann::json serve(const ServerConfig& config, const ServeHooks& hooks);

}  // namespace fl
