#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "fl_core/base/file.h"
#include "simulations/cli/command.h"
#include "simulations/cli/report.h"

namespace fl::cli {

void add_report(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("report", "Write one self-contained HTML page about a run, or comparing several");
  struct Arguments {
    std::vector<std::string> folders;
    std::string output;
  };
  auto arguments = std::make_shared<Arguments>();
  command->add_option("DIR", arguments->folders, "Run folders")->required();
  command->add_option("--output", arguments->output, "Where to write; default: DIR/report.html, or comparison.html for several")
      ->type_name("FILE");
  command->callback([arguments, &action] {
    action = [arguments] {
      std::vector<RunData> runs;
      for (const std::string& folder : arguments->folders) runs.push_back(read_run(folder));
      std::filesystem::path output = arguments->output;
      if (output.empty()) {
        output = runs.size() == 1 ? std::filesystem::path(arguments->folders[0]) / "report.html" : std::filesystem::path("comparison.html");
      }
      write_file_atomically(output, render_report(runs));
      std::printf("%s\n", output.string().c_str());
      return ExitCode::ok;
    };
  });
}

}  // namespace fl::cli
