#include "aggregator/server_config.h"

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/config/plan.h"

namespace fl {

void ServerClients::fields(Fields& f) {
  f.optional_integer("minimum", minimum, {1, 1'000'000}, "clients that must be connected and ready before a round begins; null: the experiment's cohort");
  f.optional_integer("at_start", at_start, {1, 1'000'000}, "the same before the first round after the aggregator was started; null: minimum");
  f.choice("admit", admit, {"certified", "listed"}, "everybody with a certificate of the authority, or only those listed");
  f.texts("listed", listed, "names in certificates; the first is client 0 of the run, and so on");
}

void ServerLimits::fields(Fields& f) {
  f.integer("uploads", uploads, {1, 1000}, "updates that may come in at the same time: memory is this times the size of an update");
  f.integer("sessions", sessions, {1, 1'000'000}, "connections at the same time");
  f.integer("handshakes_per_address", handshakes_per_address, {1, 1'000'000}, "connections of one address that have not been welcomed yet");
  f.number("grace_s", grace_s, {0, 86'400}, "how long a client of the cohort may be away before it counts as left", "s");
  f.integer("heartbeat_s", heartbeat_s, {1, 3600}, "clients say this often that they are there; three missing end the connection", "s");
  f.number("handshake_s", handshake_s, {0, 600, true}, "for TLS handshake and hello, each", "s");
  f.number("minimum_bytes_per_s", minimum_bytes_per_s, {0, 1e12, true}, "slower transfers are ended", "bytes/s");
  f.number("frames_per_s", frames_per_s, {1, 1e6}, "control frames of one client, on average over ten seconds", "1/s");
  f.integer("retry_s", retry_s, {0, 86'400}, "when the aggregator stops, clients come back after this long and up to as much again", "s");
}

void ServerConfig::fields(Fields& f) {
  f.raw("experiment", experiment_source, "a path or an object", "the experiment, or the file that holds it");
  f.text("folder", folder, "run folder; an aggregator that is started again goes on with the run in it");
  f.text("listen", listen, "address and port for clients; port 0 takes a free one");
  f.group("tls", [&](Fields& g) { tls.fields(g); }, "what this aggregator proves itself with, and whom it believes");
  f.group("clients", [&](Fields& g) { clients.fields(g); }, "who may take part");
  f.group("limits", [&](Fields& g) { limits.fields(g); }, "what clients may cost");
  bool has_health = health.has_value();
  std::string address = health.value_or("127.0.0.1:9464");
  f.optional_group("health", has_health, [&](Fields& g) { g.text("listen", address, "address and port of /healthz, /readyz and /metrics, without TLS"); },
                   "the health server; null: none");
  health = has_health ? std::optional(address) : std::nullopt;
  bool has_shape = data_shape.has_value();
  ExampleShape shape = data_shape.value_or(ExampleShape{{1}, 2, 0});
  f.optional_group("data_shape", has_shape, [&](Fields& g) { shape_fields(g, shape); },
                   "for an aggregator without data: what clients' examples look like; null: the experiment's data are here and its test part is measured");
  data_shape = has_shape ? std::optional(shape) : std::nullopt;
  f.integer("workers", workers, {1, 1024}, "threads that evaluate");
}

namespace {

void resolve(std::string& path, const std::filesystem::path& folder) {
  if (!path.empty()) path = (folder / path).lexically_normal().string();
}

Experiment experiment_of(const nlohmann::json& source, const std::filesystem::path& folder, const std::string& file) {
  if (source.is_object()) return parse_experiment(source, file + ": experiment");
  if (!source.is_string()) bad_value("experiment", source, "a path or an object");
  return load_experiment((folder / source.get<std::string>()).lexically_normal(), {});
}

}  // namespace

ServerConfig load_server_config(const std::filesystem::path& path) {
  const nlohmann::json document = read_json_file(path);
  const std::filesystem::path folder = std::filesystem::absolute(path).parent_path();
  ServerConfig config;
  try {
    read_fields(document, "", [&](Fields& f) { config.fields(f); });
    if (config.clients.admit == "listed" && config.clients.listed.empty()) bad_value("clients.listed", nlohmann::json::array(), "at least one name, with admit \"listed\"");
  } catch (const ConfigError& error) {
    throw ConfigError(path.string() + ": " + error.what());
  }
  config.experiment = experiment_of(config.experiment_source, folder, path.string());
  resolve(config.folder, folder);
  config.tls.resolve(folder);
  return config;
}

nlohmann::json server_config_schema() {
  ServerConfig defaults;
  return describe_fields([&](Fields& f) { defaults.fields(f); });
}

}  // namespace fl
