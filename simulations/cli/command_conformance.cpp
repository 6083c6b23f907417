#include <CLI/CLI.hpp>
#include <csignal>

#include "fl_core/config/address.h"
#include "simulations/cli/command.h"
#include "simulations/cli/conformance.h"

namespace fl::cli {
namespace {

constexpr const char* kAbout =
    "Test a server, or with --listen a client, of any maker against the wire format (fl_core/wire/FORMAT.md)\n\n"
    "HOST:PORT is a server: we connect as a client with the given certificate, break every rule once, and finally take one task, fetch its\n"
    "model and answer that we could not do it. The run loses nothing but that one client's update of a round or two; --passive leaves even\n"
    "that out. With --listen we play the server at HOST:PORT; start your client with it as its server: it is asked to train a small\n"
    "model on its data a few times, over connections that break on purpose.\n"
    "One line a check: ok, FAILED or skipped, with the section of FORMAT.md. Exit code 0: all passed; 7: something failed.";

struct Arguments {
  ConformanceOptions options;
  std::string address;
  std::string listen;
  std::int64_t wait_s = 30;
  bool json = false;
};

void set_address(ConformanceOptions& options, const std::string& text, const char* option) {
  const Address address = parse_address(text, std::string("conformance: ") + option);
  options.host = address.host;
  options.port = address.port;
  if (options.server_name.empty()) options.server_name = options.host;
}

ExitCode run(Arguments& arguments) {
  const bool server = !arguments.address.empty();
  if (server != arguments.listen.empty()) {
    throw ConfigError("conformance: expected the HOST:PORT of a server to test, or --listen HOST:PORT to test a client; 'fl conformance --help' says more");
  }
  ConformanceOptions& options = arguments.options;
  set_address(options, server ? arguments.address : arguments.listen, server ? "HOST:PORT" : "--listen");
  options.wait = std::chrono::seconds(arguments.wait_s);
  if (!server && options.tls.revocations.empty()) throw ConfigError("conformance: --listen also needs --revocations, as every server does (crl.pem of 'fl pki')");
  // Writing to a connection that the other end has closed is part of the tests.
  std::signal(SIGPIPE, SIG_IGN);
  Checks checks(arguments.json);
  try {
    server ? test_server(options, checks) : test_client(options, checks);
  } catch (const Checks::Stop&) {
    return checks.finish(true);
  }
  return checks.finish(false);
}

}  // namespace

void add_conformance(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("conformance", kAbout);
  auto arguments = std::make_shared<Arguments>();
  ConformanceOptions& options = arguments->options;
  command->add_option("HOST:PORT", arguments->address, "The server to test");
  command->add_option("--listen", arguments->listen, "Play a server here and test the client that connects");
  command->add_option("--certificate", options.tls.certificate, "Our certificate (PEM): a client's, with --listen a server's")->required();
  command->add_option("--key", options.tls.key, "Its private key (PEM)")->required();
  command->add_option("--authority", options.tls.authority, "The root that the other end comes from (PEM)")->required();
  command->add_option("--revocations", options.tls.revocations, "Its revocation list (PEM); required with --listen");
  command->add_option("--server-name", options.server_name, "Name in the server's certificate; default HOST");
  command->add_option("--input", options.input, "Shape of the examples that the server's experiment needs")->capture_default_str();
  command->add_option("--classes", options.classes, "Classes that it needs")->capture_default_str();
  command->add_option("--wait", arguments->wait_s, "Seconds to wait for a task, its receipt, or a client that should come back")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  command->add_flag("--passive", options.passive, "Do not take a task");
  command->add_flag("--json", arguments->json, "One JSON object a line");
  command->callback([arguments, &action] { action = [arguments] { return run(*arguments); }; });
}

}  // namespace fl::cli
