#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "fl_core/config/experiment.h"
#include "fl_core/config/registry.h"
#include "simulations/cli/command.h"

namespace fl::cli {
namespace {

void print_keys(const nlohmann::json& keys, const std::string& indent) {
  for (const auto& [key, about] : keys.items()) {
    std::string line = indent + key + "  (" + about.at("type").get<std::string>();
    if (about.contains("default")) line += "; default " + about.at("default").dump();
    if (about.contains("unit")) line += "; unit " + about.at("unit").get<std::string>();
    std::printf("%s)\n%s    %s\n", line.c_str(), indent.c_str(), about.at("meaning").get<std::string>().c_str());
    if (about.contains("keys")) print_keys(about.at("keys"), indent + "  ");
  }
}

void print_schema() {
  const nlohmann::json schema = experiment_schema();
  std::printf("EXPERIMENT\n");
  print_keys(schema.at("experiment"), "  ");
  for (const auto& [kind, components] : schema.at("components").items()) {
    std::printf("\n%s: one of\n", kind.c_str());
    for (const auto& [name, about] : components.items()) {
      std::printf("  \"%s\"  %s\n", name.c_str(), about.at("summary").get<std::string>().c_str());
      print_keys(about.at("options"), "      ");
    }
  }
}

}  // namespace

void add_config(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("config", "Print an experiment with every default filled in, or the schema");
  struct Arguments {
    std::string file;
    std::vector<std::string> settings;
    bool schema = false;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  command->add_option("FILE", arguments->file, "Experiment in JSON");
  add_set_option(*command, arguments->settings);
  command->add_flag("--schema", arguments->schema, "Print every key with type, default, unit and meaning");
  command->add_flag("--json", arguments->json, "With --schema: as JSON");
  command->callback([arguments, &action] {
    action = [arguments] {
      if (arguments->schema && arguments->json) std::printf("%s\n", experiment_schema().dump(2).c_str());
      if (arguments->schema && !arguments->json) print_schema();
      if (arguments->file.empty() && !arguments->schema) throw ConfigError("config: expected an experiment FILE or --schema; try 'fl config --help'");
      if (!arguments->file.empty()) {
        const Experiment experiment = load_experiment(arguments->file, arguments->settings);
        nlohmann::json document = to_json(experiment);
        document["device"] = experiment.device;  // left out for the processor otherwise, and this shows every default
        std::printf("%s\n", document.dump(2).c_str());
      }
      return ExitCode::ok;
    };
  });
}

}  // namespace fl::cli
