#include "aggregator/store/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <unistd.h>

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/base/rng.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using test::TemporaryFolder;
using testing::HasSubstr;

CommittedRound round_number(std::uint32_t round) {
  CommittedRound committed;
  committed.round = round;
  committed.model_version = round;
  committed.model_sha256.assign(64, 'a');
  committed.model_sha256.back() = static_cast<char>('0' + round % 10);
  committed.server_steps = 10 * round;
  committed.virtual_seconds = 1.5 * round;
  return committed;
}

RoundReport report_of(std::uint32_t round) {
  RoundReport report;
  report.round = round;
  report.model_version = round;
  report.training_loss = 1.0 / (3 + round);
  report.cohort = {{7, Outcome::accepted}, {std::numeric_limits<ClientId>::max(), Outcome::late}};
  return report;
}

class JournalTest : public testing::Test {
 protected:
  std::filesystem::path path() const { return folder_ / "journal.db"; }
  std::unique_ptr<Store> create() const { return open_journal(path(), JournalMode::create); }
  std::unique_ptr<Store> reopen() const { return open_journal(path(), JournalMode::existing); }
  /// A journal with rounds 0 … last, all complete.
  void fill(std::uint32_t last) const {
    const auto store = create();
    for (std::uint32_t round = 0; round <= last; ++round) {
      store->commit_round(round_number(round), report_of(round));
      store->complete_round(report_of(round));
    }
  }
  /// Runs SQL behind the journal's back; the first column of the first row, or -1.
  std::int64_t sql(const std::string& text) const {
    sqlite3* handle = nullptr;
    FL_CHECK(sqlite3_open(path().c_str(), &handle) == SQLITE_OK, "cannot open");
    sqlite3_stmt* statement = nullptr;
    FL_CHECK(sqlite3_prepare_v2(handle, text.c_str(), -1, &statement, nullptr) == SQLITE_OK, sqlite3_errmsg(handle));
    const std::int64_t value = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : -1;
    sqlite3_finalize(statement);
    sqlite3_close(handle);
    return value;
  }
  std::string reopen_error() const {
    return error_of([&] { reopen(); });
  }

  TemporaryFolder folder_;
};

TEST_F(JournalTest, StartsEmpty) {
  const auto store = create();
  EXPECT_FALSE(store->last_round());
  EXPECT_FALSE(store->incomplete_report());
  EXPECT_TRUE(store->reports().empty());
  EXPECT_FALSE(store->meta("experiment"));
}

TEST_F(JournalTest, KeepsFactsAboutTheRun) {
  {
    const auto store = create();
    store->set_meta("experiment", "old");
    store->set_meta("experiment", std::string("a'b\0c", 5));
  }
  EXPECT_EQ(reopen()->meta("experiment"), std::string("a'b\0c", 5));
}

TEST_F(JournalTest, GivesBackTheNewestRoundAfterReopening) {
  CommittedRound second = round_number(1);
  second.state_sha256 = std::string(64, 'b');
  second.abandoned = true;
  second.virtual_seconds = 0.1;
  second.server_steps = std::numeric_limits<std::uint64_t>::max();
  {
    const auto store = create();
    store->commit_round(round_number(0), report_of(0));
    store->commit_round(second, report_of(1));
  }
  const auto last = reopen()->last_round();
  ASSERT_TRUE(last);
  EXPECT_EQ(last->round, 1U);
  EXPECT_EQ(last->model_version, 1U);
  EXPECT_EQ(last->model_sha256, second.model_sha256);
  EXPECT_EQ(last->state_sha256, second.state_sha256);
  EXPECT_EQ(last->server_steps, second.server_steps);
  EXPECT_EQ(last->virtual_seconds, 0.1);
  EXPECT_TRUE(last->abandoned);
}

TEST_F(JournalTest, ListsTheNewestRoundsNewestFirst) {
  fill(3);
  const auto rounds = reopen()->newest_rounds(2);
  ASSERT_EQ(rounds.size(), 2U);
  EXPECT_EQ(rounds[0].round, 3U);
  EXPECT_EQ(rounds[1].round, 2U);
  EXPECT_FALSE(rounds[0].state_sha256);
}

TEST_F(JournalTest, ShowsAReportOnlyWhenItIsComplete) {
  const auto store = create();
  store->commit_round(round_number(0), report_of(0));
  store->complete_round(report_of(0));
  store->commit_round(round_number(1), report_of(1));
  EXPECT_EQ(store->reports().size(), 1U);
  const auto waiting = store->incomplete_report();
  ASSERT_TRUE(waiting);
  EXPECT_EQ(to_json(*waiting), to_json(report_of(1)));

  RoundReport final_report = report_of(1);
  final_report.accuracy = 2.0 / 3.0;
  store->complete_round(final_report);
  EXPECT_FALSE(store->incomplete_report());
  const auto reports = store->reports();
  ASSERT_EQ(reports.size(), 2U);
  EXPECT_EQ(reports[0].round, 0U);
  EXPECT_EQ(to_json(reports[1]), to_json(final_report));
}

TEST_F(JournalTest, RecordsWhatBecameOfEachClient) {
  fill(1);
  EXPECT_EQ(sql("SELECT count(*) FROM participation"), 4);
  EXPECT_EQ(sql("SELECT outcome FROM participation WHERE round=1 AND client=7"), 0);
  EXPECT_EQ(sql("SELECT outcome FROM participation WHERE round=1 AND client=-1"), 2);  // 2^64 - 1 wrapped, late
}

TEST_F(JournalTest, RefusesRoundsOutOfOrderAndKeepsWhatItHas) {
  const auto store = create();
  EXPECT_THAT(error_of([&] { store->commit_round(round_number(1), report_of(1)); }), HasSubstr("one after the other"));
  store->commit_round(round_number(0), report_of(0));
  EXPECT_NE(error_of([&] { store->commit_round(round_number(0), report_of(0)); }), "");
  EXPECT_NE(error_of([&] { store->commit_round(round_number(1), report_of(2)); }), "");
  EXPECT_NE(error_of([&] { store->complete_round(report_of(1)); }), "");
  EXPECT_EQ(store->last_round()->round, 0U);
}

TEST_F(JournalTest, CommitsARoundWhollyOrNotAtAll) {
  const auto store = create();
  store->commit_round(round_number(0), report_of(0));
  RoundReport twice = report_of(1);
  twice.cohort = {{7, Outcome::accepted}, {7, Outcome::late}};  // breaks a key after the round's row is in
  EXPECT_NE(error_of([&] { store->commit_round(round_number(1), twice); }), "");
  EXPECT_EQ(store->last_round()->round, 0U);
  EXPECT_EQ(sql("SELECT count(*) FROM participation WHERE round=1"), 0);
  store->commit_round(round_number(1), report_of(1));  // and goes on
  EXPECT_EQ(store->last_round()->round, 1U);
}

TEST_F(JournalTest, IsDurableAndSafeForReaders) {
  fill(0);
  const auto store = reopen();
  store->commit_round(round_number(1), report_of(1));
  EXPECT_TRUE(std::filesystem::exists(path().string() + "-wal"));
  EXPECT_EQ(sql("SELECT max(round) FROM rounds"), 1) << "another connection sees the commit while ours is open";
}

TEST_F(JournalTest, RefusesToCreateOverAnother) {
  fill(0);
  EXPECT_THAT(error_of([&] { create(); }), HasSubstr("go on with 'fl resume'"));
  EXPECT_EQ(reopen()->last_round()->round, 0U);
}

TEST_F(JournalTest, RefusesWhatIsNoJournal) {
  EXPECT_THAT(reopen_error(), HasSubstr("no such file"));
  write_file_atomically(path(), std::string());
  EXPECT_THAT(reopen_error(), HasSubstr("not a journal of Tributary"));
  write_file_atomically(path(), std::string(5000, 'x'));
  EXPECT_THAT(reopen_error(), HasSubstr("is damaged"));
  EXPECT_THROW(reopen(), ConfigError);
}

TEST_F(JournalTest, NoticesDamageThatAResumeWouldNotTouch) {
  fill(0);
  // Some 60 KiB of participation, which nothing reads, and then a page of it overwritten.
  sql("INSERT INTO participation WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
      "SELECT 0, i, 0 FROM n");
  ASSERT_GT(std::filesystem::file_size(path()), 60000U);
  ASSERT_EQ(reopen_error(), "");
  std::fstream file(path(), std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(40960);
  file << std::string(4096, '\xff');
  file.close();
  EXPECT_THAT(reopen_error(), HasSubstr("is damaged"));
  EXPECT_THROW(reopen(), ConfigError);
}

TEST_F(JournalTest, RefusesANewerFormat) {
  fill(0);
  sql("PRAGMA user_version=2");
  EXPECT_THAT(reopen_error(), HasSubstr("has format 2, this program reads up to 1"));
  EXPECT_THROW(reopen(), ConfigError);
}

TEST_F(JournalTest, SaysWhichReportIsDamaged) {
  fill(1);
  for (const char* text : {"{", "{}", "[1e999]"}) {
    sql(std::string("UPDATE rounds SET report='") + text + "' WHERE round=1");
    const auto store = reopen();
    EXPECT_THAT(error_of([&] { store->reports(); }), HasSubstr("is damaged")) << text;
  }
}

TEST_F(JournalTest, ReportsAnUnusablePathAsIoError) {
  EXPECT_THROW(open_journal(folder_ / "absent" / "journal.db", JournalMode::create), IoError);
  EXPECT_THAT(error_of([&] { open_journal(folder_ / "absent" / "journal.db", JournalMode::create); }),
              HasSubstr((folder_ / "absent").string()));
}

TEST_F(JournalTest, NeverCrashesOnADamagedFile) {
  fill(12);
  const std::vector<std::byte> good = read_file(path(), 1U << 20U);
  Rng rng(3, Purpose::synthetic_data);
  int refused = 0;
  for (int i = 0; i < 300; ++i) {
    std::vector<std::byte> bytes = good;
    for (int damage = 0; damage < 8; ++damage) bytes[rng.below(bytes.size())] = static_cast<std::byte>(rng.below(256));
    if (rng.below(4) == 0) bytes.resize(rng.below(bytes.size()));
    std::ofstream(path(), std::ios::binary | std::ios::trunc)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    try {
      const auto store = reopen();
      store->newest_rounds(5);
      store->reports();
    } catch (const ConfigError&) {
      ++refused;
    } catch (const IoError&) {
      ++refused;
    }
    std::filesystem::remove(path().string() + "-wal");
    std::filesystem::remove(path().string() + "-shm");
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace fl
