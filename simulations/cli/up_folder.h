#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "fl_core/config/experiment.h"
#include "simulations/cli/processes.h"

namespace fl {
struct Prepared;
}

namespace fl::cli {

/// The folder of `fl up`: certificates, and the configuration of one aggregator and of clients that own the examples that
/// the partition gives them.
///
///     server.json                                the aggregator; written last, so a folder with it is complete
///     pki/                                       a certificate authority of its own
///     clients/K/{client.json, examples.json, state/}
///     run/                                       the run folder; made by the aggregator
///     logs/                                      what each process said
///     partition.json                             for the report
class UpFolder {
 public:
  /// Creates the folder, or takes up the one that is there, and locks it. Throws ConfigError when it holds anything but a
  /// federation of this experiment and number of clients.
  UpFolder(std::filesystem::path path, const Experiment& experiment, std::size_t clients);

  /// Whether the folder was there: go on with it.
  bool existed() const { return existed_; }
  /// Writes everything. REQUIRES: !existed(). Throws IoError and ConfigError.
  void fill(const Prepared& prepared);
  /// For a federation that was refused: removes what was made here, unless the folder was there before or its run has begun. The folder is of no
  /// use any more after it.
  void discard();
  /// Moves the federation to another port when its own is taken.
  void find_port();

  std::size_t clients() const { return clients_; }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path server_file() const { return path_ / "server.json"; }
  std::filesystem::path client_file(std::size_t client) const { return client_folder(client) / "client.json"; }
  std::filesystem::path run_folder() const { return path_ / "run"; }
  std::filesystem::path log_of(const std::string& process) const { return path_ / "logs" / (process + ".log"); }
  /// Gives the finished run folder what the report shows of the partition.
  void publish_partition() const;

 private:
  std::filesystem::path client_folder(std::size_t client) const { return path_ / "clients" / std::to_string(client); }
  void check_is_the_same() const;
  void write_client(const Prepared& prepared, std::size_t client, std::uint16_t port) const;

  std::filesystem::path path_;
  std::filesystem::path topmost_;  ///< the folder that had to be made, or its topmost new parent
  nlohmann::json experiment_;
  std::size_t clients_;
  bool existed_;
  std::unique_ptr<FolderLock> lock_;
};

/// "client-3"
std::string client_name(std::size_t client);

}  // namespace fl::cli
