// fl-client: one device of a deployed federation.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <thread>

#include "client/client_config.h"
#include "client/net/deployed_client.h"
#include "client/net/workbench.h"
#include "fl_core/base/human.h"
#include "fl_core/base/memory.h"
#include "fl_core/base/program.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/config/plan.h"
#include "fl_core/ml/accelerator.h"
#include "fl_core/ml/torch_runtime.h"
#include "fl_core/net/pki.h"
#include "fl_core/net/tls_context.h"

namespace {

constexpr const char* kAbout =
    "Tributary's client: trains on this machine's data when an aggregator asks for it. The data never leave the machine.\n"
    "  fl-client client.json --check   reads the configuration, the certificates and the data, and says what it would do\n"
    "  fl-client client.json           connects and trains, until it is stopped (SIGTERM)";

struct Arguments {
  std::string file;
  bool json = false;
  bool check = false;
};

void print_line(const fl::ClientEvent& event, bool json) {
  if (json) {
    nlohmann::json line = {{"event", event.name}, {"text", event.text}};
    line.update(event.facts);
    std::printf("%s\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else {
    std::printf("%s\n", event.text.c_str());
  }
  std::fflush(stdout);
}

/// Written by the handler, read by the watcher. A mask would not do: BLAS starts threads before main(), which take signals too.
std::array<int, 2> g_signal_pipe = {-1, -1};

extern "C" void on_signal(int signal) {
  const int error = errno;
  const char byte = static_cast<char>(signal);
  [[maybe_unused]] const ssize_t ignored = ::write(g_signal_pipe[1], &byte, 1);
  // The next one takes the default action: a client that does not react can still be ended.
  std::signal(signal, SIG_DFL);
  errno = error;
}

/// Reports SIGINT and SIGTERM from a thread of its own, where everything is allowed. One a process.
class SignalWatch {
 public:
  explicit SignalWatch(std::function<void(const char*)> report) : report_(std::move(report)) {
    if (::pipe2(g_signal_pipe.data(), O_CLOEXEC) != 0) throw fl::IoError(std::string("cannot make a pipe: ") + std::strerror(errno));
    thread_ = std::thread([this] { watch(); });
    std::signal(SIGINT, on_signal);
    std::signal(SIGTERM, on_signal);
  }
  ~SignalWatch() {
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
    const char end = 0;
    [[maybe_unused]] const ssize_t ignored = ::write(g_signal_pipe[1], &end, 1);
    thread_.join();
  }
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

 private:
  void watch() {
    char signal = 0;
    for (;;) {
      const ssize_t got = ::read(g_signal_pipe[0], &signal, 1);
      if (got < 0 && errno == EINTR) continue;
      if (got != 1 || signal == 0) return;
      report_(signal == SIGINT ? "SIGINT" : "SIGTERM");
    }
  }

  std::function<void(const char*)> report_;
  std::thread thread_;
};

/// Stacks of our threads: reserved, hardly touched, but counted by the kernel.
constexpr std::uint64_t kStackBytes = 64'000'000;

/// What the kernel counts against RLIMIT_DATA now.
std::uint64_t data_bytes() {
  std::ifstream file("/proc/self/status");
  std::string word;
  while (file >> word) {
    if (word != "VmData:") continue;
    std::uint64_t kilobytes = 0;
    file >> kilobytes;
    return kilobytes * 1024;
  }
  return 0;
}

/// From now on memory beyond limits.memory_mb is refused to this process, so that a plan that needs more than it seemed to fails
/// here instead of taking the machine down.
void limit_memory(const fl::ClientConfig& config) {
  if (!config.limits.memory_mb) return;
  const auto allowed = static_cast<std::uint64_t>(*config.limits.memory_mb) * 1'000'000;
  const std::uint64_t used = fl::resident_bytes();
  if (allowed <= used) {
    fl::bad_value("limits.memory_mb", *config.limits.memory_mb, "more than what the program and its data alone take (" + fl::human_bytes(static_cast<double>(used)) + ")");
  }
  rlimit limit{};
  limit.rlim_cur = limit.rlim_max = data_bytes() + (allowed - used) + kStackBytes;
  if (::setrlimit(RLIMIT_DATA, &limit) != 0) throw fl::IoError("cannot limit the memory (RLIMIT_DATA): " + std::string(std::strerror(errno)));
}

fl::ExitCode show_check(const fl::ClientConfig& config, const fl::LocalData& data, bool json) {
  const fl::TlsContext context(fl::TlsRole::client, config.tls);
  const fl::CertificateInfo identity = fl::read_certificate(config.tls.certificate);
  const fl::Devices devices(config.device, "device");  // refuses what this machine lacks
  const std::int64_t days = fl::days_left(context.not_after());
  const fl::Permission now = fl::TrainingPolicy(config.limits).check(false);
  const nlohmann::json facts = {{"server", config.server},
                                {"server_name", config.server_name},
                                {"identity", identity.name},
                                {"certificate_days_left", days},
                                {"examples", data.shard.size()},
                                {"input", fl::shape_text(data.shape)},
                                {"classes", data.shape.classes},
                                {"device", config.device},
                                {"state", config.state},
                                {"may_train_now", now.allowed},
                                {"reason", now.reason},
                                {"memory_bytes", fl::resident_bytes()}};
  if (json) {
    std::printf("%s\n", facts.dump().c_str());
    return fl::ExitCode::ok;
  }
  const auto line = [](const char* what, const std::string& value) { std::printf("%-12s %s\n", what, value.c_str()); };
  line("server", config.server + " (as '" + config.server_name + "')");
  line("identity", identity.name + ", certificate valid for " + std::to_string(days) + " more days" +
                       (days < fl::kExpiryWarningDays ? ": renew it now with 'fl pki renew'" : ""));
  line("data", fl::human_count(static_cast<std::int64_t>(data.shard.size())) + " examples of " + fl::described(data.shape));
  line("device", config.device);
  line("state", config.state.empty() ? "in memory only" : config.state);
  line("memory", fl::human_bytes(static_cast<double>(fl::resident_bytes())) + " for program and data" +
                     (config.limits.memory_mb ? ", limit " + fl::human_bytes(static_cast<double>(*config.limits.memory_mb) * 1e6) : ""));
  line("training", now.allowed ? "allowed now" : "not allowed now: " + now.reason);
  return fl::ExitCode::ok;
}

/// Runs `action`; its ConfigErrors begin with the configuration's name.
template <class Action>
auto for_file(const std::string& file, Action action) {
  try {
    return action();
  } catch (const fl::ConfigError& error) {
    throw fl::ConfigError(file + ": " + error.what());
  }
}

fl::ExitCode serve(const Arguments& arguments) {
  const fl::ClientConfig config = fl::load_client_config(arguments.file);
  fl::LocalData data = for_file(arguments.file, [&] {
    fl::LocalData loaded = fl::load_local_data(config);
    limit_memory(config);
    return loaded;
  });
  if (arguments.check) return for_file(arguments.file, [&] { return show_check(config, data, arguments.json); });
  const fl::ClientEvent first("connecting",
                              "connecting to " + config.server + " with " + fl::human_count(static_cast<std::int64_t>(data.shard.size())) + " examples of " + fl::described(data.shape),
                              {{"server", config.server}, {"examples", data.shard.size()}});
  print_line(first, arguments.json);
  fl::ClientHooks hooks;
  hooks.software = std::string("tributary ") + FL_VERSION;
  hooks.worker_setup = [threads = static_cast<int>(config.limits.threads)] { fl::use_threads_in_this_worker(threads); };
  hooks.on_event = [json = arguments.json](const fl::ClientEvent& event) { print_line(event, json); };
  const auto client = for_file(arguments.file, [&] { return std::make_unique<fl::DeployedClient>(config, std::move(data), std::move(hooks)); });
  const SignalWatch watch([&client](const char* name) { client->request_stop(std::string("the client was stopped by ") + name); });
  return client->run();
}

fl::ExitCode run(int argc, char** argv) {
  // A closed connection or a full disk must come back as an error, not end the program.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  CLI::App app{kAbout, "fl-client"};
  Arguments arguments;
  app.set_version_flag("--version", FL_VERSION);
  app.add_option("FILE", arguments.file, "Configuration in JSON (client/README.md lists its keys)")->required();
  app.add_flag("--json", arguments.json, "One JSON object an event on standard output");
  app.add_flag("--check", arguments.check, "Only read everything and say what would be done");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) throw fl::ConfigError(std::string(error.what()) + "; 'fl-client --help' lists the options");
    app.exit(error);  // prints --help and --version
    return fl::ExitCode::ok;
  }
  const fl::ExitCode code = serve(arguments);
  if (code == fl::ExitCode::interrupted) std::fprintf(stderr, "fl-client: stopped; answers that were not delivered wait in the state folder\n");
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  return fl::run_program("fl-client", "raise limits.memory_mb, or give the client fewer examples", [&] { return run(argc, argv); });
}
