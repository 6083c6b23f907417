#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>

#include "fl_core/config/json_reader.h"
#include "privacy/accounting/accountant.h"
#include "privacy/mechanism/promise.h"
#include "simulations/cli/privacy_commands.h"
#include "simulations/cli/terminal.h"

namespace fl::cli {
namespace {

constexpr double kMostNoise = 1e6;
constexpr std::int64_t kMostRounds = 10'000'000;
constexpr int kDigits = 5;

/// The command line of both commands; one of epsilon and noise_multiplier is given, the other looked for.
struct BudgetArguments {
  double epsilon = 0;
  double noise_multiplier = 0;
  double sampling = 1;
  std::int64_t rounds = 1;
  double delta = 0;
  std::string accountant = "pld";
  std::string adjacency = "add_or_remove_one";
  std::string unit = "record";
  bool json = false;

  void check() const {
    if (!(sampling > 0 && sampling <= 1)) bad_value("--sampling", sampling, "a number above 0 and at most 1");
    if (!(delta > 0 && delta < 1)) bad_value("--delta", delta, "a number between 0 and 1, for instance 1e-5");
    if (rounds < 1 || rounds > kMostRounds) bad_value("--rounds", rounds, "an integer from 1 to " + std::to_string(kMostRounds));
  }
  std::vector<PrivacyEvent> events(double noise) const { return {PrivacyEvent::gaussian(sampling, noise, static_cast<std::uint64_t>(rounds))}; }
};

void add_budget_options(CLI::App& command, BudgetArguments& arguments) {
  command.add_option("--sampling", arguments.sampling, "Chance of a record to be in a round (Poisson sampling); default: 1, which is always")->type_name("Q");
  command.add_option("--rounds", arguments.rounds, "Rounds, or steps, of the same kind")->type_name("T")->required();
  command.add_option("--delta", arguments.delta, "Chance that the promise fails; below 1 / number of records")->type_name("D")->required();
  command.add_option("--accountant", arguments.accountant, "pld (the tightest), rdp, zcdp or gaussian (both only without sampling); default: pld")->type_name("NAME");
  command.add_option("--adjacency", arguments.adjacency, "Which data sets are neighbours: add_or_remove_one (default) or replace_one")
      ->check(CLI::IsMember({"add_or_remove_one", "replace_one"}));
  command.add_option("--unit", arguments.unit, "What a record is, for the statement: record (default), client or example")->check(CLI::IsMember({"record", "client", "example"}));
  command.add_flag("--json", arguments.json, "One JSON object with all digits");
}

/// Runs `work`, and says `text` on standard error when that takes more than two seconds.
template <class Work>
auto say_when_slow(bool quiet, const std::string& text, Work work) {
  auto result = std::async(std::launch::async, work);
  if (result.wait_for(std::chrono::seconds(2)) == std::future_status::timeout) Progress(quiet).say(text);
  return result.get();
}

/// As Promise::statement(), and `rounds`.
nlohmann::json statement_of(const BudgetArguments& arguments, double noise, double epsilon) {
  return {{"epsilon", std::isfinite(epsilon) ? nlohmann::json(epsilon) : nlohmann::json(nullptr)},
          {"delta", arguments.delta},
          {"unit", arguments.unit},
          {"adjacency", arguments.adjacency},
          {"sampling", arguments.sampling < 1 ? "poisson" : "none"},
          {"sampling_rate", arguments.sampling},
          {"accountant", arguments.accountant},
          {"mechanism", "gaussian"},
          {"noise_multiplier", noise},
          {"rounds", arguments.rounds}};
}

void print(const nlohmann::json& statement) {
  nlohmann::json as_promised = statement;
  as_promised["private"] = true;  // what the noise will be made of is not known here
  const double epsilon = statement.at("epsilon").is_null() ? INFINITY : statement.at("epsilon").get<double>();
  std::printf("noise multiplier  %s\n", rounded_up(statement.at("noise_multiplier"), kDigits).c_str());
  std::printf("rounds            %s\n", human_count(statement.at("rounds").get<std::int64_t>()).c_str());
  std::printf("epsilon           %s\n", rounded_up(epsilon, kDigits).c_str());
  std::printf("statement         %s\n", privacy_sentence(as_promised).c_str());
}

ExitCode epsilon_of_noise(const BudgetArguments& arguments) {
  arguments.check();
  if (!(arguments.noise_multiplier >= 0 && arguments.noise_multiplier <= kMostNoise)) bad_value("--noise-multiplier", arguments.noise_multiplier, "a number from 0 to 1e6");
  const auto accountant = accountants().create({{"name", arguments.accountant}}, "--accountant");
  const double epsilon = say_when_slow(arguments.json, "accounting …", [&] {
    return accountant->epsilon(arguments.events(arguments.noise_multiplier), arguments.delta, adjacency_of(arguments.adjacency));
  });
  const nlohmann::json statement = statement_of(arguments, arguments.noise_multiplier, epsilon);
  if (arguments.json) {
    std::printf("%s\n", statement.dump().c_str());
  } else {
    print(statement);
  }
  return ExitCode::ok;
}

ExitCode noise_of_epsilon(const BudgetArguments& arguments) {
  arguments.check();
  if (!(arguments.epsilon > 0 && arguments.epsilon <= kMostNoise)) bad_value("--epsilon", arguments.epsilon, "a number above 0 and at most 1e6");
  const auto accountant = accountants().create({{"name", arguments.accountant}}, "--accountant");
  const Adjacency adjacency = adjacency_of(arguments.adjacency);
  const auto [noise, epsilon] = say_when_slow(arguments.json, "calibrating …", [&] {
    double z = calibrate(*accountant, [&](double candidate) { return arguments.events(candidate); }, arguments.epsilon, arguments.delta, adjacency);
    // What is shown is enough on its own: its epsilon belongs to the digits that are shown.
    if (!arguments.json) z = std::stod(rounded_up(z, kDigits));
    return std::pair(z, accountant->epsilon(arguments.events(z), arguments.delta, adjacency));
  });
  nlohmann::json statement = statement_of(arguments, noise, epsilon);
  statement["target_epsilon"] = arguments.epsilon;
  if (arguments.json) {
    std::printf("%s\n", statement.dump().c_str());
  } else {
    print(statement);
  }
  return ExitCode::ok;
}

}  // namespace

void add_privacy_epsilon(CLI::App& privacy, Action& action) {
  auto* command = privacy.add_subcommand("epsilon", "What rounds of Gaussian noise cost: epsilon for a noise multiplier");
  auto arguments = std::make_shared<BudgetArguments>();
  command->add_option("--noise-multiplier", arguments->noise_multiplier, "Standard deviation of the noise over the clip norm")->type_name("S")->required();
  add_budget_options(*command, *arguments);
  command->callback([arguments, &action] { action = [arguments] { return epsilon_of_noise(*arguments); }; });
}

void add_privacy_calibrate(CLI::App& privacy, Action& action) {
  auto* command = privacy.add_subcommand("calibrate", "How much Gaussian noise a promise needs: the noise multiplier for an epsilon, never too small");
  auto arguments = std::make_shared<BudgetArguments>();
  command->add_option("--epsilon", arguments->epsilon, "The promise for all rounds together")->type_name("E")->required();
  add_budget_options(*command, *arguments);
  command->callback([arguments, &action] { action = [arguments] { return noise_of_epsilon(*arguments); }; });
}

}  // namespace fl::cli
