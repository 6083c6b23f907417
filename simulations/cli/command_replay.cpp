#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "fl_core/ml/torch_runtime.h"
#include "simulations/cli/command.h"
#include "simulations/cli/terminal.h"
#include "simulations/replay.h"

namespace fl::cli {
namespace {

struct ReplayArguments {
  std::string folder;
  std::size_t workers = 0;
  bool json = false;
};

void print_line(const nlohmann::json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

ExitCode tell(const ReplayArguments& arguments, const RecordedRun& recorded, const std::optional<ReplayDifference>& difference) {
  const std::string rounds = std::to_string(recorded.rounds.size());
  if (!difference) {
    const std::string& model = recorded.model_sha256.back();
    if (arguments.json) {
      print_line({{"agrees", true}, {"rounds", recorded.rounds.size()}, {"model_sha256", model}});
    } else {
      std::printf("replay agrees: %s rounds, model %s\n", rounds.c_str(), model.c_str());
    }
    return ExitCode::ok;
  }
  if (arguments.json) {
    print_line({{"agrees", false}, {"rounds", recorded.rounds.size()}, {"round", difference->round}, {"recorded", difference->recorded},
                {"replayed", difference->replayed}, {"why", difference->why}});
  }
  std::fprintf(stderr, "fl: replay differs: round %u of %s: the run has model %s, the replay %s; %s\n", difference->round, rounds.c_str(),
               difference->recorded.c_str(), difference->replayed.c_str(), difference->why.c_str());
  return ExitCode::out_of_band;
}

ExitCode replay_and_tell(const ReplayArguments& arguments) {
  watch_signals();
  const std::filesystem::path folder = run_folder(arguments.folder);
  const RecordedRun recorded = read_recorded_run(folder);
  Progress progress(arguments.json);
  progress.say("replaying " + std::to_string(recorded.rounds.size()) + " rounds of " + folder.string() + " …");
  const Prepared prepared = prepare_from(replay_experiment(recorded), (folder / "experiment.json").string());
  const auto rounds = static_cast<double>(recorded.rounds.size());
  ReplayOptions options;
  options.workers = arguments.workers;
  options.worker_setup = limit_threads_of_this_worker;
  options.should_stop = stop_requested;
  options.on_round = [&](std::uint32_t round, const std::string& sha256) {
    if (arguments.json) print_line({{"round", round}, {"model_sha256", sha256}});
    progress.show(round, rounds, "round " + std::to_string(round) + "/" + std::to_string(recorded.rounds.size()) + " agrees", false);
  };
  const auto difference = replay(recorded, prepared, options);
  progress.finish();
  return tell(arguments, recorded, difference);
}

}  // namespace

std::filesystem::path run_folder(const std::filesystem::path& named) {
  std::error_code unseen;
  const bool around = !std::filesystem::exists(named / "journal.db", unseen) && std::filesystem::exists(named / "run" / "journal.db", unseen);
  return around ? named / "run" : named;
}

void add_replay(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("replay", "Run a finished or interrupted run again in simulation, and compare every model");
  auto arguments = std::make_shared<ReplayArguments>();
  command->add_option("DIR", arguments->folder, "Run folder of fl-aggregator or 'fl simulate', or the folder of 'fl up'")->required();
  add_workers_option(*command, arguments->workers);
  command->add_flag("--json", arguments->json, "One JSON object a round on standard output, and a last one with the result");
  command->callback([arguments, &action] { action = [arguments] { return replay_and_tell(*arguments); }; });
}

}  // namespace fl::cli
