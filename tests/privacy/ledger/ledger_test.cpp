#include "privacy/ledger/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fl {
namespace {

using testing::HasSubstr;

std::vector<LedgerEntry> ledger_of(std::uint32_t rounds) {
  std::vector<LedgerEntry> entries;
  for (std::uint32_t round = 1; round <= rounds; ++round) {
    entries.push_back(next_entry(entries, {{"round", round}, {"epsilon", 0.5 * round}}));
  }
  return entries;
}

std::string head_of(const std::vector<LedgerEntry>& entries, std::size_t number) {
  return head_text({number, entries.at(number - 1).hash});
}

TEST(Ledger, IsTrustedWhenHeadAndRoundsAgree) {
  const auto entries = ledger_of(4);
  EXPECT_EQ(ledger_fault(entries, head_of(entries, 4), 4), "");
  EXPECT_EQ(ledger_fault(entries, head_of(entries, 4), 3), "") << "charged, and not released yet";
  EXPECT_EQ(ledger_fault({}, std::nullopt, 0), "");
}

TEST(Ledger, IsOneEntryAheadOfItsHeadAfterACrashBetween) {
  const auto entries = ledger_of(3);
  EXPECT_EQ(ledger_fault(entries, head_of(entries, 2), 2), "");
  EXPECT_EQ(ledger_fault(ledger_of(1), std::nullopt, 0), "");
  EXPECT_THAT(ledger_fault(entries, head_of(entries, 1), 2), HasSubstr("older than the journal by 2"));
  EXPECT_THAT(ledger_fault(entries, std::nullopt, 2), HasSubstr("ledger.head is missing"));
}

TEST(Ledger, AnOlderCopyIsFoundOut) {
  const auto newest = ledger_of(5);
  EXPECT_THAT(ledger_fault(ledger_of(3), head_of(newest, 5), 3), HasSubstr("knows 5 charges, the journal holds 3"));
  EXPECT_THAT(ledger_fault({}, head_of(newest, 5), 0), HasSubstr("knows 5 charges, the journal holds 0"));
}

TEST(Ledger, AnyChangeBreaksTheChain) {
  const auto good = ledger_of(4);
  const std::string head = head_of(good, 4);
  for (std::size_t i = 0; i < good.size(); ++i) {
    auto changed = good;
    changed[i].charge["epsilon"] = 0.0;
    EXPECT_THAT(ledger_fault(changed, head, 4), HasSubstr("charge " + std::to_string(i + 1) + " was changed"));
    auto missing = good;
    missing.erase(missing.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_NE(ledger_fault(missing, head, 3), "");
  }
  // Rewritten from an entry on, with good hashes: the head still knows.
  auto rewritten = ledger_of(3);
  rewritten.push_back(next_entry(rewritten, {{"round", 4}, {"epsilon", 1.6}}));
  EXPECT_THAT(ledger_fault(rewritten, head, 4), HasSubstr("do not belong together"));
}

TEST(Ledger, EveryReleasedRoundWasCharged) {
  const auto entries = ledger_of(2);
  EXPECT_THAT(ledger_fault(entries, head_of(entries, 2), 3), HasSubstr("round 3 was released, but only round 2 was charged"));
}

TEST(Ledger, RoundsAndEpsilonNeverGoBack) {
  auto entries = ledger_of(2);
  auto again = entries;
  again.push_back(next_entry(again, {{"round", 2}, {"epsilon", 1.5}}));
  EXPECT_EQ(ledger_fault(again, head_of(again, 3), 2), "") << "devices were asked twice";
  auto skipped = entries;
  skipped.push_back(next_entry(skipped, {{"round", 4}, {"epsilon", 2.0}}));
  EXPECT_THAT(ledger_fault(skipped, head_of(skipped, 3), 2), HasSubstr("for round 4 after round 2"));
  auto cheaper = entries;
  cheaper.push_back(next_entry(cheaper, {{"round", 3}, {"epsilon", 0.9}}));
  EXPECT_THAT(ledger_fault(cheaper, head_of(cheaper, 3), 2), HasSubstr("less epsilon"));
  auto infinite = entries;
  infinite.push_back(next_entry(infinite, {{"round", 3}, {"epsilon", nullptr}}));
  EXPECT_EQ(ledger_fault(infinite, head_of(infinite, 3), 3), "") << "null is infinite";
}

TEST(Ledger, NoFileContentIsTakenForAHead) {
  const auto entries = ledger_of(2);
  for (const std::string& text : std::vector<std::string>{"", "x", "2", "2 ", "0 " + entries[0].hash + "\n", "99999999999999999999 a\n", "2 " + entries[0].hash + "\n", "2 " + entries[1].hash}) {
    EXPECT_NE(ledger_fault(entries, text, 2), "") << text;
  }
}

}  // namespace
}  // namespace fl
