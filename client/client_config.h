#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>  // a member holds a JSON value
#include <optional>
#include <string>
#include <vector>

#include "client/policy.h"
#include "fl_core/config/fields.h"
#include "fl_core/ml/dataset.h"
#include "fl_core/net/tls_context.h"
#include "privacy/secagg/plan.h"

namespace fl {

namespace limits {
inline constexpr std::uint64_t kExamplesFileBytes = 64ULL << 20U;  ///< the list of a client's own examples
}  // namespace limits

/// The privacy that a device's owner wants from a server.
struct PrivacyDemand {
  bool required = false;
  std::optional<double> max_epsilon;
};

/// The secure aggregation that a device's owner wants from a server: a floor under the numbers of its plan.
struct SecureAggregationDemand {
  bool required = false;
  SecAggPolicy policy;

  void fields(Fields& f);
};

/// What client.json says. Paths are absolute once it was loaded.
struct ClientConfig {
  std::string server;            ///< "host:port", "[::1]:7443"
  std::string server_name;       ///< expected in the server's certificate; the host of `server` when left out
  TlsFiles tls;
  nlohmann::json data;
  std::int64_t data_seed = 1;
  std::string examples;          ///< file with a JSON list of numbers of examples; empty: all
  std::string device = "cpu";    ///< see gpus_of() in fl_core/config/device.h; the first is used
  std::string state = "state";   ///< folder; empty: nothing is kept on disk, and a restart forgets
  ClientLimits limits;
  PrivacyDemand privacy;
  SecureAggregationDemand secure_aggregation;
  bool tell_examples = false;
  bool exit_when_finished = false;

  /// Parts of `server`, set by resolve().
  std::string host;
  std::uint16_t port = 0;

  void fields(Fields& f);
  /// Splits the address, makes paths absolute (relative ones begin in `folder`), checks what can be checked without reading.
  /// Throws ConfigError.
  void resolve(const std::filesystem::path& folder);
};

/// Reads client.json. Errors begin with the file's name.
ClientConfig load_client_config(const std::filesystem::path& path);

/// The examples a client trains on. They never leave the device.
struct LocalData {
  std::shared_ptr<const Dataset> data;  ///< null where training is replaced (see ClientHooks::answer)
  std::vector<std::uint32_t> shard;     ///< of `data`, in the order that keys shuffling
  ExampleShape shape;
};
/// Loads the training part of config.data and the list in config.examples. Throws ConfigError and IoError.
LocalData load_local_data(const ClientConfig& config);

}  // namespace fl
