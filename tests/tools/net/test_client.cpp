// fl_test_client CLIENT.JSON: a deployed client with the toy model and without LibTorch, for tests that kill it. Prints its
// events as JSON, one a line. It waits a hundredth of what a client waits between connections.
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "client/net/deployed_client.h"
#include "fl_core/base/program.h"

namespace {

void print_event(const fl::ClientEvent& event) {
  nlohmann::json line = {{"event", event.name}, {"text", event.text}};
  line.update(event.facts);
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fl_test_client CLIENT.JSON\n");
    return static_cast<int>(fl::ExitCode::config);
  }
  std::signal(SIGPIPE, SIG_IGN);
  return fl::run_program("fl_test_client", "this is a test", [&] {
    fl::ClientConfig config = fl::load_client_config(argv[1]);
    fl::ClientHooks hooks;
    hooks.on_event = print_event;
    hooks.uniform = [] { return 0.01; };
    fl::LocalData data = fl::load_local_data(config);
    fl::DeployedClient client(std::move(config), std::move(data), std::move(hooks));
    return client.run();
  });
}
