#include <sys/sysinfo.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "fl_core/config/json_reader.h"
#include "fl_core/round/types.h"
#include "simulations/cli/command.h"
#include "simulations/cli/processes.h"
#include "simulations/cli/run_view.h"
#include "simulations/cli/up_folder.h"
#include "simulations/simulation.h"

namespace fl::cli {
namespace {

using nlohmann::json;

constexpr double kPoll_s = 0.2;
/// How long processes may take to end when asked to, before they are killed. Whatever they do, a kill loses nothing.
constexpr double kAggregatorStop_s = 60;
constexpr double kClientStop_s = 10;
/// Clients end by themselves when the server says that the run is over; one that has not heard it is told.
constexpr double kClientFinish_s = 5;
constexpr std::size_t kManyClients = 20;
/// What a client process takes of the memory before it loads data: LibTorch and a small model, without what all share.
constexpr double kClientBytes = 1e8;

struct UpArguments {
  std::string file;
  std::size_t clients = 0;
  std::vector<std::string> settings;
  std::string output;
  bool json = false;
  bool quiet = false;
  std::optional<double> timeout_s;
};

/// The experiment for this many clients.
Experiment experiment_for(const UpArguments& arguments, std::int64_t& named) {
  json document = read_json_file(arguments.file);
  for (const std::string& setting : arguments.settings) apply_setting(document, setting);
  const Experiment experiment = parse_experiment(document, arguments.file);
  const json& partition = experiment.partition;
  const auto clients = static_cast<std::int64_t>(arguments.clients);
  if (!partition.contains("clients")) {
    throw ConfigError(arguments.file + ": partition.name: got " + shown(partition.at("name")) +
                      ", which has no key 'clients' that --clients could set; choose another partition");
  }
  named = partition.at("clients").is_number_integer() ? partition.at("clients").get<std::int64_t>() : 0;
  if (named == clients) return experiment;
  apply_setting(document, "partition.clients=" + std::to_string(clients));
  return parse_experiment(document, arguments.file);
}

/// A federation of processes from their start to their end.
class Federated {
 public:
  Federated(const UpFolder& folder, RunView& view, std::optional<double> timeout_s)
      : folder_(folder), view_(view), timeout_s_(timeout_s), aggregator_(start_aggregator()) {
    const auto program = program_beside_this("fl-client");
    for (std::size_t i = 0; i < folder.clients(); ++i) {
      clients_.emplace_back(ChildProcess::Start{client_name(i), program, {folder.client_file(i).string()}, folder.log_of(client_name(i))});
    }
    reported_.resize(clients_.size());
  }

  /// Returns run.json as the aggregator printed it. Throws what the aggregator's end means, and Interrupted.
  json run() {
    const auto begin = std::chrono::steady_clock::now();
    // A process that has ended may have left lines in the pipe: its end is asked for first.
    for (bool last = false; !last;) {
      last = aggregator_.ended().has_value();
      for (const std::string& line : aggregator_.read_lines(last ? 0 : kPoll_s)) take(line);
      if (last) break;
      if (stop_requested()) stop<Interrupted>("interrupted");
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      if (timeout_s_ && seconds > *timeout_s_) stop<Interrupted>("not finished within --timeout " + human_seconds(*timeout_s_));
      look_at_clients();
    }
    view_.progress().finish();
    const int code = *aggregator_.ended();
    if (code != 0) {
      end_clients(0);
      fail(code);
    }
    end_clients(kClientFinish_s);
    if (summary_.is_null()) throw Error("the aggregator ended well but printed no summary; its log is " + folder_.log_of("aggregator").string());
    return summary_;
  }

 private:
  ChildProcess start_aggregator() const {
    return ChildProcess({"aggregator", program_beside_this("fl-aggregator"), {folder_.server_file().string(), "--json"}, folder_.log_of("aggregator"), true});
  }

  void take(const std::string& text) {
    const json line = json::parse(text, nullptr, false);
    if (!line.is_object()) return;  // not ours: a library's warning
    if (line.contains("status")) {
      summary_ = line;
    } else if (line.contains("round")) {
      json report = line;
      report["cohort"] = {{"clients", json::array()}, {"outcomes", json::array()}};
      view_.round(report_from_json(report), line);
      begun_ = true;
    }
  }

  void look_at_clients() {
    std::size_t dead = 0;
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      const int end = clients_[i].ended().value_or(0);  // 0: it runs, or was told that the run is over
      if (end == 0) continue;
      ++dead;
      if (!begun_) stop<TrainingError>("the run cannot begin without " + clients_[i].name() + ", which ended before the first round: " + clients_[i].how_it_ended());
      if (!reported_[i]) warn(clients_[i].name() + " ended: " + clients_[i].how_it_ended());
      reported_[i] = true;
    }
    if (dead == clients_.size()) stop<TrainingError>("no client is left, so the run cannot go on");
  }

  void warn(const std::string& what) {
    view_.progress().finish();
    std::fprintf(stderr, "warning: %s\n", what.c_str());
  }

  std::string how_to_go_on() const { return "go on with the same command and --output " + folder_.path().string(); }

  /// Ends everything in order. The error in `Kind` says why, and how to go on.
  template <class Kind>
  [[noreturn]] void stop(const std::string& why) {
    view_.progress().finish();
    stop_aggregator();
    end_clients(0);
    throw Kind(why + "; " + how_to_go_on());
  }

  /// The aggregator goes first: were a client to leave it, its round would be closed without that client.
  void stop_aggregator() {
    aggregator_.send_signal(SIGTERM);
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(kAggregatorStop_s);
    while (!aggregator_.ended() && std::chrono::steady_clock::now() < until) {
      for (const std::string& line : aggregator_.read_lines(kPoll_s)) take(line);
    }
    aggregator_.send_signal(SIGKILL);
    aggregator_.wait_for_end(kClientStop_s);
  }

  void end_clients(double patience_s) {
    const auto wait_for_all = [&](double seconds) {
      const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
      for (ChildProcess& client : clients_) client.wait_for_end(std::chrono::duration<double>(until - std::chrono::steady_clock::now()).count());
    };
    wait_for_all(patience_s);
    for (ChildProcess& client : clients_) client.send_signal(SIGTERM);
    wait_for_all(kClientStop_s);
    for (ChildProcess& client : clients_) client.send_signal(SIGKILL);
  }

  [[noreturn]] void fail(int code) {
    const std::string what = "the aggregator ended with " + aggregator_.how_it_ended();
    switch (static_cast<ExitCode>(code)) {
      case ExitCode::config: throw ConfigError(what);
      case ExitCode::training: throw TrainingError(what);
      case ExitCode::interrupted: throw Interrupted(what + "; " + how_to_go_on());
      case ExitCode::bug: throw Error(what);
      default: throw IoError(what + "; " + how_to_go_on());
    }
  }

  const UpFolder& folder_;
  RunView& view_;
  std::optional<double> timeout_s_;
  ChildProcess aggregator_;
  std::vector<ChildProcess> clients_;
  std::vector<bool> reported_;
  bool begun_ = false;  ///< a round has ended since the processes were started
  json summary_;
};

void warn_about_memory(std::size_t clients) {
  if (clients <= kManyClients) return;
  struct sysinfo system {};
  ::sysinfo(&system);
  std::fprintf(stderr, "warning: %zu client processes need about %s of memory and more for their data; this machine has %s, and 'fl simulate' needs one process\n",
               clients, human_bytes(static_cast<double>(clients) * kClientBytes).c_str(),
               human_bytes(static_cast<double>(system.totalram) * system.mem_unit).c_str());
}

/// Loads the data, checks the experiment, and writes what the processes need. Frees it all: they load their own.
void fill_folder(UpFolder& folder, const Experiment& experiment, const std::string& file, RunView& view) {
  view.progress().say("loading " + experiment.data.at("name").get<std::string>() + ", making certificates …");
  const Prepared prepared = prepare_from(experiment, file);
  if (prepared.partition->clients() != folder.clients()) {
    throw ConfigError(file + ": partition.clients: the partition makes " + std::to_string(prepared.partition->clients()) + " clients, expected as many as --clients (" +
                      std::to_string(folder.clients()) + ")");
  }
  folder.fill(prepared);
}

ExitCode up(const UpArguments& arguments) {
  watch_signals();
  std::int64_t named = 0;
  const Experiment experiment = experiment_for(arguments, named);
  RunView view(experiment, arguments.json, arguments.quiet);
  // Before anything is made: a missing program is the likeliest mistake.
  program_beside_this("fl-aggregator");
  program_beside_this("fl-client");
  warn_about_memory(arguments.clients);
  if (named != static_cast<std::int64_t>(arguments.clients)) {
    view.progress().say("partition.clients is " + std::to_string(arguments.clients) + " here, as --clients says");
  }
  if (experiment.devices) view.progress().say("'devices' is left out: real processes take the time that they take");
  const std::filesystem::path output =
      arguments.output.empty() ? fresh_folder("runs", experiment.name + "-up") : std::filesystem::path(arguments.output);
  UpFolder folder(output, experiment, arguments.clients);
  json summary;
  try {
    if (folder.existed()) {
      view.progress().say("going on with " + output.string());
    } else {
      fill_folder(folder, experiment, arguments.file, view);
    }
    folder.find_port();
    view.progress().say(experiment.name + ": an aggregator and " + std::to_string(arguments.clients) + " clients, each a process, cohort " +
                        human_count(experiment.round.cohort) + ", " + human_count(experiment.rounds) + " rounds -> " + output.string());
    Federated federated(folder, view, arguments.timeout_s);
    summary = federated.run();
  } catch (const ConfigError&) {
    folder.discard();
    throw;
  }
  folder.publish_partition();
  RunRequest request;
  request.folder = folder.run_folder();
  request.json = arguments.json;
  request.quiet = arguments.quiet;
  return show_result(experiment, summary, request);
}

}  // namespace

void add_up(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("up", "Run a federation as real processes on this machine: an aggregator and clients over TLS");
  auto arguments = std::make_shared<UpArguments>();
  command->add_option("FILE", arguments->file, "Experiment in JSON")->required();
  command->add_option("--clients", arguments->clients, "Client processes; also sets partition.clients")->required()->check(CLI::Range(1, 10'000));
  add_set_option(*command, arguments->settings);
  command->add_option("--output", arguments->output, "Folder of the federation, new or one to go on with; default: runs/NAME-up")->type_name("DIR");
  command->add_flag("--json", arguments->json, "One JSON object a round on standard output, and a last one with the summary");
  command->add_flag("--quiet", arguments->quiet, "Print nothing but warnings and errors");
  command->add_option("--timeout", arguments->timeout_s, "Stop in order, as Ctrl-C does, when the run takes longer")->type_name("SECONDS")->check(CLI::PositiveNumber);
  command->callback([arguments, &action] { action = [arguments] { return up(*arguments); }; });
}

}  // namespace fl::cli
