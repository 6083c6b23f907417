#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "aggregator/net/serve.h"
#include "fl_core/base/error.h"
#include "fl_core/base/program.h"
#include "fl_core/ml/torch_runtime.h"

namespace {

constexpr const char* kAbout =
    "The aggregator of a deployed federation: clients connect over mutual TLS, rounds run, the model is in the run folder.\n"
    "Started again with the same file it goes on where it was. SIGTERM ends it politely, SIGHUP reads certificates again.";

volatile std::sig_atomic_t g_stop = 0;
volatile std::sig_atomic_t g_reload = 0;

extern "C" void on_stop(int signal) {
  g_stop = 1;
  // The next one takes the default action: a program that does not react can still be ended.
  std::signal(signal, SIG_DFL);
}
extern "C" void on_reload(int) { g_reload = 1; }

void watch_signals() {
  std::signal(SIGINT, on_stop);
  std::signal(SIGTERM, on_stop);
  std::signal(SIGHUP, on_reload);
  std::signal(SIGPIPE, SIG_IGN);
  // A full disk under a file-size limit must come back as an error of write(), not as a signal that kills the run.
  std::signal(SIGXFSZ, SIG_IGN);
}

bool take_reload() {
  const bool wanted = g_reload != 0;
  g_reload = 0;
  return wanted;
}

void print_line(const nlohmann::json& line) {
  std::printf("%s\n", line.dump().c_str());
  if (std::fflush(stdout) != 0) throw fl::IoError("cannot write to standard output; the reader has closed it");
}

fl::ExitCode run(const std::string& file, bool json, bool quiet, bool check) {
  const fl::ServerConfig config = fl::load_server_config(file);
  if (check) {
    std::printf("%s: ok\n", file.c_str());
    return fl::ExitCode::ok;
  }
  watch_signals();
  nlohmann::json versions = {{"tributary_version", FL_VERSION}, {"torch_version", fl::torch_version()}, {"compiler", __VERSION__}};
  fl::ServeHooks hooks;
  hooks.should_stop = [] { return g_stop != 0; };
  hooks.take_reload = take_reload;
  hooks.worker_setup = fl::limit_threads_of_this_worker;
  hooks.versions = &versions;
  if (!quiet) hooks.say = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  if (json) hooks.line = print_line;
  const nlohmann::json summary = fl::serve(config, hooks);
  if (json) {
    print_line(summary);
  } else {
    std::printf("model      %s\nfolder     %s\n", summary.at("model_sha256").get<std::string>().c_str(), config.folder.c_str());
  }
  return fl::ExitCode::ok;
}

void print_schema() { std::printf("%s\n", fl::server_config_schema().dump(2).c_str()); }

fl::ExitCode start(int argc, char** argv) {
  CLI::App app(kAbout);
  std::string file;
  bool json = false;
  bool quiet = false;
  bool check = false;
  bool schema = false;
  app.set_version_flag("--version", FL_VERSION);
  app.add_option("FILE", file, "server.json");
  app.add_flag("--json", json, "One JSON object a round on standard output, and a last one with the summary");
  app.add_flag("--quiet", quiet, "No lines about progress");
  app.add_flag("--check", check, "Reads the configuration and says whether it is valid");
  app.add_flag("--schema", schema, "Prints every key of server.json with type, default, unit and meaning");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) throw fl::ConfigError(std::string(error.what()) + "; see fl-aggregator --help");
    app.exit(error);  // prints --help and --version
    return fl::ExitCode::ok;
  }
  if (schema) {
    print_schema();
    return fl::ExitCode::ok;
  }
  if (file.empty()) throw fl::ConfigError("no configuration; expected: fl-aggregator server.json");
  return run(file, json, quiet, check);
}

}  // namespace

int main(int argc, char** argv) {
  return fl::run_program("fl-aggregator", "finished rounds are on disk", [&] { return start(argc, argv); });
}
