#include "tests/net_support/net/test_programs.h"

#include <fstream>

#include "fl_core/config/fields.h"

namespace fl::test {
namespace {

std::string program(const std::string& name) { return std::string(FL_TEST_PROGRAMS) + "/" + name; }

template <class Config>
std::string write_config(Config config, const std::filesystem::path& path) {
  std::ofstream(path) << write_fields([&](Fields& f) { config.fields(f); }).dump(1) << "\n";
  return path.string();
}

}  // namespace

std::map<std::string, std::string> crash_environment(const std::filesystem::path& folder, const Crash& crash) {
  std::map<std::string, std::string> environment = {
      {"LD_PRELOAD", program("libfl_crash_at.so")},
      {"FL_CRASH_FOLDER", folder.string()},
      {"FL_CRASH_AT", std::to_string(crash.at)},
      {"ASAN_OPTIONS", "verify_asan_link_order=0"},
  };
  if (crash.half) environment["FL_CRASH_HALF"] = "1";
  if (!crash.count_to.empty()) environment["FL_CRASH_COUNT"] = crash.count_to;
  return environment;
}

std::unique_ptr<ChildProcess> spawn_server(Loopback& federation, const Crash& crash) {
  ServerConfig config = federation.config();
  config.experiment_source = to_json(config.experiment);
  const std::string file = write_config(config, federation.folder() / "server.json");
  auto server = std::make_unique<ChildProcess>(std::vector<std::string>{program("fl_test_aggregator"), file}, crash_environment(config.folder, crash));
  if (const auto line = server->await(" on 127.0.0.1:")) {
    federation.proxy().retarget(static_cast<std::uint16_t>(std::stoul(line->substr(line->find(" on 127.0.0.1:") + 14))));
  }
  return server;
}

std::unique_ptr<ChildProcess> spawn_client(Loopback& federation, std::size_t number, const Crash& crash) {
  ClientConfig config = federation.client_config(number);
  const auto examples = federation.folder() / ("examples-" + std::to_string(number) + ".json");
  std::ofstream(examples) << nlohmann::json(federation.prepared().partition->shard(number)).dump();
  config.examples = examples.string();
  const std::string file = write_config(config, federation.folder() / ("client-" + std::to_string(number) + ".json"));
  return std::make_unique<ChildProcess>(std::vector<std::string>{program("fl_test_client"), file}, crash_environment(config.state, crash));
}

}  // namespace fl::test
