#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "fl_core/config/json_reader.h"
#include "fl_core/ml/torch_runtime.h"
#include "privacy/mechanism/promise.h"
#include "simulations/cli/command.h"
#include "simulations/cli/ranks.h"
#include "simulations/cli/run_view.h"
#include "simulations/mpi/cluster.h"
#include "simulations/simulation.h"

namespace fl::cli {
namespace {

volatile std::sig_atomic_t g_stop = 0;

extern "C" void on_signal(int signal) {
  g_stop = 1;
  // The next one takes the default action: a run that does not react can still be ended.
  std::signal(signal, SIG_DFL);
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
  return std::max<std::size_t>(1, allowed_cpus().size());
}

void add_set_option(CLI::App& command, std::vector<std::string>& settings) {
  command.add_option("--set", settings, "Changes one key: --set trainer.epochs=5")->type_name("PATH=VALUE")->allow_extra_args(false);
}

void add_workers_option(CLI::App& command, std::size_t& workers) {
  workers = available_cores();
  command.add_option("--workers", workers, "Worker threads (of each rank under mpirun); default: one a core")->check(CLI::Range(1, 1024));
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

namespace {

std::string promise_line(const Promise& promise) {
  const std::uint32_t rounds = promise.setting().rounds;
  std::string text = "privacy after " + human_count(rounds) + " rounds: " + promise.sentence(promise.epsilon_after(rounds));
  if (const auto fit = promise.rounds_that_fit()) text += "; " + human_count(*fit) + " rounds fit into the budget";
  return text;
}

}  // namespace

ExitCode run_and_show(const nlohmann::json& document, const std::string& source, const RunRequest& request,
                      nlohmann::json* summary_out) {
  watch_signals();
  Experiment experiment = parse_experiment(document, source);
  if (experiment.round.deadline_s && !experiment.devices) {
    bad_value(source + ": round.deadline_s", *experiment.round.deadline_s, "null, or a \"devices\" section: without it every simulated client answers at once");
  }
  nlohmann::json noted = versions();
  if (request.cluster) request.cluster->announce(document.dump(), source, noted.dump());
  RunView view(experiment, request.json, request.quiet);
  view.progress().say("loading " + experiment.data.at("name").get<std::string>() + " …");
  const Prepared prepared = prepare_from(std::move(experiment), source);
  const ModelCost cost = prepared.model->cost();
  view.progress().say(prepared.experiment.name + ": " + human_count(static_cast<std::int64_t>(prepared.partition->clients())) + " clients, cohort " +
                      human_count(prepared.experiment.round.cohort) + ", " + human_count(prepared.experiment.rounds) + " rounds, " +
                      prepared.experiment.model.at("name").get<std::string>() + " (" + human_count(cost.parameters) + " parameters), " +
                      std::to_string(request.workers) + " workers -> " + request.folder.string());
  if (request.cluster) {
    request.cluster->await_ready(prepared.data.train->fingerprint() + prepared.data.test->fingerprint());
    view.progress().say(request.cluster->description());
  }
  SimulationOptions options;
  options.workers = request.workers;
  options.cluster = request.cluster;
  options.folder = request.folder;
  options.resume = request.resume;
  options.versions = &noted;
  options.worker_setup = worker_setup(request.worker_cpus);
  if (prepared.experiment.privacy) view.progress().say("accounting for privacy …");
  options.on_promise = [&](const Promise& promise) { view.progress().say(promise_line(promise)); };
  options.on_round = [&](const RoundReport& report) { view.round(report); };
  options.on_progress = [&](std::uint32_t round, std::size_t answered, std::size_t asked) { view.arrival(round, answered, asked); };
  options.should_stop = stop_requested;
  const nlohmann::json summary = run_simulation(prepared, options);
  view.progress().finish();

  if (summary_out != nullptr) *summary_out = summary;
  return show_result(prepared.experiment, summary, request);
}

void add_simulate(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("simulate", "Train a federation on this machine");
  struct Arguments {
    std::string file;
    std::vector<std::string> settings;
    std::size_t workers = 0;
    Pinning pinning = Pinning::off;
    std::string output;
    bool json = false;
    bool check = false;
  };
  auto arguments = std::make_shared<Arguments>();
  command->add_option("FILE", arguments->file, "Experiment in JSON")->required();
  add_set_option(*command, arguments->settings);
  add_workers_option(*command, arguments->workers);
  add_pin_option(*command, arguments->pinning);
  command->add_option("--output", arguments->output, "Run folder; default: runs/NAME")->type_name("DIR");
  command->add_flag("--json", arguments->json, "One JSON object a round on standard output, and a last one with the summary");
  command->add_flag("--check", arguments->check, "Exit with 6 when the experiment's expected band is missed");
  command->callback([command, arguments, &action] {
    action = [arguments, workers_given = command->count("--workers") > 0] {
      RunRequest request;
      request.workers = arguments->workers;
      request.pinning = arguments->pinning;
      request.json = arguments->json;
      request.check = arguments->check;
      return on_ranks(request, workers_given, [&] {
        nlohmann::json document = read_json_file(arguments->file);
        for (const std::string& setting : arguments->settings) apply_setting(document, setting);
        const Experiment experiment = parse_experiment(document, arguments->file);
        request.folder = arguments->output.empty() ? fresh_folder("runs", experiment.name) : std::filesystem::path(arguments->output);
        return run_and_show(document, arguments->file, request);
      });
    };
  });
}

void add_resume(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("resume", "Go on with an interrupted run, to the bits it would have had");
  struct Arguments {
    std::string folder;
    std::size_t workers = 0;
    Pinning pinning = Pinning::off;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  command->add_option("DIR", arguments->folder, "Run folder")->required();
  add_workers_option(*command, arguments->workers);
  add_pin_option(*command, arguments->pinning);
  command->add_flag("--json", arguments->json, "One JSON object a round on standard output, and a last one with the summary");
  command->callback([command, arguments, &action] {
    action = [arguments, workers_given = command->count("--workers") > 0] {
      RunRequest request;
      request.folder = arguments->folder;
      request.resume = true;
      request.workers = arguments->workers;
      request.pinning = arguments->pinning;
      request.json = arguments->json;
      return on_ranks(request, workers_given, [&] {
        const auto file = request.folder / "experiment.json";
        if (!std::filesystem::exists(file)) {
          throw ConfigError(request.folder.string() + ": not a run folder (no experiment.json); expected one that 'fl simulate' made");
        }
        return run_and_show(read_json_file(file), file.string(), request);
      });
    };
  });
}

}  // namespace fl::cli
