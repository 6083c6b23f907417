#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "aggregator/store/journal.h"
#include "fl_core/config/json_reader.h"
#include "privacy/mechanism/promise.h"
#include "simulations/audit.h"
#include "simulations/cli/privacy_commands.h"
#include "simulations/cli/terminal.h"

namespace fl::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kDigits = 4;
/// Elsewhere than on a terminal, seconds between two lines of progress.
constexpr double kProgressSeconds = 5;

constexpr const char* kHow =
    "Each trial is a whole run through the real engine, sampler and mechanism with the run's noise, in which a canary, the worst client\n"
    "there can be, takes part or not; a lower bound on epsilon (95 % confidence) follows from how well the trials can be told apart. Nobody\n"
    "trains: the other clients answer zero and the server's learning rate is 1, so this audits the mechanism in its place, not the training.\n"
    "It takes trials x rounds x parameters: --set model='{\"name\": \"logistic\"}' and --set rounds=4 are quick and attack the same code.\n"
    "Exit code 6 when the bound is above the claim: then the promise is broken. A bound below it is no proof.";

struct AuditArguments {
  std::string source;
  std::vector<std::string> settings;
  std::size_t trials = 1000;
  std::size_t workers = 0;
  std::optional<std::uint64_t> seed;
  bool json = false;
};

/// What is audited, from an experiment's file or from the folder of a run with the noise that it began with.
struct Subject {
  std::string source;  ///< the experiment's file
  nlohmann::json experiment;
  std::optional<std::string> privacy_noise;
};

Subject read_subject(const AuditArguments& arguments) {
  Subject subject;
  std::error_code unseen;
  if (!fs::is_directory(arguments.source, unseen)) {
    subject.source = arguments.source;
    subject.experiment = read_json_file(arguments.source);
    for (const std::string& setting : arguments.settings) apply_setting(subject.experiment, setting);
    return subject;
  }
  const fs::path folder = run_folder(arguments.source);
  if (!fs::exists(folder / "journal.db", unseen) || !fs::exists(folder / "experiment.json", unseen)) {
    throw ConfigError(folder.string() + ": not a run folder (no journal.db or no experiment.json); expected one that 'fl simulate', 'fl up' or 'fl-aggregator' made, or an experiment's file");
  }
  if (!arguments.settings.empty()) throw ConfigError("--set " + arguments.settings.front() + ": a run folder is audited as it is; name an experiment's file to change keys");
  subject.source = (folder / "experiment.json").string();
  subject.experiment = read_json_file(folder / "experiment.json");
  subject.privacy_noise = open_journal(folder / "journal.db", JournalMode::read)->meta("privacy_noise");
  return subject;
}

/// The moving line of an audit: trials done, and the time that is left.
class TrialProgress {
 public:
  explicit TrialProgress(Progress& progress) : progress_(progress), start_(Clock::now()), shown_(start_) {}

  void show(std::size_t done, std::size_t all) {
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const bool lasting = std::chrono::duration<double>(now - shown_).count() >= kProgressSeconds;
    if (lasting) shown_ = now;
    const double left = seconds / static_cast<double>(done) * static_cast<double>(all - done);
    progress_.show(static_cast<double>(done), static_cast<double>(all),
                   "trial " + std::to_string(done) + "/" + std::to_string(all) + ", " + human_seconds(left) + " left", lasting);
  }

 private:
  Progress& progress_;
  Clock::time_point start_;
  Clock::time_point shown_;
};

std::string trials_text(const AuditResult& result) {
  const EpsilonBound& bound = result.bound;
  const std::string of = " of " + std::to_string(bound.evaluated);
  return std::to_string(result.trials) + " trials with the canary and as many without: seen falsely in " + std::to_string(bound.false_positives) + of + ", missed in " +
         std::to_string(bound.false_negatives) + of;
}

std::string verdict(const AuditResult& result) {
  if (!result.holds()) return "BROKEN: the mechanism gives away more than it claims";
  if (result.most < result.claimed) {
    return "not refuted, and with so many trials it could not be: they show at most epsilon " + rounded_down(result.most, kDigits) + "; give more --trials";
  }
  return "not refuted; so many trials show at most epsilon " + rounded_down(result.most, kDigits);
}

void print(const AuditResult& result) {
  std::printf("claim     %s after %s rounds\n", privacy_sentence(result.claim).c_str(), result.claim.at("rounds").dump().c_str());
  std::printf("attack    epsilon is at least %s (95 %% confidence)\n", rounded_down(result.bound.epsilon, kDigits).c_str());
  std::printf("trials    %s\n", trials_text(result).c_str());
  std::printf("verdict   %s\n", verdict(result).c_str());
}

nlohmann::json to_json(const AuditResult& result) {
  return {{"claim", result.claim},
          {"lower_bound", result.bound.epsilon},
          {"confidence", kAuditConfidence},
          {"holds", result.holds()},
          {"trials", result.trials},
          {"most_that_trials_show", result.most},
          {"evaluated", result.bound.evaluated},
          {"false_positives", result.bound.false_positives},
          {"false_negatives", result.bound.false_negatives},
          {"threshold", result.bound.threshold}};
}

AuditResult audit_subject(const AuditArguments& arguments) {
  const Subject subject = read_subject(arguments);
  Experiment experiment = parse_experiment(subject.experiment, subject.source);
  Progress progress(arguments.json);
  progress.say("loading " + experiment.data.at("name").get<std::string>() + " …");
  const Prepared prepared = prepare_from(std::move(experiment), subject.source);
  std::optional<TrialProgress> trials;
  AuditOptions options;
  options.trials = arguments.trials;
  options.workers = arguments.workers;
  options.seed = arguments.seed;
  options.privacy_noise = subject.privacy_noise;
  options.should_stop = stop_requested;
  options.on_claim = [&](const nlohmann::json& claim) {
    progress.say("auditing the claim: " + privacy_sentence(claim));
    trials.emplace(progress);  // time counts from here
  };
  options.on_trial = [&](std::size_t done, std::size_t all) { trials->show(done, all); };
  progress.say("accounting for privacy …");
  try {
    AuditResult result = audit(prepared, options);
    progress.finish();
    return result;
  } catch (const ConfigError& error) {
    throw ConfigError(subject.source + ": " + error.what());
  }
}

ExitCode audit_and_tell(const AuditArguments& arguments) {
  watch_signals();
  const AuditResult result = audit_subject(arguments);
  if (arguments.json) {
    std::printf("%s\n", to_json(result).dump().c_str());
  } else {
    print(result);
  }
  if (result.holds()) return ExitCode::ok;
  std::fprintf(stderr, "fl: privacy audit: epsilon is at least %s with 95 %% confidence, and %s is claimed: the promise is broken; do not train with this mechanism\n",
               rounded_down(result.bound.epsilon, kDigits).c_str(), rounded_up(result.claimed, kDigits).c_str());
  return ExitCode::out_of_band;
}

/// CLI11 takes -1 for 2^64 - 1.
std::string not_negative(const std::string& text) { return text.rfind('-', 0) == 0 ? "got " + text + ", expected an integer from 0" : ""; }

}  // namespace

void add_privacy_audit(CLI::App& privacy, Action& action) {
  auto* command = privacy.add_subcommand("audit", "Attack a promise of client-level privacy, and compare what the attack proves with what is claimed");
  command->footer(kHow);
  auto arguments = std::make_shared<AuditArguments>();
  command->add_option("SOURCE", arguments->source, "Experiment in JSON, or a run folder, whose noise is taken")->required();
  add_set_option(*command, arguments->settings);
  command->add_option("--trials", arguments->trials, "Trials with the canary, and as many without; default: 1000. More can show a larger epsilon")->check(CLI::Range(20, 1'000'000));
  add_workers_option(*command, arguments->workers);
  command->add_option("--seed", arguments->seed, "Makes the audit repeatable; default: the experiment's randomness, which may be the operating system's")
      ->type_name("S")
      ->check(CLI::Validator(not_negative, ""));
  command->add_flag("--json", arguments->json, "One JSON object");
  command->callback([arguments, &action] { action = [arguments] { return audit_and_tell(*arguments); }; });
}

}  // namespace fl::cli
