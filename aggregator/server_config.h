#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>  // a member holds a JSON value
#include <optional>
#include <string>
#include <vector>

#include "fl_core/config/experiment.h"
#include "fl_core/ml/dataset.h"
#include "fl_core/net/tls_context.h"

namespace fl {

/// Who may take part.
struct ServerClients {
  std::optional<std::int64_t> minimum;   ///< connected and ready before a round begins; default: the experiment's cohort
  std::optional<std::int64_t> at_start;  ///< the same before the first round of this process; default: minimum
  std::string admit = "certified";       ///< or "listed"
  std::vector<std::string> listed;       ///< names in certificates; their numbers are 0, 1, … in this order

  void fields(Fields& f);
};

/// What clients may cost.
struct ServerLimits {
  std::int64_t uploads = 2;
  std::int64_t sessions = 20'000;
  std::int64_t handshakes_per_address = 256;
  double grace_s = 60;
  std::int64_t heartbeat_s = 15;
  double handshake_s = 10;
  double minimum_bytes_per_s = 10'000;
  double frames_per_s = 100;
  std::int64_t retry_s = 5;

  void fields(Fields& f);
};

/// What server.json says. Paths are absolute once it was loaded.
struct ServerConfig {
  nlohmann::json experiment_source = "experiment.json";  ///< a path, or the experiment itself
  Experiment experiment;
  std::string folder = "run";
  std::string listen = "0.0.0.0:7443";
  TlsFiles tls;
  ServerClients clients;
  ServerLimits limits;
  std::optional<std::string> health;        ///< address of the health server
  std::optional<ExampleShape> data_shape;   ///< of clients' examples, for an aggregator without data of its own
  std::int64_t workers = 1;                 ///< threads that evaluate

  void fields(Fields& f);
};

/// Reads server.json and the experiment that it names. Errors begin with the file's name.
ServerConfig load_server_config(const std::filesystem::path& path);
/// Every key with type, default, unit and meaning.
nlohmann::json server_config_schema();

}  // namespace fl
