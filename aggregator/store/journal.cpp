#include "aggregator/store/journal.h"

#include <sqlite3.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "aggregator/store/database.h"
#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

using store::Database;
using store::Statement;
using store::Transaction;

/// Marks the file as ours (SQLite's application_id): "Trib".
constexpr int kApplicationId = 0x54726962;
constexpr int kSchemaVersion = 3;
constexpr int kBusyTimeoutMs = 5000;

constexpr const char* kSchema = R"(
  CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE rounds(
    round INTEGER PRIMARY KEY,
    model_version INTEGER NOT NULL,
    model_sha256 TEXT NOT NULL,
    state_sha256 TEXT,
    server_steps INTEGER NOT NULL,
    virtual_seconds REAL NOT NULL,
    abandoned INTEGER NOT NULL,
    complete INTEGER NOT NULL,
    report TEXT NOT NULL);
  CREATE TABLE participation(
    round INTEGER NOT NULL REFERENCES rounds(round),
    client INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    PRIMARY KEY(round, client)) WITHOUT ROWID;
)";

/// The registry, since version 2.
constexpr const char* kClientsTable = R"(clients(
    id INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL,
    sessions INTEGER NOT NULL,
    profile TEXT NOT NULL))";

/// The privacy ledger, since version 3.
constexpr const char* kLedgerTable = "ledger(number INTEGER PRIMARY KEY, charge TEXT NOT NULL, hash TEXT NOT NULL)";
constexpr const char* kPrivacyState = "privacy_state";

/// The tables that versions after the first brought, with the version that they came with.
struct LaterTable {
  std::int64_t version;
  const char* definition;
};
constexpr LaterTable kLaterTables[] = {{2, kClientsTable}, {3, kLedgerTable}};

void create_schema(Database& database) {
  Transaction transaction(database);
  database.execute(kSchema, "create");
  for (const LaterTable& table : kLaterTables) database.execute(("CREATE TABLE " + std::string(table.definition)).c_str(), "create");
  const std::string marks = "PRAGMA application_id=" + std::to_string(kApplicationId) +
                            "; PRAGMA user_version=" + std::to_string(kSchemaVersion);
  database.execute(marks.c_str(), "create");
  transaction.commit();
}

/// Returns the version of the file's schema.
std::int64_t check_schema(Database& database) {
  const std::int64_t application = database.integer("PRAGMA application_id");
  const std::int64_t version = database.integer("PRAGMA user_version");
  if (application == kApplicationId && version > kSchemaVersion) {
    throw ConfigError("the journal " + database.path() + " has format " + std::to_string(version) +
                      ", this program reads up to " + std::to_string(kSchemaVersion) + "; use the newer Tributary that wrote it");
  }
  if (application != kApplicationId || version < 1) {
    throw ConfigError(database.path() + " is not a journal of Tributary, or its run stopped before it began; start a new run");
  }
  Statement check(database, "PRAGMA quick_check(1)");
  const std::string verdict = check.step() ? check.text(0) : "no answer";
  if (verdict != "ok") database.damaged(verdict);
  return version;
}

/// Brings an older file to this version. Another program may be doing the same.
void migrate(Database& database) {
  Transaction transaction(database);
  const std::int64_t version = database.integer("PRAGMA user_version");
  for (const LaterTable& table : kLaterTables) {
    if (version < table.version) database.execute(("CREATE TABLE " + std::string(table.definition)).c_str(), "convert");
  }
  database.execute(("PRAGMA user_version=" + std::to_string(kSchemaVersion)).c_str(), "convert");
  transaction.commit();
}

void prepare_reading(Database& database, std::int64_t version) {
  // Tables that are empty, in memory only, spare the readers a case of their own.
  if (version < kSchemaVersion) database.execute("PRAGMA temp_store=MEMORY", "read");
  for (const LaterTable& table : kLaterTables) {
    if (version < table.version) database.execute(("CREATE TEMP TABLE " + std::string(table.definition)).c_str(), "read");
  }
  database.execute("PRAGMA query_only=ON", "read");
}

/// Opens the file and brings it to the state that Journal's statements need.
std::unique_ptr<Database> open_database(const std::filesystem::path& path, JournalMode mode) {
  const bool must_exist = mode == JournalMode::existing || mode == JournalMode::read;
  std::error_code unseen;
  if (must_exist && !std::filesystem::exists(path, unseen) && !unseen) {
    throw ConfigError(path.string() + ": no such file; expected the journal of a run");
  }
  // A reader opens it for writing too where it may: then SQLite tidies up the files beside it when the last program closes it.
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_EXRESCODE | (must_exist ? 0 : SQLITE_OPEN_CREATE);
  auto database = std::make_unique<Database>(path, flags);
  sqlite3_busy_timeout(database->handle(), kBusyTimeoutMs);
  const bool empty = !must_exist && database->integer("SELECT count(*) FROM sqlite_schema") == 0;
  if (mode == JournalMode::create && !empty) {
    throw ConfigError(path.string() + " exists; go on with 'fl resume' or choose another --output");
  }
  const std::int64_t version = empty ? kSchemaVersion : check_schema(*database);
  if (mode == JournalMode::read) {
    prepare_reading(*database, version);
    return database;
  }
  // Where the file system cannot share memory SQLite keeps its rollback journal, which is as safe.
  // What is replaced (states of privacy mechanisms) is overwritten.
  database->execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA secure_delete=ON", "open");
  if (empty) create_schema(*database);
  if (version < kSchemaVersion) migrate(*database);
  return database;
}

constexpr const char* kSelectRounds =
    "SELECT round, model_version, model_sha256, state_sha256, server_steps, virtual_seconds, abandoned FROM rounds "
    "ORDER BY round DESC LIMIT ?";
// Ids above 2^63 are stored as negative numbers and come last.
constexpr const char* kSelectClients =
    "SELECT id, identity, first_seen, last_seen, sessions, profile FROM clients ORDER BY id<0, id";
constexpr const char* kUpsertClient =
    "INSERT INTO clients VALUES(?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET first_seen=excluded.first_seen, "
    "last_seen=excluded.last_seen, sessions=excluded.sessions, profile=excluded.profile WHERE identity=excluded.identity";

class Journal : public Store {
 public:
  Journal(const std::filesystem::path& path, JournalMode mode)
      : database_(open_database(path, mode)),
        select_meta_(*database_, "SELECT value FROM meta WHERE key=?"),
        upsert_meta_(*database_, "INSERT INTO meta VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value"),
        select_rounds_(*database_, kSelectRounds),
        insert_round_(*database_, "INSERT INTO rounds VALUES(?,?,?,?,?,?,?,0,?)"),
        insert_member_(*database_, "INSERT INTO participation VALUES(?,?,?)"),
        forget_members_(*database_, "DELETE FROM participation WHERE round>?"),
        forget_rounds_(*database_, "DELETE FROM rounds WHERE round>?"),
        complete_(*database_, "UPDATE rounds SET complete=1, report=? WHERE round=?"),
        select_incomplete_(*database_, "SELECT round, complete, report FROM rounds ORDER BY round DESC LIMIT 1"),
        select_reports_(*database_, "SELECT round, report FROM rounds WHERE complete=1 ORDER BY round"),
        select_hashes_(*database_, "SELECT model_sha256 FROM rounds ORDER BY round"),
        select_clients_(*database_, kSelectClients),
        upsert_client_(*database_, kUpsertClient),
        select_members_(*database_, "SELECT round, client, outcome FROM participation"),
        select_ledger_(*database_, "SELECT number, charge, hash FROM ledger ORDER BY number"),
        insert_charge_(*database_, "INSERT INTO ledger VALUES(?,?,?)") {}

  void wait_for_disk(bool wait) override {
    // In write-ahead mode NORMAL only leaves out the wait after each transaction; what is written stays whole.
    database_->execute(wait ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", "write");
  }

  std::optional<std::string> meta(const std::string& key) override {
    std::optional<std::string> value;
    if (select_meta_.start().bind(key).step()) value = select_meta_.text(0);
    select_meta_.start();
    return value;
  }

  void set_meta(const std::string& key, const std::string& value) override {
    upsert_meta_.start().bind(key).bind(value).run();
  }

  std::optional<CommittedRound> last_round() override {
    std::vector<CommittedRound> newest = newest_rounds(1);
    if (newest.empty()) return std::nullopt;
    return std::move(newest.front());
  }

  std::vector<CommittedRound> newest_rounds(std::size_t count) override {
    std::vector<CommittedRound> rounds;
    select_rounds_.start().bind(static_cast<std::int64_t>(count));
    while (select_rounds_.step()) {
      CommittedRound row;
      row.round = static_cast<std::uint32_t>(select_rounds_.integer(0));
      row.model_version = static_cast<std::uint32_t>(select_rounds_.integer(1));
      row.model_sha256 = select_rounds_.text(2);
      if (!select_rounds_.is_null(3)) row.state_sha256 = select_rounds_.text(3);
      row.server_steps = static_cast<std::uint64_t>(select_rounds_.integer(4));
      row.virtual_seconds = select_rounds_.number(5);
      row.abandoned = select_rounds_.integer(6) != 0;
      rounds.push_back(std::move(row));
    }
    return rounds;
  }

  void commit_round(const CommittedRound& committed, const RoundReport& report) override {
    FL_CHECK(report.round == committed.round, "a report of another round");
    const std::optional<CommittedRound> last = last_round();
    FL_CHECK(committed.round == (last ? last->round + 1 : 0), "rounds must be committed one after the other");
    Transaction transaction(*database_);
    insert_round_.start()
        .bind(std::int64_t{committed.round})
        .bind(std::int64_t{committed.model_version})
        .bind(committed.model_sha256)
        .bind(committed.state_sha256)
        .bind(static_cast<std::int64_t>(committed.server_steps))
        .bind(committed.virtual_seconds)
        .bind(std::int64_t{committed.abandoned})
        .bind(to_json(report).dump())
        .run();
    for (const ClientOutcome& member : report.cohort) {
      insert_member_.start()
          .bind(std::int64_t{committed.round})
          .bind(static_cast<std::int64_t>(member.client))  // ids above 2^63 wrap, and wrap back when read
          .bind(static_cast<std::int64_t>(member.outcome))
          .run();
    }
    if (!committed.privacy_state.empty()) set_meta(kPrivacyState, committed.privacy_state);
    transaction.commit();
  }

  void forget_rounds_after(std::uint32_t round) override {
    Transaction transaction(*database_);
    forget_members_.start().bind(std::int64_t{round}).run();
    forget_rounds_.start().bind(std::int64_t{round}).run();
    transaction.commit();
  }

  std::vector<LedgerEntry> ledger() override {
    std::vector<LedgerEntry> entries;
    select_ledger_.start();
    while (select_ledger_.step()) {
      LedgerEntry entry;
      entry.number = static_cast<std::uint64_t>(select_ledger_.integer(0));
      try {
        entry.charge = parse_json(select_ledger_.text(1), "charge " + std::to_string(entry.number));
      } catch (const ConfigError& error) {
        database_->damaged(error.what());
      }
      entry.hash = select_ledger_.text(2);
      entries.push_back(std::move(entry));
    }
    return entries;
  }

  void append_to_ledger(const LedgerEntry& entry) override {
    insert_charge_.start().bind(static_cast<std::int64_t>(entry.number)).bind(entry.charge.dump()).bind(entry.hash).run();
  }

  std::string privacy_state() override { return meta(kPrivacyState).value_or(""); }

  void complete_round(const RoundReport& report) override {
    complete_.start().bind(to_json(report).dump()).bind(std::int64_t{report.round}).run();
    FL_CHECK(sqlite3_changes(database_->handle()) == 1, "the completed round was never committed");
  }

  std::optional<RoundReport> incomplete_report() override {
    std::optional<RoundReport> report;
    if (select_incomplete_.start().step() && select_incomplete_.integer(1) == 0) {
      report = parse_report(select_incomplete_.integer(0), select_incomplete_.text(2));
    }
    select_incomplete_.start();
    return report;
  }

  std::vector<RoundReport> reports() override {
    std::vector<RoundReport> reports;
    select_reports_.start();
    while (select_reports_.step()) reports.push_back(parse_report(select_reports_.integer(0), select_reports_.text(1)));
    return reports;
  }

  std::vector<std::string> model_hashes() override {
    std::vector<std::string> hashes;
    select_hashes_.start();
    while (select_hashes_.step()) hashes.push_back(select_hashes_.text(0));
    return hashes;
  }

  std::vector<ClientRecord> clients() override {
    std::vector<ClientRecord> records;
    select_clients_.start();
    while (select_clients_.step()) {
      ClientRecord record;
      record.id = static_cast<ClientId>(select_clients_.integer(0));
      record.identity = select_clients_.text(1);
      record.first_seen = select_clients_.number(2);
      record.last_seen = select_clients_.number(3);
      record.sessions = static_cast<std::uint64_t>(select_clients_.integer(4));
      record.profile = select_clients_.text(5);
      records.push_back(std::move(record));
    }
    return records;
  }

  void save_clients(const std::vector<ClientRecord>& records) override {
    if (records.empty()) return;
    Transaction transaction(*database_);
    for (const ClientRecord& record : records) {
      upsert_client_.start()
          .bind(static_cast<std::int64_t>(record.id))
          .bind(record.identity)
          .bind(record.first_seen)
          .bind(record.last_seen)
          .bind(static_cast<std::int64_t>(record.sessions))
          .bind(record.profile)
          .run();
      FL_CHECK(sqlite3_changes(database_->handle()) == 1, "client " + std::to_string(record.id) + " has another identity");
    }
    transaction.commit();
  }

  std::map<ClientId, Participation> participation() override {
    // One pass in the order of the key: a GROUP BY would sort the whole table.
    std::map<ClientId, Participation> clients;
    select_members_.start();
    while (select_members_.step()) {
      const auto round = static_cast<std::uint32_t>(select_members_.integer(0));
      const auto outcome = static_cast<std::size_t>(select_members_.integer(2));
      if (outcome >= kOutcomes) database_->damaged("round " + std::to_string(round) + " has an outcome without a name");
      Participation& client = clients[static_cast<ClientId>(select_members_.integer(1))];
      ++client.outcomes.at(outcome);
      if (outcome == static_cast<std::size_t>(Outcome::accepted)) {
        client.last_counted_round = std::max(client.last_counted_round, round);
      }
    }
    return clients;
  }

 private:
  RoundReport parse_report(std::int64_t round, const std::string& text) const {
    try {
      return report_from_json(parse_json(text, "round " + std::to_string(round)));
    } catch (const ConfigError& error) {
      database_->damaged(error.what());
    } catch (const nlohmann::json::exception& error) {
      database_->damaged(error.what());
    }
  }

  std::unique_ptr<Database> database_;  // first, so that it outlives the statements
  Statement select_meta_;
  Statement upsert_meta_;
  Statement select_rounds_;
  Statement insert_round_;
  Statement insert_member_;
  Statement forget_members_;
  Statement forget_rounds_;
  Statement complete_;
  Statement select_incomplete_;
  Statement select_reports_;
  Statement select_hashes_;
  Statement select_clients_;
  Statement upsert_client_;
  Statement select_members_;
  Statement select_ledger_;
  Statement insert_charge_;
};

}  // namespace

std::unique_ptr<Store> open_journal(const std::filesystem::path& path, JournalMode mode) {
  return std::make_unique<Journal>(path, mode);
}

}  // namespace fl
