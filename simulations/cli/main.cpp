#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <new>

#include "simulations/cli/command.h"

namespace {

constexpr const char* kAbout =
    "Tributary: federated learning, from one JSON file.\n"
    "  fl simulate simulations/experiments/quickstart.json   trains a federation on this machine\n"
    "  fl config EXPERIMENT --schema                          every key with type, default, unit and meaning\n"
    "  fl doctor                                              what this machine can do, and what to fix";

int run(int argc, char** argv) {
  CLI::App app{kAbout, "fl"};
  app.require_subcommand(1);
  app.set_version_flag("--version", FL_VERSION);
  fl::cli::Action action;
  fl::cli::add_simulate(app, action);
  fl::cli::add_resume(app, action);
  fl::cli::add_sweep(app, action);
  fl::cli::add_plan(app, action);
  fl::cli::add_doctor(app, action);
  fl::cli::add_report(app, action);
  fl::cli::add_config(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? static_cast<int>(fl::ExitCode::ok) : static_cast<int>(fl::ExitCode::config);
  }
  return static_cast<int>(action());
}

int fail(const std::string& message, fl::ExitCode code) {
  std::fprintf(stderr, "fl: %s\n", message.c_str());
  return static_cast<int>(code);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const fl::Error& error) {
    return fail(error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    return fail("out of memory; use fewer --workers, a smaller model or a smaller batch ('fl plan' says what is needed)",
                fl::ExitCode::io);
  } catch (const std::exception& error) {
    return fail(std::string("unexpected error: ") + error.what(), fl::ExitCode::bug);
  }
}
