// A run with a promise, cut off after any step of a charge or a commit: what was spent is never less than what was released.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "aggregator/engine/checkpoint.h"
#include "fl_core/base/error.h"
#include "fl_core/wire/tensors.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

namespace fs = std::filesystem;

struct Crashed {};

class LedgerCrash : public testing::Test {
 protected:
  fs::path path() const { return temporary_ / "run"; }

  static void run_rounds(RunFolder& folder, std::uint32_t rounds) {
    const auto last = folder.store().last_round();
    for (std::uint32_t round = last ? last->round + 1 : 0; round <= rounds; ++round) {
      const bool charged = !folder.ledger().empty() && folder.ledger().back().charge.at("round") == round;
      if (round > 0 && !charged) folder.charge({{"round", round}, {"epsilon", 0.25 * round}});
      Layout layout({{"w", {2}, SlotKind::weight}});
      const std::vector<float> weights = {static_cast<float>(round), 1};
      RoundReport report;
      report.round = round;
      CommittedRound committed;
      committed.round = round;
      committed.model_version = round;
      folder.commit(committed, report, write_safetensors(layout, weights).span(), {});
      folder.complete(report);
    }
  }

  test::TemporaryFolder temporary_;
};

TEST_F(LedgerCrash, NothingIsReleasedThatWasNotCharged) {
  int cuts = 0;
  for (int at = 1;; ++at) {
    fs::remove_all(path());
    bool crashed = false;
    {
      RunFolder folder(path(), RunFolderMode::create, "{}");
      int steps = 0;
      folder.watch_steps([&](const std::string&) {
        if (++steps == at) throw Crashed{};
      });
      try {
        run_rounds(folder, 3);
      } catch (const Crashed&) {
        crashed = true;
      }
    }
    if (!crashed) break;
    ++cuts;
    SCOPED_TRACE("cut after step " + std::to_string(at));
    RunFolder folder(path(), RunFolderMode::resume);  // refuses a ledger that it cannot trust
    const auto last = folder.store().last_round();
    const std::uint32_t released = last ? last->round : 0;
    const std::uint32_t charged = folder.ledger().empty() ? 0 : folder.ledger().back().charge.at("round").get<std::uint32_t>();
    EXPECT_GE(charged, released);
    EXPECT_LE(charged, released + 1);
    run_rounds(folder, 3);
    EXPECT_EQ(folder.ledger().size(), 3U) << "a charge that was not used pays for the round's second attempt";
  }
  EXPECT_GE(cuts, 3 * 8);
}

TEST_F(LedgerCrash, AnOlderJournalIsFoundOut) {
  {
    RunFolder folder(path(), RunFolderMode::create, "{}");
    run_rounds(folder, 2);
  }
  fs::copy(path(), temporary_ / "older", fs::copy_options::recursive);
  {
    RunFolder folder(path(), RunFolderMode::resume);
    run_rounds(folder, 4);
  }
  EXPECT_EQ(test::error_of([&] { RunFolder folder(path(), RunFolderMode::resume); }), "") << "the positive control";
  for (const char* name : {"journal.db", "journal.db-wal", "journal.db-shm"}) {
    fs::remove(path() / name);
    if (fs::exists(temporary_ / "older" / name)) fs::copy(temporary_ / "older" / name, path() / name);
  }
  EXPECT_THAT(test::error_of([&] { RunFolder folder(path(), RunFolderMode::resume); }), testing::HasSubstr("the journal is an older copy"));
}

TEST_F(LedgerCrash, AMissingHeadIsFoundOut) {
  {
    RunFolder folder(path(), RunFolderMode::create, "{}");
    run_rounds(folder, 2);
  }
  fs::remove(path() / "ledger.head");
  EXPECT_THAT(test::error_of([&] { RunFolder folder(path(), RunFolderMode::resume); }), testing::HasSubstr("ledger.head is missing"));
}

}  // namespace
}  // namespace fl
