#include "simulations/cli/up_folder.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>
#include <string>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/net/pki.h"
#include "simulations/simulation.h"

namespace fl::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kAddress = "127.0.0.1";
constexpr const char* kServerName = "localhost";
constexpr const char* kServer = "server";  // name of its certificate
constexpr std::size_t kClientsInReport = 50;
/// A process that was killed does not come back, so a round need not wait long for it.
constexpr int kGrace_s = 5;
/// All clients come from one address at the same time.
constexpr std::size_t kHandshakes = 256;

std::string address(std::uint16_t port) { return kAddress + std::string(":") + std::to_string(port); }

/// Paths of one identity's files; `root` leads from the configuration's folder to ours.
json tls_files(const std::string& root, const std::string& name) {
  const std::string own = root + "pki/issued/" + name;
  return {{"certificate", own + "/cert.pem"}, {"key", own + "/key.pem"}, {"authority", root + "pki/ca.pem"}, {"revocations", root + "pki/crl.pem"}};
}

json server_document(const json& experiment, std::size_t clients, std::uint16_t port) {
  json listed = json::array();
  for (std::size_t i = 0; i < clients; ++i) listed.push_back(client_name(i));
  return {{"experiment", experiment},
          {"folder", "run"},
          {"listen", address(port)},
          {"tls", tls_files("", kServer)},
          // All are awaited at first, as a simulation has them all; later the run goes on without those that died.
          {"clients", {{"minimum", 1}, {"at_start", clients}, {"admit", "listed"}, {"listed", listed}}},
          {"limits", {{"grace_s", kGrace_s}, {"handshakes_per_address", std::max(kHandshakes, clients)}}},
          {"health", nullptr}};
}

/// A client has one device.
std::string first_device(const std::string& devices) { return devices.substr(0, devices.find(',')); }

json client_document(const Experiment& experiment, std::size_t client, std::uint16_t port) {
  return {{"server", address(port)},
          {"server_name", kServerName},
          {"tls", tls_files("../../", client_name(client))},
          {"data", experiment.data},
          {"data_seed", experiment.seed},
          {"examples", "examples.json"},
          {"device", first_device(experiment.device)},
          {"state", "state"},
          {"limits", {{"threads", 1}}},
          {"exit_when_finished", true}};
}

void write_json(const fs::path& path, const json& document) { write_file_atomically(path, document.dump(2) + "\n"); }

/// "127.0.0.1:4711" -> 4711; 0 when it is nothing of the kind.
std::uint16_t port_of(const json& listen) {
  const std::string text = listen.is_string() ? listen.get<std::string>() : "";
  const std::string prefix = kAddress + std::string(":");
  std::uint16_t port = 0;
  if (text.rfind(prefix, 0) == 0) std::from_chars(text.data() + prefix.size(), text.data() + text.size(), port);
  return port;
}

bool has_anything(const fs::path& folder) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().filename() != "lock") return true;
  }
  return false;
}

}  // namespace

std::string client_name(std::size_t client) { return "client-" + std::to_string(client); }

UpFolder::UpFolder(fs::path path, const Experiment& experiment, std::size_t clients)
    : path_(std::move(path)), experiment_(to_json(experiment)), clients_(clients), existed_(fs::exists(path_ / "server.json")) {
  if (!existed_ && has_anything(path_)) {
    throw ConfigError(path_.string() + ": holds files, but no federation that 'fl up' made (no server.json); choose another --output, or remove the folder");
  }
  topmost_ = make_folder(path_);
  lock_ = std::make_unique<FolderLock>(path_);
  if (existed_) check_is_the_same();
}

void UpFolder::discard() {
  if (existed_ || fs::exists(run_folder())) return;
  for (const char* name : {"server.json", "pki", "clients", "logs", "partition.json", "lock"}) {
    std::error_code ignored;
    fs::remove_all(path_ / name, ignored);
  }
  remove_empty_folders(path_, topmost_);
}

void UpFolder::check_is_the_same() const {
  const json server = read_json_file(server_file());
  const json listed = server.is_object() ? server.value("/clients/listed"_json_pointer, json::array()) : json::array();
  if (listed.size() == clients_ && server.value("experiment", json()) == experiment_) return;
  throw ConfigError(path_.string() + ": holds a federation of another experiment or of another number of clients (" + std::to_string(listed.size()) +
                    "); repeat its command to go on, or choose another --output");
}

void UpFolder::fill(const Prepared& prepared) {
  Authority authority = Authority::create(path_ / "pki");
  const std::array<std::string, 2> hosts = {kServerName, kAddress};
  authority.issue_server(kServer, hosts);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < clients_; ++i) names.push_back(client_name(i));
  authority.issue_clients(names);
  make_folder(path_ / "logs");
  const std::uint16_t port = free_port();
  for (std::size_t i = 0; i < clients_; ++i) write_client(prepared, i, port);
  write_file_atomically(path_ / "partition.json",
                        describe_partition(*prepared.partition, *prepared.data.train, kClientsInReport).dump() + "\n");
  write_json(server_file(), server_document(experiment_, clients_, port));
}

void UpFolder::write_client(const Prepared& prepared, std::size_t client, std::uint16_t port) const {
  make_folder(client_folder(client) / "state");
  write_file_atomically(client_folder(client) / "examples.json", json(prepared.partition->shard(client)).dump() + "\n");
  write_json(client_file(client), client_document(prepared.experiment, client, port));
}

void UpFolder::find_port() {
  json server = read_json_file(server_file());
  const std::uint16_t old = port_of(server["listen"]);
  const std::uint16_t port = free_port(old);
  if (port == old) return;
  // The clients first: while server.json names the old port, the next attempt comes here again.
  for (std::size_t i = 0; i < clients_; ++i) {
    json client = read_json_file(client_file(i));
    client["server"] = address(port);
    write_json(client_file(i), client);
  }
  server["listen"] = address(port);
  write_json(server_file(), server);
}

void UpFolder::publish_partition() const {
  std::error_code error;
  fs::copy_file(path_ / "partition.json", run_folder() / "partition.json", fs::copy_options::overwrite_existing, error);
  if (error) fail_writing("copy partition.json to", run_folder(), error.value());
}

}  // namespace fl::cli
