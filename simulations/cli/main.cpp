#include <CLI/CLI.hpp>

#include "fl_core/base/program.h"
#include "fl_core/config/json_reader.h"
#include "simulations/cli/command.h"
#include "simulations/cli/ranks.h"

namespace {

constexpr const char* kAbout =
    "Tributary: federated learning, from one JSON file.\n"
    "  fl simulate simulations/experiments/quickstart.json   trains a federation on this machine\n"
    "  fl config EXPERIMENT --schema                          every key with type, default, unit and meaning\n"
    "  fl doctor                                              what this machine can do, and what to fix";

/// The commands of a program or of a command, with the nearest one to what was written instead.
fl::ConfigError no_such_command(const CLI::App& app, const std::string& path, const std::string& word) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) names.push_back(command->get_name());
  const std::string prefix = path.empty() ? "" : path + ": ";
  if (!word.empty() && word[0] != '-') return fl::ConfigError(prefix + "there is no command '" + word + "'" + fl::nearest_hint(word, names));
  if (!word.empty()) return fl::ConfigError(prefix + "there is no option '" + word + "' before a command; try 'fl" + (path.empty() ? "" : " " + path) + " --help'");
  return fl::ConfigError(prefix + "expected a command" + fl::nearest_hint("", names) + "; 'fl" + (path.empty() ? "" : " " + path) + " --help' says more");
}

/// A mistake in the command line as one line in the house's form, with the nearest command or option.
fl::ConfigError usage_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  // Commands may have commands: 'fl pki issue server'.
  const CLI::App* deepest = &app;
  std::string name;
  int depth = 1;
  for (; !deepest->get_subcommands().empty(); ++depth) {
    deepest = deepest->get_subcommands().front();
    name += (name.empty() ? "" : " ") + deepest->get_name();
  }
  const CLI::App& command = *deepest;
  if (!command.get_subcommands([](const CLI::App*) { return true; }).empty()) {
    return no_such_command(command, name, argc > depth ? argv[depth] : "");
  }
  const std::vector<std::string> unknown = app.remaining(true);
  if (dynamic_cast<const CLI::ExtrasError*>(&error) == nullptr || unknown.empty()) {
    return fl::ConfigError(name + ": " + error.what() + "; 'fl " + name + " --help' lists the options");
  }
  const std::string& word = unknown.front();
  if (word[0] != '-') return fl::ConfigError(name + ": one argument too many, '" + word + "'; try 'fl " + name + " --help'");
  std::vector<std::string> options;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& one : option->get_lnames()) options.push_back("--" + one);
  }
  return fl::ConfigError(name + ": there is no option '" + word + "'" + fl::nearest_hint(word, options));
}

fl::ExitCode run(int argc, char** argv) {
  CLI::App app{kAbout, "fl"};
  app.require_subcommand(1);
  app.set_version_flag("--version", FL_VERSION);
  fl::cli::Action action;
  fl::cli::add_simulate(app, action);
  fl::cli::add_resume(app, action);
  fl::cli::add_up(app, action);
  fl::cli::add_replay(app, action);
  fl::cli::add_sweep(app, action);
  fl::cli::add_plan(app, action);
  fl::cli::add_doctor(app, action);
  fl::cli::add_report(app, action);
  fl::cli::add_clients(app, action);
  fl::cli::add_config(app, action);
  fl::cli::add_pki(app, action);
  fl::cli::add_conformance(app, action);
  fl::cli::add_privacy(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) throw usage_error(app, error, argc, argv);
    app.exit(error);  // prints --help and --version
    return fl::ExitCode::ok;
  }
  const std::string command = app.get_subcommands().front()->get_name();
  if (fl::cli::one_of_several() && command != "simulate" && command != "resume") {
    throw fl::ConfigError(command + ": several copies of fl were started (by mpirun or srun); only 'fl simulate' and 'fl resume' work together, start one copy");
  }
  return action();
}

}  // namespace

int main(int argc, char** argv) {
  return fl::run_program("fl", "use fewer --workers, a smaller model or a smaller batch ('fl plan' says what is needed)", [&] { return run(argc, argv); });
}
