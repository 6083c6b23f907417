// An encrypted round of the real aggregator and real clients over loop-back TLS: clients echo the weights as their update.
// The aggregator is a process of its own (its peak memory is reported), the clients share another one.
//   tls_round_scenario [--parameters N] [--clients N] [--rounds N] [--uploads N] [--json]
// Prints the wall time of each round (first send to moved model), bytes a second over both directions, and the aggregator's CPU time
// (from one round's end to the next, so its checkpoint is in it) and peak resident set. The first round also opens caches; the summary is
// of the others.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "aggregator/net/serve.h"
#include "client/net/deployed_client.h"
#include "fl_core/base/memory.h"
#include "fl_core/config/plan.h"
#include "fl_core/net/pki.h"
#include "fl_core/wire/message.h"

namespace fl {
namespace {

struct Arguments {
  std::int64_t parameters = 10'000'000;
  std::int64_t clients = 5;
  std::int64_t rounds = 5;
  std::int64_t uploads = 2;
  bool json = false;
};

nlohmann::json experiment(const Arguments& arguments) {
  return {{"name", "tls_round"},
          {"rounds", arguments.rounds},
          {"data", {{"name", "synthetic"}}},
          {"partition", {{"name", "iid"}, {"clients", arguments.clients}}},
          {"model", {{"name", "flat"}, {"parameters", arguments.parameters}}},
          {"trainer", {{"name", "sgd"}}},
          {"strategy", {{"name", "fedavg"}, {"server_learning_rate", 1}}},
          {"round", {{"cohort", arguments.clients}}}};
}

/// In the aggregator's process: serves, then writes {"rounds": [seconds…], "cpu_rounds": [seconds…], "peak_rss_bytes"} to `result`.
int be_aggregator(const std::filesystem::path& folder, const std::filesystem::path& result) {
  const ServerConfig config = load_server_config(folder / "server.json");
  nlohmann::json found = {{"rounds", nlohmann::json::array()}, {"cpu_rounds", nlohmann::json::array()}};
  std::clock_t spent = std::clock();
  ServeHooks hooks;
  hooks.line = [&](const nlohmann::json& line) {
    found["rounds"].push_back(line.at("wall_seconds"));
    const std::clock_t now = std::clock();
    found["cpu_rounds"].push_back(static_cast<double>(now - std::exchange(spent, now)) / CLOCKS_PER_SEC);
  };
  hooks.say = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  const nlohmann::json summary = serve(config, hooks);
  found["peak_rss_bytes"] = peak_rss_bytes();
  found["bytes"] = summary.at("bytes_up").get<double>() + summary.at("bytes_down").get<double>();
  std::ofstream(result) << found.dump();
  return 0;
}

Message echo(const Message& task, const std::function<bool()>&) {
  const auto header = nlohmann::json::from_cbor(task.header().span());
  UpdateHeader update;
  update.round = task.round();
  update.model_version = header.at("model_version");
  update.fingerprint = header.at("fingerprint");
  update.weight = 1;
  update.metrics.examples = 1;
  update.codec = "identity";
  return encode_update(update, task.body());
}

void write_config(const std::filesystem::path& folder, const Arguments& arguments) {
  Authority authority = Authority::create(folder / "pki");
  const std::vector<std::string> hosts = {"127.0.0.1"};
  const IssuedFiles server = authority.issue_server("aggregator", hosts);
  std::vector<std::string> names;
  for (std::int64_t i = 0; i < arguments.clients; ++i) names.push_back("client-" + std::to_string(i));
  authority.issue_clients(names);
  const nlohmann::json config = {
      {"experiment", experiment(arguments)},
      {"folder", "run"},
      {"listen", "127.0.0.1:0"},
      {"tls", {{"certificate", server.certificate}, {"key", server.key}, {"authority", authority.certificate()}, {"revocations", authority.revocation_list()}}},
      {"limits", {{"uploads", arguments.uploads}}},
      {"data_shape", {{"input", {1}}, {"classes", 2}}}};
  std::ofstream(folder / "server.json") << config.dump(2);
}

ClientConfig client_config(const std::filesystem::path& folder, std::int64_t number, const std::string& address) {
  const auto own = folder / "pki" / "issued" / ("client-" + std::to_string(number));
  ClientConfig config;
  config.server = address;
  config.tls.certificate = own / "cert.pem";
  config.tls.key = own / "key.pem";
  config.tls.authority = folder / "pki" / "ca.pem";
  config.state.clear();
  config.limits.cache_mb = 50;  // of the weights of this round, at most
  config.exit_when_finished = true;
  config.resolve(folder);
  return config;
}

std::string wait_for_address(const std::filesystem::path& file, pid_t aggregator) {
  for (;;) {
    std::string address;
    std::ifstream in(file);
    if (std::getline(in, address)) return address;
    int status = 0;
    if (::waitpid(aggregator, &status, WNOHANG) == aggregator) throw IoError("the aggregator ended before it listened; its message is above");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

/// All but the first round's, ascending.
std::vector<double> later_rounds(const nlohmann::json& found, const char* what) {
  std::vector<double> seconds = found.at(what).get<std::vector<double>>();
  if (seconds.size() > 1) seconds.erase(seconds.begin());
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

void report(const nlohmann::json& found, const Arguments& arguments) {
  const std::vector<double> seconds = later_rounds(found, "rounds");
  const std::vector<double> cpu = later_rounds(found, "cpu_rounds");
  const double median = seconds[seconds.size() / 2];
  const double moved = 2.0 * static_cast<double>(arguments.parameters * arguments.clients) * sizeof(float);
  nlohmann::json out = {{"parameters", arguments.parameters}, {"clients", arguments.clients}, {"round_seconds_median", median},
                        {"round_seconds_best", seconds.front()}, {"aggregator_cpu_seconds_median", cpu[cpu.size() / 2]},
                        {"aggregator_cpu_seconds_best", cpu.front()}, {"gigabytes_per_s", moved / median / 1e9}, {"aggregator_peak_rss_bytes", found.at("peak_rss_bytes")},
                        {"rounds", found.at("rounds")}};
  if (arguments.json) {
    std::printf("%s\n", out.dump().c_str());
    return;
  }
  std::printf("%lld parameters x %lld clients, encrypted round\n", static_cast<long long>(arguments.parameters), static_cast<long long>(arguments.clients));
  std::printf("round       %.3f s median, %.3f s best\n", median, seconds.front());
  std::printf("throughput  %.2f GB/s, both directions\n", moved / median / 1e9);
  std::printf("aggregator  %.3f s CPU median, %.3f s best\n", cpu[cpu.size() / 2], cpu.front());
  std::printf("aggregator  %.0f MB peak resident\n", found.at("peak_rss_bytes").get<double>() / 1e6);
}

int run(const Arguments& arguments) {
  const auto folder = std::filesystem::temp_directory_path() / ("tls_round." + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  write_config(folder, arguments);
  // Before any thread exists, so that the child is whole.
  const pid_t aggregator = ::fork();
  if (aggregator == 0) {
    int code = 1;
    try {
      code = be_aggregator(folder, folder / "result.json");
    } catch (const std::exception& error) {
      std::fprintf(stderr, "aggregator: %s\n", error.what());
    }
    ::_exit(code);
  }
  const std::string address = wait_for_address(folder / "run" / "address", aggregator);
  std::vector<std::thread> threads;
  for (std::int64_t i = 0; i < arguments.clients; ++i) {
    threads.emplace_back([&, i] {
      ClientHooks hooks;
      hooks.answer = echo;
      LocalData data;
      data.shape = ExampleShape{{1}, 2, 0};
      data.shard = {0};
      DeployedClient client(client_config(folder, i, address), std::move(data), std::move(hooks));
      client.run();
    });
  }
  for (std::thread& thread : threads) thread.join();
  int status = 0;
  ::waitpid(aggregator, &status, 0);
  std::ifstream in(folder / "result.json");
  const bool good = in.good();
  if (good) report(nlohmann::json::parse(in), arguments);
  std::filesystem::remove_all(folder);
  return good && status == 0 ? 0 : 1;
}

}  // namespace
}  // namespace fl

int main(int argc, char** argv) {
  CLI::App app("An encrypted round of an aggregator and clients that echo, over loop-back TLS");
  fl::Arguments arguments;
  app.add_option("--parameters", arguments.parameters, "Floats in the model")->check(CLI::Range(1, 1'000'000'000));
  app.add_option("--clients", arguments.clients, "Clients")->check(CLI::Range(1, 1000));
  app.add_option("--rounds", arguments.rounds, "Rounds")->check(CLI::Range(1, 1000));
  app.add_option("--uploads", arguments.uploads, "Updates that may come in at a time")->check(CLI::Range(1, 1000));
  app.add_flag("--json", arguments.json, "One JSON object");
  CLI11_PARSE(app, argc, argv);
  ::signal(SIGPIPE, SIG_IGN);
  try {
    return fl::run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tls_round_scenario: %s\n", error.what());
    return 1;
  }
}
