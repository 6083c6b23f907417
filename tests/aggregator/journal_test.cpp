#include "aggregator/store/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

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

ClientRecord client_number(ClientId id, std::uint64_t sessions = 1) {
  ClientRecord record;
  record.id = id;
  record.identity = "client-" + std::to_string(id);
  record.first_seen = 1.7e9 + 0.25;
  record.last_seen = record.first_seen + static_cast<double>(sessions);
  record.sessions = sessions;
  record.profile = R"({"examples":)" + std::to_string(sessions) + "}";
  return record;
}

std::vector<std::string> lines_of(const std::vector<ClientRecord>& records) {
  std::vector<std::string> lines;
  for (const ClientRecord& one : records) {
    lines.push_back(std::to_string(one.id) + " " + one.identity + " " + std::to_string(one.first_seen) + " " +
                    std::to_string(one.last_seen) + " " + std::to_string(one.sessions) + " " + one.profile);
  }
  return lines;
}

/// What Tributary 0.1's first journals looked like (format 1): rounds 0 to 2 are complete, round 3 waits for its evaluation.
std::string format_1() {
  std::string sql = R"(
    CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE rounds(round INTEGER PRIMARY KEY, model_version INTEGER NOT NULL, model_sha256 TEXT NOT NULL, state_sha256 TEXT,
      server_steps INTEGER NOT NULL, virtual_seconds REAL NOT NULL, abandoned INTEGER NOT NULL, complete INTEGER NOT NULL,
      report TEXT NOT NULL);
    CREATE TABLE participation(round INTEGER NOT NULL REFERENCES rounds(round), client INTEGER NOT NULL, outcome INTEGER NOT NULL,
      PRIMARY KEY(round, client)) WITHOUT ROWID;
    PRAGMA application_id=0x54726962;
    PRAGMA user_version=1;
    PRAGMA journal_mode=WAL;
    INSERT INTO meta VALUES('experiment', 'abc');)";
  for (std::uint32_t round = 0; round <= 3; ++round) {
    const std::string number = std::to_string(round);
    sql += "INSERT INTO rounds VALUES(" + number + "," + number + ",'" + round_number(round).model_sha256 + "',NULL," +
           std::to_string(10 * round) + "," + std::to_string(1.5 * round) + ",0," + (round < 3 ? "1" : "0") + ",'" +
           to_json(report_of(round)).dump() + "');";
    sql += "INSERT INTO participation VALUES(" + number + ",7,0),(" + number + ",-1,2);";
  }
  return sql;
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
  /// Several statements of SQL behind the journal's back.
  void script(const std::string& text) const {
    sqlite3* handle = nullptr;
    FL_CHECK(sqlite3_open(path().c_str(), &handle) == SQLITE_OK, "cannot open");
    FL_CHECK(sqlite3_exec(handle, text.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK, sqlite3_errmsg(handle));
    sqlite3_close(handle);
  }
  std::unique_ptr<Store> read() const { return open_journal(path(), JournalMode::read); }

  /// Calls check with a journal that stands in another folder as a crash would have left it: the log of the writes that this
  /// journal has open is cut after every 500 bytes. Returns how many there were.
  int after_every_crash(const std::function<void(const std::filesystem::path&)>& check) const {
    const std::vector<std::byte> database = read_file(path(), 1U << 24U);
    const std::vector<std::byte> log = read_file(path().string() + "-wal", 1U << 24U);
    int crashes = 0;
    for (std::size_t size = 0;; size = std::min(size + 500, log.size())) {
      const TemporaryFolder folder;
      write_file_atomically(folder / "journal.db", database);
      write_file_atomically(folder / "journal.db-wal", std::span(log).first(size));
      check(folder / "journal.db");
      ++crashes;
      if (size == log.size()) return crashes;
    }
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
  sql("PRAGMA user_version=4");
  EXPECT_THAT(reopen_error(), HasSubstr("has format 4, this program reads up to 3; use the newer Tributary"));
  EXPECT_THROW(reopen(), ConfigError);
  EXPECT_THROW(read(), ConfigError);
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

TEST_F(JournalTest, GivesTheHashOfEachRoundInOrder) {
  fill(11);
  const std::vector<std::string> hashes = reopen()->model_hashes();
  ASSERT_EQ(hashes.size(), 12U);
  for (std::uint32_t round = 0; round < 12; ++round) EXPECT_EQ(hashes[round], round_number(round).model_sha256) << round;
}

TEST_F(JournalTest, ConvertsAFileOfFormatOneAndGoesOn) {
  script(format_1());
  {
    const auto store = reopen();
    EXPECT_EQ(sql("PRAGMA user_version"), 3);
    EXPECT_EQ(store->meta("experiment"), "abc");
    EXPECT_EQ(store->reports().size(), 3U);
    ASSERT_TRUE(store->incomplete_report());
    EXPECT_EQ(to_json(*store->incomplete_report()), to_json(report_of(3)));
    EXPECT_EQ(store->last_round()->server_steps, 30U);
    EXPECT_TRUE(store->clients().empty());
    store->complete_round(report_of(3));
    store->commit_round(round_number(4), report_of(4));
    store->save_clients({client_number(7)});
  }
  const auto store = reopen();
  EXPECT_EQ(store->last_round()->round, 4U);
  EXPECT_EQ(lines_of(store->clients()), lines_of({client_number(7)}));
  EXPECT_EQ(store->participation().at(7).outcomes[0], 5U);
}

TEST_F(JournalTest, SurvivesACrashAnywhereInTheConversion) {
  script(format_1());
  const auto store = reopen();
  std::set<std::size_t> seen;
  after_every_crash([&](const std::filesystem::path& path) {
    seen.insert(open_journal(path, JournalMode::read)->reports().size());  // of either format
    const auto again = open_journal(path, JournalMode::existing);
    EXPECT_TRUE(again->clients().empty());
    EXPECT_EQ(again->participation().size(), 2U);
    again->save_clients({client_number(1)});
  });
  EXPECT_EQ(seen, std::set<std::size_t>{3});
}

TEST_F(JournalTest, ReadsWhileAnotherWrites) {
  const auto writer = create();
  writer->commit_round(round_number(0), report_of(0));
  const auto reader = read();
  EXPECT_EQ(reader->model_hashes().size(), 1U);
  writer->save_clients({client_number(3)});
  EXPECT_EQ(lines_of(reader->clients()), lines_of({client_number(3)}));
  // Also inside a transaction of the writer, of which it sees nothing.
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(path().c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "BEGIN IMMEDIATE; DELETE FROM clients", nullptr, nullptr, nullptr), SQLITE_OK);
  EXPECT_EQ(reader->clients().size(), 1U);
  EXPECT_EQ(read()->clients().size(), 1U);
  sqlite3_close(other);
}

TEST_F(JournalTest, ChangesNothingWhenItOnlyReads) {
  script(format_1());
  const auto reader = read();
  EXPECT_TRUE(reader->clients().empty());
  EXPECT_EQ(reader->participation().at(7).last_counted_round, 3U);
  EXPECT_EQ(sql("PRAGMA user_version"), 1);
  EXPECT_NE(error_of([&] { reader->set_meta("a", "b"); }), "");
  EXPECT_NE(error_of([&] { reader->save_clients({client_number(1)}); }), "");
  EXPECT_FALSE(reopen()->meta("a"));
  EXPECT_THAT(error_of([&] { open_journal(folder_ / "absent.db", JournalMode::read); }), HasSubstr("no such file"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "absent.db"));
}

TEST_F(JournalTest, KeepsTheNewestRecordOfEachClient) {
  constexpr ClientId kLast = std::numeric_limits<ClientId>::max();
  ClientRecord never;  // listed in server.json, and never here
  never.id = 2;
  never.identity = "a'b \u00e4";
  {
    const auto store = create();
    store->save_clients({client_number(kLast), client_number(5), never});
    store->save_clients({client_number(5, 9), client_number(0)});
    store->save_clients({});
  }
  EXPECT_EQ(lines_of(reopen()->clients()),
            lines_of({client_number(0), never, client_number(5, 9), client_number(kLast)}));
}

TEST_F(JournalTest, RefusesToGiveAClientAnotherIdentity) {
  const auto store = create();
  store->save_clients({client_number(1), client_number(2)});
  ClientRecord other = client_number(2);
  other.identity = "somebody";
  EXPECT_THAT(error_of([&] { store->save_clients({client_number(1, 5), other}); }), HasSubstr("another identity"));
  other = client_number(3);
  other.identity = "client-2";  // two numbers for one identity
  EXPECT_NE(error_of([&] { store->save_clients({client_number(1, 5), other}); }), "");
  EXPECT_EQ(lines_of(store->clients()), lines_of({client_number(1), client_number(2)})) << "all of a call or nothing";
  store->save_clients({client_number(3)});
  EXPECT_EQ(store->clients().size(), 3U);
}

TEST_F(JournalTest, SavesClientsWhollyOrNotAtAllWhateverACrashLeaves) {
  // 60 records of some 200 bytes fill several pages, so there are crashes between the pages of one call.
  std::vector<ClientRecord> before;
  std::vector<ClientRecord> after;
  for (ClientId id = 0; id < 60; ++id) {
    before.push_back(client_number(id));
    after.push_back(client_number(id, 2));
    for (auto* record : {&before.back(), &after.back()}) record->profile += std::string(200, ' ');
  }
  create()->save_clients(before);
  const auto store = reopen();  // with an empty log
  store->save_clients(after);
  int old = 0;
  int renewed = 0;
  const int crashes = after_every_crash([&](const std::filesystem::path& path) {
    const auto lines = lines_of(open_journal(path, JournalMode::existing)->clients());
    if (lines == lines_of(before)) ++old;
    if (lines == lines_of(after)) ++renewed;
  });
  EXPECT_EQ(old + renewed, crashes);
  EXPECT_GT(old, 20);
  EXPECT_GE(renewed, 1);
}

TEST_F(JournalTest, CountsWhatEachClientDid) {
  // Against a count beside it, over random cohorts with random outcomes.
  Rng rng(11, Purpose::synthetic_data);
  std::map<ClientId, Participation> expected;
  {
    const auto store = create();
    for (std::uint32_t round = 0; round < 40; ++round) {
      RoundReport report = report_of(round);
      report.cohort.clear();
      for (ClientId id = 0; id < 30; ++id) {
        if (round == 0 || rng.below(3) != 0) continue;
        const ClientId client = id < 28 ? id : std::numeric_limits<ClientId>::max() - id;
        const auto outcome = static_cast<Outcome>(rng.below(2) == 0 ? 0 : rng.below(kOutcomes));
        report.cohort.push_back({client, outcome});
        ++expected[client].outcomes.at(static_cast<std::size_t>(outcome));
        if (outcome == Outcome::accepted) expected[client].last_counted_round = round;
      }
      store->commit_round(round_number(round), report);
    }
  }
  const std::map<ClientId, Participation> counted = reopen()->participation();
  ASSERT_EQ(counted.size(), expected.size());
  for (const auto& [client, did] : expected) {
    EXPECT_EQ(counted.at(client).outcomes, did.outcomes) << client;
    EXPECT_EQ(counted.at(client).last_counted_round, did.last_counted_round) << client;
  }
}

TEST_F(JournalTest, ReportsAnOutcomeThatHasNoName) {
  fill(0);
  sql("UPDATE participation SET outcome=" + std::to_string(kOutcomes));
  EXPECT_THAT(error_of([&] { reopen()->participation(); }), HasSubstr("is damaged: round 0 has an outcome without a name"));
}

TEST_F(JournalTest, TellsHowToGoOnAfterAFullDisk) {
  const auto store = create();
  store->commit_round(round_number(0), report_of(0));
  std::vector<ClientRecord> many;
  for (ClientId id = 0; id < 2000; ++id) many.push_back(client_number(id));
  // A quota of the process stands for the disk: SQLite gets EFBIG, which it reports as an I/O error.
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  rlimit tight = limit;
  tight.rlim_cur = 100000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const std::string error = error_of([&] { store->save_clients(many); });
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, ignored);
  EXPECT_THAT(error, HasSubstr("then go on with 'fl resume' or start the aggregator again"));
  EXPECT_TRUE(store->clients().empty());
  store->save_clients(many);
  EXPECT_EQ(store->clients().size(), 2000U);
}

}  // namespace
}  // namespace fl
