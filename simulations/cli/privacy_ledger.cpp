#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "aggregator/store/journal.h"
#include "fl_core/base/file.h"
#include "fl_core/config/json_reader.h"
#include "privacy/ledger/ledger.h"
#include "privacy/mechanism/promise.h"
#include "simulations/cli/privacy_commands.h"
#include "simulations/cli/terminal.h"

namespace fl::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kDigits = 5;
constexpr std::size_t kHashPrefix = 12;
constexpr std::uint64_t kHeadBytes = 1024;
/// A run would have to charge a round during each of that many reads.
constexpr int kAttempts = 100;

/// A run's ledger at one moment.
struct LedgerView {
  std::vector<LedgerEntry> entries;
  std::optional<std::string> head;  ///< of ledger.head
  std::uint32_t released = 0;       ///< rounds
};

std::optional<std::string> read_head(const fs::path& folder) {
  std::error_code unseen;
  const fs::path path = folder / "ledger.head";
  if (!fs::exists(path, unseen)) return std::nullopt;
  return read_text_file(path, kHeadBytes);
}

/// Reads beside a run that goes on: a round is charged before it is released and the head follows the charge, so the released rounds are
/// read first, and all is read again when the head has moved.
LedgerView read_ledger(const fs::path& folder) {
  const auto store = open_journal(folder / "journal.db", JournalMode::read);
  LedgerView view;
  for (int i = 0; i < kAttempts; ++i) {
    view.head = read_head(folder);
    const auto last = store->last_round();
    view.released = last ? last->round : 0;
    view.entries = store->ledger();
    if (read_head(folder) == view.head) break;
  }
  return view;
}

bool makes_a_promise(const fs::path& folder) {
  const nlohmann::json experiment = read_json_file(folder / "experiment.json");
  return experiment.is_object() && experiment.contains("privacy") && !experiment.at("privacy").is_null();
}

void print_json(const LedgerView& view) {
  for (const LedgerEntry& entry : view.entries) {
    nlohmann::json line = entry.charge;
    line["number"] = entry.number;
    line["hash"] = entry.hash;
    std::printf("%s\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  }
  const nlohmann::json last = {{"verified", true}, {"charges", view.entries.size()}, {"released_rounds", view.released}};
  std::printf("%s\n", last.dump().c_str());
}

void print_text(const LedgerView& view) {
  if (view.entries.empty()) {
    std::printf("no round has been charged yet\n");
    return;
  }
  std::vector<std::vector<std::string>> rows = {{"charge", "round", "epsilon after it", "hash"}};
  for (const LedgerEntry& entry : view.entries) {
    const nlohmann::json& epsilon = entry.charge.at("epsilon");
    rows.push_back({std::to_string(entry.number), entry.charge.at("round").dump(), rounded_up(epsilon.is_null() ? INFINITY : epsilon.get<double>(), kDigits),
                    entry.hash.substr(0, kHashPrefix)});
  }
  std::printf("%s", table(rows).c_str());
  std::printf("spent     %s\n", privacy_sentence(view.entries.back().charge).c_str());
  std::printf("verified  %s charges for %s released rounds: no gap, every hash follows from the one before, ledger.head belongs to them\n",
              std::to_string(view.entries.size()).c_str(), std::to_string(view.released).c_str());
}

ExitCode show_ledger(const fs::path& folder, bool json) {
  std::error_code unseen;
  if (!fs::exists(folder / "journal.db", unseen) || !fs::exists(folder / "experiment.json", unseen)) {
    throw ConfigError(folder.string() + ": not a run folder (no journal.db or no experiment.json); expected one that 'fl simulate', 'fl up' or 'fl-aggregator' made");
  }
  const LedgerView view = read_ledger(folder);
  if (view.entries.empty() && !view.head && !makes_a_promise(folder)) {
    throw ConfigError(folder.string() + ": this run makes no promise of differential privacy (its experiment.json has no privacy section), so it has no ledger");
  }
  const std::string fault = ledger_fault(view.entries, view.head, view.released);
  if (!fault.empty()) {
    throw ConfigError("the privacy ledger of " + folder.string() + " cannot be trusted: " + fault + "; restore the newest copy of the whole folder, or start a new run");
  }
  if (json) {
    print_json(view);
  } else {
    print_text(view);
  }
  return ExitCode::ok;
}

}  // namespace

void add_privacy_ledger(CLI::App& privacy, Action& action) {
  auto* command = privacy.add_subcommand("ledger", "What a run has spent, charge by charge, checked for tampering");
  struct Arguments {
    std::string folder;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  command->add_option("DIR", arguments->folder, "Run folder, or the folder of 'fl up'; the run may be going on")->required();
  command->add_flag("--json", arguments->json, "One JSON object a charge, and a last one with the result of the check");
  command->callback([arguments, &action] { action = [arguments] { return show_ledger(run_folder(arguments->folder), arguments->json); }; });
}

}  // namespace fl::cli
