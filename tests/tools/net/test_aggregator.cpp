// fl_test_aggregator SERVER.JSON: the deployed aggregator with the toy model and without LibTorch, for tests that kill it.
// Lines for people go to standard error, one JSON object a round and the summary to standard output.
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "aggregator/net/serve.h"
#include "fl_core/base/program.h"
#include "privacy/noise/seeded/seeded_noise_keys.h"

namespace {

volatile std::sig_atomic_t g_stop = 0;
extern "C" void on_stop(int) { g_stop = 1; }

void print_line(const nlohmann::json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fl_test_aggregator SERVER.JSON\n");
    return static_cast<int>(fl::ExitCode::config);
  }
  std::signal(SIGTERM, on_stop);
  std::signal(SIGPIPE, SIG_IGN);
  return fl::run_program("fl_test_aggregator", "this is a test", [&] {
    const fl::ServerConfig config = fl::load_server_config(argv[1]);
    fl::ServeHooks hooks;
    hooks.should_stop = [] { return g_stop != 0; };
    hooks.say = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
    hooks.line = print_line;
    const auto& privacy = config.experiment.privacy;
    if (privacy && privacy->randomness == "seeded") hooks.noise_keys = std::make_shared<fl::SeededNoiseKeys>(static_cast<std::uint64_t>(config.experiment.seed));
    print_line(fl::serve(config, hooks));
    return fl::ExitCode::ok;
  });
}
