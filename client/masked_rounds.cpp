#include "client/masked_rounds.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/base/hex.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

using nlohmann::json;

constexpr std::size_t kRunDigits = 32;

/// Where `run` stands in `entries`; the end for none.
template <class Entries>
auto place_of(Entries& entries, const std::string& run) {
  return std::find_if(entries.begin(), entries.end(), [&](const auto& one) { return one.run == run; });
}

[[noreturn]] void damaged(const std::string& where, const json& value, const std::string& expected) {
  bad_value(where, value, expected + "; without it this device does not know which rounds it has masked: restore the file, or leave the federation");
}

}  // namespace

MaskedRounds::MaskedRounds(std::filesystem::path file) : file_(std::move(file)) {
  if (file_.empty()) return;
  std::error_code error;
  const bool there = std::filesystem::exists(file_, error);
  if (error) throw IoError("cannot look for " + file_.string() + ": " + error.message() + "; 'state' must be a folder that the client may read");
  if (!there) return;
  const json document = read_json_file(file_);
  const std::string name = file_.string();
  if (!document.is_array() || document.size() > kRuns) damaged(name, document, "a list of at most " + std::to_string(kRuns) + " runs");
  for (std::size_t i = 0; i < document.size(); ++i) {
    const json& one = document[i];
    const std::string where = name + ": " + std::to_string(i);
    const json run = one.is_object() ? one.value("run", json()) : json();
    const json round = one.is_object() ? one.value("round", json()) : json();
    const bool is_run = run.is_string() && is_hex(run.get_ref<const std::string&>(), kRunDigits);
    const bool is_round = round.is_number_unsigned() && round.get<std::uint64_t>() <= UINT32_MAX;
    if (!is_run || !is_round || one.size() != 2) damaged(where, one, R"({"run": 32 hex digits, "round": a number})");
    if (place_of(entries_, run.get<std::string>()) != entries_.end()) damaged(where + ".run", run, "each run once");
    entries_.push_back({run.get<std::string>(), round.get<std::uint32_t>()});
  }
}

std::uint32_t MaskedRounds::newest(const std::string& run) const {
  const auto entry = place_of(entries_, run);
  return entry == entries_.end() ? 0 : entry->round;
}

void MaskedRounds::note(const std::string& run, std::uint32_t round) {
  FL_CHECK(is_hex(run, kRunDigits), "a run without its identity");
  std::vector<Entry> next = entries_;
  Entry entry{run, round};
  if (const auto known = place_of(next, run); known != next.end()) {
    if (known->round >= round) return;
    next.erase(known);
  }
  if (next.size() >= kRuns) next.erase(next.begin());
  next.push_back(std::move(entry));
  if (!file_.empty()) save(next);
  entries_ = std::move(next);
}

void MaskedRounds::save(const std::vector<Entry>& entries) const {
  json document = json::array();
  for (const Entry& entry : entries) document.push_back({{"run", entry.run}, {"round", entry.round}});
  write_file_atomically(file_, document.dump() + "\n");
}

}  // namespace fl
