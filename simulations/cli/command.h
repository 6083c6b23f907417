#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fl_core/base/error.h"
#include "simulations/cli/worker_setup.h"

namespace CLI {
class App;
}
namespace fl {
class Cluster;
struct Experiment;
struct Prepared;
}

namespace fl::cli {

/// What the chosen subcommand does; set while the command line is parsed, run afterwards.
using Action = std::function<ExitCode()>;

void add_simulate(CLI::App& app, Action& action);
void add_resume(CLI::App& app, Action& action);
void add_up(CLI::App& app, Action& action);
void add_replay(CLI::App& app, Action& action);
void add_sweep(CLI::App& app, Action& action);
void add_plan(CLI::App& app, Action& action);
void add_doctor(CLI::App& app, Action& action);
void add_report(CLI::App& app, Action& action);
void add_clients(CLI::App& app, Action& action);
void add_config(CLI::App& app, Action& action);
void add_pki(CLI::App& app, Action& action);
void add_conformance(CLI::App& app, Action& action);
void add_privacy(CLI::App& app, Action& action);

/// --set PATH=VALUE, any number of times.
void add_set_option(CLI::App& command, std::vector<std::string>& settings);
/// --workers N; `workers` gets the default, one a core.
void add_workers_option(CLI::App& command, std::size_t& workers);

/// Whether Ctrl-C or SIGTERM came since watch_signals().
bool stop_requested();
/// From now on the first Ctrl-C asks politely; a second one ends the process.
void watch_signals();

/// Cores that this process may use.
std::size_t available_cores();
/// Versions of Tributary, LibTorch and the compiler, as written into the run folder.
nlohmann::json versions();

/// prepare() whose errors begin with `source`, the experiment's file.
Prepared prepare_from(Experiment experiment, const std::string& source);

struct RunRequest {
  std::filesystem::path folder;
  std::size_t workers = 1;
  Pinning pinning = Pinning::off;
  std::vector<int> worker_cpus;  ///< as worker_cpus() chose them; empty: workers roam
  bool resume = false;
  bool json = false;   ///< one JSON object a round on standard output
  bool check = false;  ///< ExitCode::out_of_band when the experiment's expectation is missed
  bool quiet = false;
  Cluster* cluster = nullptr;  ///< under mpirun; see ranks.h
};
/// Runs one experiment with progress, summary and report. `summary`, when given, gets run.json.
ExitCode run_and_show(const nlohmann::json& experiment, const std::string& source, const RunRequest& request,
                      nlohmann::json* summary = nullptr);

/// The run folder that the user names: DIR, or DIR/run where DIR is a folder of 'fl up'.
std::filesystem::path run_folder(const std::filesystem::path& named);
/// "runs/NAME", or "runs/NAME-2", … : the first folder that does not exist yet.
std::filesystem::path fresh_folder(const std::filesystem::path& parent, const std::string& name);

}  // namespace fl::cli
