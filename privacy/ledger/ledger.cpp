#include "privacy/ledger/ledger.h"

#include <limits>
#include <span>

#include "fl_core/base/sha256.h"

namespace fl {
namespace {

constexpr const char* kStart = "tributary privacy ledger";

std::string hash_of(const std::string& before, std::uint64_t number, const nlohmann::json& charge) {
  const std::string text = before + "\n" + std::to_string(number) + "\n" + charge.dump();
  return sha256_hex(std::as_bytes(std::span(text)));
}

std::uint64_t round_of(const LedgerEntry& entry) {
  const auto round = entry.charge.find("round");
  const bool whole = round != entry.charge.end() && round->is_number_integer() && (round->is_number_unsigned() || round->get<std::int64_t>() >= 0);
  return whole ? round->get<std::uint64_t>() : 0;
}

/// Infinite where the entry says null.
double epsilon_of(const LedgerEntry& entry) {
  const auto epsilon = entry.charge.find("epsilon");
  return epsilon != entry.charge.end() && epsilon->is_number() ? epsilon->get<double>() : std::numeric_limits<double>::infinity();
}

std::string fault_of_head(const std::vector<LedgerEntry>& entries, const std::string& text) {
  std::uint64_t number = 0;
  std::size_t digits = 0;
  for (; digits < text.size() && digits < 18 && text[digits] >= '0' && text[digits] <= '9'; ++digits) {
    number = number * 10 + static_cast<std::uint64_t>(text[digits] - '0');
  }
  if (number > entries.size()) {
    return "ledger.head knows " + std::to_string(number) + " charges, the journal holds " + std::to_string(entries.size()) +
           ": the journal is an older copy, and what was spent since would be forgotten";
  }
  if (number == 0 || text != head_text({number, entries[number - 1].hash})) return "ledger.head and the journal's ledger do not belong together";
  if (entries.size() - number > 1) return "ledger.head is older than the journal by " + std::to_string(entries.size() - number) + " charges";
  return "";
}

}  // namespace

LedgerEntry next_entry(const std::vector<LedgerEntry>& entries, nlohmann::json charge) {
  LedgerEntry entry;
  entry.number = entries.size() + 1;
  entry.hash = hash_of(entries.empty() ? kStart : entries.back().hash, entry.number, charge);
  entry.charge = std::move(charge);
  return entry;
}

std::string head_text(const LedgerHead& head) { return std::to_string(head.number) + " " + head.hash + "\n"; }

std::string ledger_fault(const std::vector<LedgerEntry>& entries, const std::optional<std::string>& head, std::uint32_t released_rounds) {
  std::string before = kStart;
  std::uint64_t round = 0;
  double epsilon = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const LedgerEntry& entry = entries[i];
    const std::string name = "charge " + std::to_string(i + 1);
    if (entry.number != i + 1) return name + " is missing";
    if (entry.hash != hash_of(before, entry.number, entry.charge)) return name + " was changed: its hash does not follow from the one before";
    const bool follows = round_of(entry) == round + 1 || (round_of(entry) == round && round > 0);
    if (!follows) return name + " is for round " + std::to_string(round_of(entry)) + " after round " + std::to_string(round);
    if (epsilon_of(entry) < epsilon) return name + " says less epsilon than the one before";
    before = entry.hash;
    round = round_of(entry);
    epsilon = epsilon_of(entry);
  }
  if (round < released_rounds) {
    return "round " + std::to_string(released_rounds) + " was released, but only round " + std::to_string(round) + " was charged";
  }
  if (head) return fault_of_head(entries, *head);
  if (entries.size() > 1) return "ledger.head is missing";
  return "";
}

}  // namespace fl
