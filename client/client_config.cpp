#include "client/client_config.h"

#include <numeric>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/config/address.h"
#include "fl_core/config/device.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

using nlohmann::json;

void check_file(const char* key, const std::string& path) {
  std::error_code ignored;
  if (path.empty()) throw ConfigError(std::string(key) + ": missing; expected the path of a PEM file ('fl pki' makes it)");
  if (!std::filesystem::is_regular_file(path, ignored)) throw ConfigError(std::string(key) + ": " + path + ": no such file; 'fl pki' makes it");
}

/// Options of a data set that name a file or folder beside client.json become absolute.
void resolve_data(json& data, const std::filesystem::path& folder) {
  for (auto& [key, value] : data.items()) {
    if (key == "name" || !value.is_string()) continue;
    const auto text = value.get<std::string>();
    if (text.empty() || std::filesystem::path(text).is_absolute()) continue;
    std::error_code ignored;
    if (std::filesystem::exists(folder / text, ignored)) value = (folder / text).lexically_normal().string();
  }
}

std::string resolved(const std::string& path, const std::filesystem::path& folder) {
  return path.empty() ? path : (folder / path).lexically_normal().string();
}

std::vector<std::uint32_t> read_examples(const std::string& path, std::size_t size) {
  const json list = parse_json(read_text_file(path, limits::kExamplesFileBytes), path);
  if (!list.is_array() || list.empty()) bad_value(path, list, "a list of numbers of examples [0, 1, …], not empty");
  std::vector<std::uint32_t> shard;
  shard.reserve(list.size());
  std::vector<bool> seen(size);
  for (std::size_t i = 0; i < list.size(); ++i) {
    const json& one = list[i];
    const std::string place = path + ": " + std::to_string(i);
    if (!one.is_number_unsigned() || one.get<std::uint64_t>() >= size) {
      bad_value(place, one, "the number of an example, from 0 to " + std::to_string(size - 1));
    }
    const auto example = one.get<std::uint32_t>();
    if (seen[example]) bad_value(place, one, "each example once");
    seen[example] = true;
    shard.push_back(example);
  }
  return shard;
}

}  // namespace

void SecureAggregationDemand::fields(Fields& f) {
  std::int64_t security_bits = policy.security_bits;
  std::int64_t minimum_survivors = policy.minimum_survivors;
  f.flag("required", required, "follows only plans with secure aggregation");
  f.number("adversary_rate", policy.adversary_rate, {0, 0.9}, "follows no plan that withstands a smaller share of clients who work with the server");
  f.integer("security_bits", security_bits, {1, 128}, "follows no plan whose privacy may fail with a larger chance than 2^-this for each round");
  f.integer("minimum_survivors", minimum_survivors, {3, kMaximumSecAggClients}, "is in no sum of fewer updates", "clients");
  f.flag("accept_curious", policy.accept_curious, "follows also plans that withstand only a server that keeps to the protocol");
  policy.security_bits = static_cast<int>(security_bits);
  policy.minimum_survivors = static_cast<std::uint32_t>(minimum_survivors);
}

void ClientConfig::fields(Fields& f) {
  f.text("server", server, "address of the aggregator, \"host:port\"");
  f.text("server_name", server_name, "name in the server's certificate; empty: the host of 'server'");
  f.group("tls", [&](Fields& g) { tls.fields(g); }, "what this client proves itself with");
  f.component("data", data, "data", "local data; its training part is used, and never leaves this machine");
  f.integer("data_seed", data_seed, {0, INT64_MAX}, "for data that are drawn or split at random");
  f.text("examples", examples, "file with a JSON list of the numbers of this client's examples; empty: all");
  f.text("device", device, "where this client trains: cpu, cuda or cuda:N; of the owner's choosing, whatever the experiment says");
  f.text("state", state, "folder for the cache and for answers that wait to be delivered; empty: none");
  f.group("limits", [&](Fields& g) { limits.fields(g); }, "what training may take from this machine");
  f.group("privacy", [&](Fields& g) {
    g.flag("required", privacy.required, "follows only plans with a privacy promise");
    g.optional_number("max_epsilon", privacy.max_epsilon, {0, 1e6, true}, "follows no plan whose promise costs more; null: any");
  }, "what this client wants of a server");
  f.group("secure_aggregation", [&](Fields& g) { secure_aggregation.fields(g); }, "what this client wants of a server's secure aggregation");
  f.flag("tell_examples", tell_examples, "tells the server how many examples there are here, for its records; the number is exact");
  f.flag("exit_when_finished", exit_when_finished, "end when the server says that the run is over");
}

void ClientConfig::resolve(const std::filesystem::path& given) {
  const std::filesystem::path folder = std::filesystem::absolute(given);
  if (server.empty()) throw ConfigError("server: missing; expected the aggregator's address \"host:port\"");
  const Address address = parse_address(server, "server");
  if (address.port == 0) bad_value("server", server, "a port from 1 to 65535");
  host = address.host;
  port = address.port;
  if (server_name.empty()) server_name = host;
  tls.resolve(folder);
  check_file("tls.certificate", tls.certificate);
  check_file("tls.key", tls.key);
  check_file("tls.authority", tls.authority);
  if (!tls.revocations.empty()) check_file("tls.revocations", tls.revocations);
  gpus_of(device, "device");
  resolve_data(data, folder);
  examples = resolved(examples, folder);
  state = resolved(state, folder);
  TrainingPolicy check(limits);  // refuses hours that it cannot read
}

ClientConfig load_client_config(const std::filesystem::path& path) {
  std::error_code ignored;
  const auto kind = std::filesystem::status(path, ignored).type();
  if (kind == std::filesystem::file_type::not_found) throw ConfigError(path.string() + ": no such file; expected a client's configuration (see client/README.md)");
  const json document = read_json_file(path);
  ClientConfig config;
  try {
    read_fields(document, "", [&](Fields& f) { config.fields(f); });
    config.resolve(path.has_parent_path() ? path.parent_path() : ".");
  } catch (const ConfigError& error) {
    throw ConfigError(path.string() + ": " + error.what());
  }
  return config;
}

LocalData load_local_data(const ClientConfig& config) {
  LocalData local;
  local.data = data_sources().create(config.data, "data")->load(static_cast<std::uint64_t>(config.data_seed)).train;
  local.shape = local.data->shape();
  if (!config.examples.empty()) {
    local.shard = read_examples(config.examples, local.data->size());
  } else {
    local.shard.resize(local.data->size());
    std::iota(local.shard.begin(), local.shard.end(), 0U);
  }
  if (local.shard.empty()) throw ConfigError("data: the training part is empty; a client needs at least one example");
  return local;
}

}  // namespace fl
