#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>  // an entry holds a JSON value
#include <optional>
#include <string>
#include <vector>

namespace fl {

/// One charge: written and on disk before the round that it pays for is asked for.
struct LedgerEntry {
  std::uint64_t number = 0;  ///< 1, 2, … without a gap
  nlohmann::json charge;     ///< round, repeats, and Promise::statement() with the ε spent once the round is released
  std::string hash;          ///< SHA-256 over the hash before, the number and the charge
};

/// The entry that follows `entries` with this charge.
LedgerEntry next_entry(const std::vector<LedgerEntry>& entries, nlohmann::json charge);

/// Where a ledger stood when its newest entry became durable; kept in a file of its own so that an older copy of the journal
/// is found out.
struct LedgerHead {
  std::uint64_t number = 0;
  std::string hash;
};
/// One line "NUMBER HASH".
std::string head_text(const LedgerHead& head);

/// What is wrong with a ledger, as the end of a sentence; empty when nothing is. Checks numbers, hashes, that rounds never go
/// back and no ε shrinks, that every one of `released_rounds` rounds was charged, and that `head` (the file's text) is part of it. A crash between
/// entry and head leaves the ledger one entry ahead: that is no fault.
std::string ledger_fault(const std::vector<LedgerEntry>& entries, const std::optional<std::string>& head, std::uint32_t released_rounds);

}  // namespace fl
