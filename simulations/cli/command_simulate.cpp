#include <sched.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "fl_core/base/file.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/ml/torch_runtime.h"
#include "simulations/cli/command.h"
#include "simulations/cli/report.h"
#include "simulations/cli/terminal.h"
#include "simulations/simulation.h"

namespace fl::cli {
namespace {

volatile std::sig_atomic_t g_stop = 0;

extern "C" void on_signal(int signal) {
  g_stop = 1;
  // The next one takes the default action: a run that does not react can still be ended.
  std::signal(signal, SIG_DFL);
}

/// Seconds a round and what is left, from the rounds seen so far.
class Pace {
 public:
  explicit Pace(std::uint32_t rounds) : rounds_(rounds) {}
  void add(const RoundReport& report) {
    ++seen_;
    seconds_ += report.wall_seconds + report.wall_seconds_evaluation;
    last_ = report.round;
  }
  std::string text() const {
    if (seen_ == 0) return "";
    const double each = seconds_ / seen_;
    return human_seconds(each) + "/round, " + human_seconds(each * (rounds_ - last_)) + " left";
  }

 private:
  std::uint32_t rounds_;
  std::uint32_t seen_ = 0;
  std::uint32_t last_ = 0;
  double seconds_ = 0;
};

/// What the user sees while a run goes on.
class RunView {
 public:
  RunView(const Experiment& experiment, const RunRequest& request)
      : rounds_(static_cast<std::uint32_t>(experiment.rounds)), json_(request.json), progress_(request.json || request.quiet),
        pace_(rounds_) {}

  Progress& progress() { return progress_; }

  void arrival(std::uint32_t round, std::size_t answered, std::size_t asked) {
    const double done = round - 1 + static_cast<double>(answered) / static_cast<double>(asked);
    progress_.show(done, rounds_, line(round, std::to_string(answered) + "/" + std::to_string(asked) + " clients"), false);
  }

  void round(const RoundReport& report) {
    pace_.add(report);
    if (report.accuracy) measured_ = percent(*report.accuracy) + " accuracy";
    if (json_) {
      nlohmann::json line = to_json(report);
      line.erase("cohort");  // who did what is in metrics.jsonl; a line a round must stay short with large cohorts
      std::printf("%s\n", line.dump().c_str());
      std::fflush(stdout);
    }
    const bool tenth = report.round == rounds_ || report.round % std::max(1U, rounds_ / 10) == 0;
    progress_.show(report.round, rounds_, line(report.round, report.abandoned ? "abandoned" : ""), tenth);
  }

 private:
  std::string line(std::uint32_t round, const std::string& more) const {
    std::string text = "round " + std::to_string(round) + "/" + std::to_string(rounds_);
    if (!measured_.empty()) text += "  " + measured_;
    if (!pace_.text().empty()) text += "  " + pace_.text();
    if (!more.empty()) text += "  " + more;
    return text;
  }

  std::uint32_t rounds_;
  bool json_;
  Progress progress_;
  Pace pace_;
  std::string measured_;
};

/// "expected accuracy 0.84–0.857: reached 0.848, inside", or empty without an expectation.
std::string verdict(const Experiment& experiment, const nlohmann::json& summary, bool& inside) {
  inside = true;
  if (!experiment.expect) return "";
  const Expectation& expect = *experiment.expect;
  const auto& value = summary.at(expect.metric);
  const double reached = value.is_number() ? value.get<double>() : std::nan("");
  inside = reached >= expect.low && reached <= expect.high;
  std::array<char, 200> text{};
  std::snprintf(text.data(), text.size(), "expected   %s from %.4g to %.4g: %s", expect.metric.c_str(), expect.low, expect.high,
                inside ? "reached" : "MISSED");
  return text.data();
}

void print_summary(const Experiment& experiment, const nlohmann::json& summary, const std::filesystem::path& folder) {
  const auto line = [](const char* what, const std::string& value) { std::printf("%-10s %s\n", what, value.c_str()); };
  const auto number = [&](const char* key) { return summary.at(key).is_number() ? summary.at(key).get<double>() : std::nan(""); };
  if (summary.at("accuracy").is_number()) line("accuracy", percent(number("accuracy")) + " on the test set, after round " + summary.at("rounds").dump());
  if (const auto& clients = summary.at("client_accuracy"); !clients.is_null()) {
    line("clients", percent(clients.at("mean").get<double>()) + " mean, " + percent(clients.at("p10").get<double>()) + " p10, " +
                        percent(clients.at("p90").get<double>()) + " p90 of " + clients.at("clients").dump() + " clients on their held-out examples");
  }
  bool inside = true;
  const std::string expected = verdict(experiment, summary, inside);
  if (!expected.empty()) std::printf("%s\n", expected.c_str());
  line("time", human_seconds(number("seconds")) + ", " + human_count(std::llround(number("train_samples_per_s"))) + " training examples a second, peak memory " +
                   human_bytes(number("peak_rss_bytes")));
  line("traffic", human_bytes(number("bytes_up")) + " up, " + human_bytes(number("bytes_down")) + " down");
  line("model", summary.at("model_sha256").get<std::string>());
  line("folder", folder.string());
  line("report", (folder / "report.html").string());
}

}  // namespace

bool stop_requested() { return g_stop != 0; }

void watch_signals() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  // A full disk under a file-size limit must come back as an error of write(), not as a signal that kills the run.
  std::signal(SIGXFSZ, SIG_IGN);
}

std::size_t available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return static_cast<std::size_t>(std::max(1, CPU_COUNT(&set)));
}

void add_set_option(CLI::App& command, std::vector<std::string>& settings) {
  command.add_option("--set", settings, "Changes one key: --set trainer.epochs=5")->type_name("PATH=VALUE")->allow_extra_args(false);
}

void add_workers_option(CLI::App& command, std::size_t& workers) {
  workers = available_cores();
  command.add_option("--workers", workers, "Worker threads; default: one a core")->check(CLI::Range(1, 1024));
}

nlohmann::json versions() {
  return {{"tributary_version", FL_VERSION}, {"torch_version", torch_version()}, {"compiler", __VERSION__}};
}

std::filesystem::path fresh_folder(const std::filesystem::path& parent, const std::string& name) {
  std::filesystem::path folder = parent / name;
  for (int i = 2; std::filesystem::exists(folder); ++i) folder = parent / (name + "-" + std::to_string(i));
  return folder;
}

Prepared prepare_from(Experiment experiment, const std::string& source) {
  try {
    return prepare(std::move(experiment));
  } catch (const ConfigError& error) {
    throw ConfigError(source + ": " + error.what());
  }
}

ExitCode run_and_show(const nlohmann::json& document, const std::string& source, const RunRequest& request,
                      nlohmann::json* summary_out) {
  watch_signals();
  Experiment experiment = parse_experiment(document, source);
  RunView view(experiment, request);
  view.progress().say("loading " + experiment.data.at("name").get<std::string>() + " …");
  const Prepared prepared = prepare_from(std::move(experiment), source);
  const ModelCost cost = prepared.model->cost();
  view.progress().say(prepared.experiment.name + ": " + human_count(static_cast<std::int64_t>(prepared.partition->clients())) + " clients, cohort " +
                      human_count(prepared.experiment.round.cohort) + ", " + human_count(prepared.experiment.rounds) + " rounds, " +
                      prepared.experiment.model.at("name").get<std::string>() + " (" + human_count(cost.parameters) + " parameters), " +
                      std::to_string(request.workers) + " workers -> " + request.folder.string());
  nlohmann::json noted = versions();
  SimulationOptions options;
  options.workers = request.workers;
  options.folder = request.folder;
  options.resume = request.resume;
  options.versions = &noted;
  options.worker_setup = limit_threads_of_this_worker;
  options.on_round = [&](const RoundReport& report) { view.round(report); };
  options.on_progress = [&](std::uint32_t round, std::size_t answered, std::size_t asked) { view.arrival(round, answered, asked); };
  options.should_stop = stop_requested;
  const nlohmann::json summary = run_simulation(prepared, options);
  view.progress().finish();

  write_file_atomically(request.folder / "report.html", render_report({read_run(request.folder)}));
  if (request.json) {
    std::printf("%s\n", summary.dump().c_str());
  } else if (!request.quiet) {
    print_summary(prepared.experiment, summary, request.folder);
  }
  if (summary_out != nullptr) *summary_out = summary;
  bool inside = true;
  verdict(prepared.experiment, summary, inside);
  return request.check && !inside ? ExitCode::out_of_band : ExitCode::ok;
}

void add_simulate(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("simulate", "Train a federation on this machine");
  struct Arguments {
    std::string file;
    std::vector<std::string> settings;
    std::size_t workers = 0;
    std::string output;
    bool json = false;
    bool check = false;
  };
  auto arguments = std::make_shared<Arguments>();
  command->add_option("FILE", arguments->file, "Experiment in JSON")->required();
  add_set_option(*command, arguments->settings);
  add_workers_option(*command, arguments->workers);
  command->add_option("--output", arguments->output, "Run folder; default: runs/NAME")->type_name("DIR");
  command->add_flag("--json", arguments->json, "One JSON object a round on standard output, and a last one with the summary");
  command->add_flag("--check", arguments->check, "Exit with 6 when the experiment's expected band is missed");
  command->callback([arguments, &action] {
    action = [arguments] {
      nlohmann::json document = read_json_file(arguments->file);
      for (const std::string& setting : arguments->settings) apply_setting(document, setting);
      const Experiment experiment = parse_experiment(document, arguments->file);
      RunRequest request;
      request.folder = arguments->output.empty() ? fresh_folder("runs", experiment.name) : std::filesystem::path(arguments->output);
      request.workers = arguments->workers;
      request.json = arguments->json;
      request.check = arguments->check;
      return run_and_show(document, arguments->file, request);
    };
  });
}

void add_resume(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("resume", "Go on with an interrupted run, to the bits it would have had");
  struct Arguments {
    std::string folder;
    std::size_t workers = 0;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  command->add_option("DIR", arguments->folder, "Run folder")->required();
  add_workers_option(*command, arguments->workers);
  command->add_flag("--json", arguments->json, "One JSON object a round on standard output, and a last one with the summary");
  command->callback([arguments, &action] {
    action = [arguments] {
      const std::filesystem::path folder = arguments->folder;
      const auto file = folder / "experiment.json";
      if (!std::filesystem::exists(file)) {
        throw ConfigError(folder.string() + ": not a run folder (no experiment.json); expected one that 'fl simulate' made");
      }
      RunRequest request;
      request.folder = folder;
      request.resume = true;
      request.workers = arguments->workers;
      request.json = arguments->json;
      return run_and_show(read_json_file(file), file.string(), request);
    };
  });
}

}  // namespace fl::cli
