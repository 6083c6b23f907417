#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "aggregator/store/journal.h"
#include "simulations/cli/command.h"
#include "simulations/cli/terminal.h"

namespace fl::cli {
namespace {

/// Registry and participation of one client. A simulation has participation only.
struct ClientRow {
  ClientRecord record;
  Participation did;

  std::uint64_t rounds() const {
    std::uint64_t all = 0;
    for (const std::uint64_t count : did.outcomes) all += count;
    return all;
  }
  std::uint64_t counted() const { return did.outcomes[static_cast<std::size_t>(Outcome::accepted)]; }
};

std::map<ClientId, ClientRow> read_clients(const std::filesystem::path& folder) {
  const auto store = open_journal(folder / "journal.db", JournalMode::read);
  std::map<ClientId, ClientRow> rows;
  for (ClientRecord& record : store->clients()) rows[record.id].record = std::move(record);
  for (const auto& [id, did] : store->participation()) {
    rows[id].record.id = id;
    rows[id].did = did;
  }
  return rows;
}

nlohmann::json to_json(const ClientRow& row) {
  const auto seen = [](double time) { return time == 0 ? nlohmann::json(nullptr) : nlohmann::json(time); };
  nlohmann::json outcomes = nlohmann::json::object();
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    if (row.did.outcomes[i] != 0) outcomes[outcome_name(static_cast<Outcome>(i))] = row.did.outcomes[i];
  }
  const nlohmann::json profile = nlohmann::json::parse(row.record.profile, nullptr, false);
  return {{"id", row.record.id},
          {"identity", row.record.identity.empty() ? nlohmann::json(nullptr) : nlohmann::json(row.record.identity)},
          {"first_seen", seen(row.record.first_seen)},
          {"last_seen", seen(row.record.last_seen)},
          {"sessions", row.record.sessions},
          {"rounds", row.rounds()},
          {"counted", row.counted()},
          {"last_counted_round", row.did.last_counted_round},
          {"outcomes", std::move(outcomes)},
          {"profile", profile.is_discarded() ? nlohmann::json(nullptr) : profile}};
}

/// "2026-05-03 14:02" in UTC, so that servers and their logs agree; "-" for never.
std::string moment(double seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  std::array<char, 32> text{};
  if (seconds == 0 || ::gmtime_r(&time, &parts) == nullptr) return "-";
  return std::string(text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M", &parts));
}

/// "3 late, 1 not_finite".
std::string not_counted(const Participation& did) {
  std::string text;
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    if (i == static_cast<std::size_t>(Outcome::accepted) || did.outcomes[i] == 0) continue;
    text += (text.empty() ? "" : ", ") + std::to_string(did.outcomes[i]) + " " + outcome_name(static_cast<Outcome>(i));
  }
  return text;
}

void print_table(const std::map<ClientId, ClientRow>& rows) {
  std::vector<std::vector<std::string>> cells = {
      {"id", "identity", "first seen (UTC)", "last seen (UTC)", "sessions", "asked", "counted", "not counted"}};
  for (const auto& [id, row] : rows) {
    const ClientRecord& record = row.record;
    cells.push_back({std::to_string(id), record.identity.empty() ? "-" : record.identity, moment(record.first_seen), moment(record.last_seen),
                     std::to_string(record.sessions), std::to_string(row.rounds()), std::to_string(row.counted()), not_counted(row.did)});
  }
  std::printf("%s", rows.empty() ? "no client has been here yet\n" : table(cells).c_str());
}

}  // namespace

void add_clients(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("clients", "Who took part in a run: last seen, rounds that counted, rejections by reason");
  struct Arguments {
    std::string folder;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  command->add_option("DIR", arguments->folder, "Run folder, or the folder of 'fl up'; its aggregator may be running")->required();
  command->add_flag("--json", arguments->json, "One JSON object a client");
  command->callback([arguments, &action] {
    action = [arguments] {
      const std::map<ClientId, ClientRow> rows = read_clients(run_folder(arguments->folder));
      if (!arguments->json) {
        print_table(rows);
        return ExitCode::ok;
      }
      for (const auto& [id, row] : rows) {
        std::printf("%s\n", to_json(row).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
      }
      return ExitCode::ok;
    };
  });
}

}  // namespace fl::cli
