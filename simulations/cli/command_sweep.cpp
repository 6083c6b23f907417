#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "fl_core/base/file.h"
#include "fl_core/config/experiment.h"
#include "fl_core/config/json_reader.h"
#include "simulations/cli/command.h"
#include "simulations/cli/report.h"
#include "simulations/cli/terminal.h"

namespace fl::cli {
namespace {

constexpr std::size_t kMaxRuns = 10'000;

struct Axis {
  std::string path;
  std::vector<std::string> values;
};

/// "a.b=1,2,[3,4]" -> a.b and three values: commas inside brackets, braces and quotes do not separate.
Axis parse_axis(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
    throw ConfigError("--grid " + text + ": expected path=value,value,…, for example --grid trainer.epochs=1,5");
  }
  Axis axis{text.substr(0, equals), {""}};
  int depth = 0;
  bool quoted = false;
  for (const char c : text.substr(equals + 1)) {
    if (c == '"') quoted = !quoted;
    if (!quoted && (c == '[' || c == '{')) ++depth;
    if (!quoted && (c == ']' || c == '}')) --depth;
    if (c == ',' && depth == 0 && !quoted) {
      axis.values.emplace_back();
    } else {
      axis.values.back() += c;
    }
  }
  return axis;
}

/// Every combination as a list of settings, the last axis turning fastest.
std::vector<std::vector<std::string>> combinations(const std::vector<Axis>& axes) {
  std::vector<std::vector<std::string>> all = {{}};
  for (const Axis& axis : axes) {
    std::vector<std::vector<std::string>> longer;
    for (const auto& settings : all) {
      for (const std::string& value : axis.values) {
        longer.push_back(settings);
        longer.back().push_back(axis.path + "=" + value);
      }
    }
    all = std::move(longer);
    if (all.size() > kMaxRuns) throw ConfigError("--grid: more than " + std::to_string(kMaxRuns) + " runs; make the grid smaller");
  }
  return all;
}

std::string folder_name(const std::vector<std::string>& settings) {
  std::string name;
  for (const std::string& setting : settings) name += (name.empty() ? "" : ",") + setting;
  for (char& c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string("=.,_-").find(c) != std::string::npos;
    if (!plain) c = '_';
  }
  return name;
}

bool finished(const std::filesystem::path& folder, nlohmann::json& summary) {
  if (!std::filesystem::exists(folder / "run.json")) return false;
  summary = read_json_file(folder / "run.json");
  const std::string status = summary.value("status", "");
  return status == "finished" || status == "stopped_early";
}

std::string cell(const nlohmann::json& summary, const char* key) {
  const auto& value = summary.at(key);
  if (!value.is_number()) return value.is_string() ? value.get<std::string>().substr(0, 12) : "-";
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.4f", value.get<double>());
  return text.data();
}

struct SweepArguments {
  std::string file;
  std::vector<std::string> settings;
  std::vector<std::string> grid;
  std::size_t workers = 0;
  Pinning pinning = Pinning::off;
  std::string output;
  bool json = false;
};

/// Runs, goes on with, or skips (already finished) one combination. Returns its run.json.
nlohmann::json run_one(const SweepArguments& arguments, const nlohmann::json& document, const std::filesystem::path& folder) {
  nlohmann::json summary;
  RunRequest request;
  request.folder = folder;
  request.workers = arguments.workers;
  request.worker_cpus = worker_cpus(arguments.pinning, {{allowed_cpus(), arguments.workers}}, 0);
  request.quiet = true;
  request.resume = std::filesystem::exists(folder / "experiment.json");
  if (request.resume) {
    const auto resolved = to_json(parse_experiment(document, arguments.file));
    if (resolved != read_json_file(folder / "experiment.json")) {
      throw ConfigError(folder.string() + ": holds a run of another experiment; choose another --output");
    }
    if (finished(folder, summary)) return summary;
  }
  run_and_show(document, arguments.file, request, &summary);
  return summary;
}

ExitCode sweep(const SweepArguments& arguments) {
  std::vector<Axis> axes;
  for (const std::string& text : arguments.grid) axes.push_back(parse_axis(text));
  nlohmann::json base = read_json_file(arguments.file);
  for (const std::string& setting : arguments.settings) apply_setting(base, setting);
  // Every combination is validated before the first one runs.
  const auto all = combinations(axes);
  std::vector<nlohmann::json> documents;
  for (const auto& settings : all) {
    documents.push_back(base);
    for (const std::string& setting : settings) apply_setting(documents.back(), setting);
    parse_experiment(documents.back(), arguments.file + " with " + folder_name(settings));
  }
  const Experiment experiment = parse_experiment(documents.front(), arguments.file);
  const std::filesystem::path output = arguments.output.empty() ? std::filesystem::path("runs") / (experiment.name + "-sweep") : std::filesystem::path(arguments.output);

  std::vector<std::vector<std::string>> rows = {{}};
  for (const Axis& axis : axes) rows[0].push_back(axis.path);
  for (const char* head : {"accuracy", "loss", "rounds", "seconds", "model"}) rows[0].emplace_back(head);
  std::vector<RunData> runs;
  Progress progress(arguments.json);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::filesystem::path folder = output / folder_name(all[i]);
    progress.show(static_cast<double>(i), static_cast<double>(all.size()),
                  "run " + std::to_string(i + 1) + "/" + std::to_string(all.size()) + "  " + folder_name(all[i]), true);
    const nlohmann::json summary = run_one(arguments, documents[i], folder);
    std::vector<std::string> row;
    nlohmann::json line = {{"folder", folder.string()}, {"settings", nlohmann::json::object()}};
    for (const std::string& setting : all[i]) {
      const auto equals = setting.find('=');
      row.push_back(setting.substr(equals + 1));
      line["settings"][setting.substr(0, equals)] = setting.substr(equals + 1);
    }
    row.push_back(cell(summary, "accuracy"));
    row.push_back(cell(summary, "loss"));
    row.push_back(summary.at("rounds").dump());
    row.push_back(human_seconds(summary.at("seconds").get<double>()));
    row.push_back(cell(summary, "model_sha256"));
    rows.push_back(row);
    line.update(summary);
    if (arguments.json) std::printf("%s\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    runs.push_back(read_run(folder));
  }
  progress.finish();
  write_file_atomically(output / "comparison.html", render_report(runs));
  if (!arguments.json) std::printf("%s\ncomparison  %s\n", table(rows).c_str(), (output / "comparison.html").c_str());
  return ExitCode::ok;
}

}  // namespace

void add_sweep(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("sweep", "One run for each combination of settings, and a table at the end");
  auto arguments = std::make_shared<SweepArguments>();
  command->add_option("FILE", arguments->file, "Experiment in JSON")->required();
  command->add_option("--grid", arguments->grid, "Values to try: --grid trainer.epochs=1,5 --grid seed=1,2,3")
      ->required()
      ->type_name("PATH=V,V…")
      ->allow_extra_args(false);
  add_set_option(*command, arguments->settings);
  add_workers_option(*command, arguments->workers);
  add_pin_option(*command, arguments->pinning);
  command->add_option("--output", arguments->output, "Folder of the runs; default: runs/NAME-sweep. Called again, it goes on where it stopped")->type_name("DIR");
  command->add_flag("--json", arguments->json, "One JSON object a run");
  command->callback([arguments, &action] { action = [arguments] { return sweep(*arguments); }; });
}

}  // namespace fl::cli
