#include "aggregator/store/journal.h"

#include <sqlite3.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

/// Marks the file as ours (SQLite's application_id): "Trib".
constexpr int kApplicationId = 0x54726962;
constexpr int kSchemaVersion = 1;
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

/// One connection, and the translation of its errors into ours.
class Database {
 public:
  Database(const std::filesystem::path& path, int flags) : path_(path.string()) {
    const int code = sqlite3_open_v2(path_.c_str(), &handle_, flags, nullptr);
    if (code == SQLITE_OK) return;
    try {
      fail("open", code);
    } catch (...) {
      sqlite3_close(handle_);
      throw;
    }
  }
  ~Database() { sqlite3_close(handle_); }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  sqlite3* handle() const { return handle_; }
  const std::string& path() const { return path_; }

  void execute(const char* sql, const char* doing) {
    const int code = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) fail(doing, code);
  }

  [[noreturn]] void fail(const char* doing, int code) const {
    const std::string reason = handle_ != nullptr ? sqlite3_errmsg(handle_) : sqlite3_errstr(code);
    switch (code & 0xff) {
      case SQLITE_CORRUPT:
      case SQLITE_NOTADB: damaged(reason);
      case SQLITE_FULL:
        throw IoError(io(doing, reason) + "; free some space, then go on with 'fl resume'");
      case SQLITE_READONLY:
      case SQLITE_CANTOPEN:
      case SQLITE_PERM:
      case SQLITE_AUTH:
        throw IoError(io(doing, reason) + "; check that you may write to its folder");
      case SQLITE_BUSY:
      case SQLITE_LOCKED: throw IoError(io(doing, reason) + "; another program holds it: close that first");
      case SQLITE_NOMEM: throw std::bad_alloc();
      case SQLITE_IOERR: throw IoError(io(doing, reason) + "; check the disk, then go on with 'fl resume'");
      default: throw Error(io(doing, reason) + "; this is a bug in Tributary, please report it");
    }
  }

  [[noreturn]] void damaged(const std::string& reason) const {
    throw ConfigError("the journal " + path_ + " is damaged: " + reason + "; restore the run folder from a copy");
  }

 private:
  std::string io(const char* doing, const std::string& reason) const {
    return std::string("cannot ") + doing + " the journal " + path_ + ": " + reason;
  }

  std::string path_;
  sqlite3* handle_ = nullptr;
};

/// A prepared statement that is used again and again: start().bind(…).bind(…), then step() or run().
class Statement {
 public:
  Statement(Database& database, const char* sql) : database_(database) {
    const int code = sqlite3_prepare_v3(database.handle(), sql, -1, SQLITE_PREPARE_PERSISTENT, &statement_, nullptr);
    // Our SQL is constant, so a table that it does not find is missing from the file.
    if (code == SQLITE_ERROR) database_.damaged(sqlite3_errmsg(database_.handle()));
    if (code != SQLITE_OK) database_.fail("read", code);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& start() {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
    bound_ = 0;
    return *this;
  }
  Statement& bind(std::int64_t value) { return check(sqlite3_bind_int64(statement_, ++bound_, value)); }
  Statement& bind(double value) { return check(sqlite3_bind_double(statement_, ++bound_, value)); }
  Statement& bind(const std::string& value) {
    return check(sqlite3_bind_text64(statement_, ++bound_, value.data(), value.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
  }
  Statement& bind(const std::optional<std::string>& value) {
    if (value) return bind(*value);
    return check(sqlite3_bind_null(statement_, ++bound_));
  }

  /// Whether there is a row.
  bool step() {
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    sqlite3_reset(statement_);  // a statement left open would keep its read transaction
    if (code != SQLITE_DONE) database_.fail(sqlite3_stmt_readonly(statement_) != 0 ? "read" : "write to", code);
    return false;
  }
  void run() { FL_CHECK(!step(), "a statement that changes the journal gave a row"); }

  std::int64_t integer(int column) { return sqlite3_column_int64(statement_, column); }
  double number(int column) { return sqlite3_column_double(statement_, column); }
  std::string text(int column) {
    const unsigned char* text = sqlite3_column_text(statement_, column);
    if (text == nullptr) return "";
    return std::string(reinterpret_cast<const char*>(text), static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
  }
  bool is_null(int column) { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

 private:
  Statement& check(int code) {
    if (code != SQLITE_OK) database_.fail("write to", code);
    return *this;
  }

  Database& database_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

/// Undone unless commit() is reached.
class Transaction {
 public:
  explicit Transaction(Database& database) : database_(database) { database_.execute("BEGIN IMMEDIATE", "write to"); }
  ~Transaction() {
    if (!done_) sqlite3_exec(database_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit() {
    database_.execute("COMMIT", "write to");
    done_ = true;
  }

 private:
  Database& database_;
  bool done_ = false;
};

std::int64_t pragma(Database& database, const char* sql) {
  Statement statement(database, sql);
  return statement.step() ? statement.integer(0) : 0;
}

void create_schema(Database& database) {
  Transaction transaction(database);
  database.execute(kSchema, "create");
  const std::string marks = "PRAGMA application_id=" + std::to_string(kApplicationId) +
                            "; PRAGMA user_version=" + std::to_string(kSchemaVersion);
  database.execute(marks.c_str(), "create");
  transaction.commit();
}

void check_schema(Database& database) {
  const std::int64_t application = pragma(database, "PRAGMA application_id");
  const std::int64_t version = pragma(database, "PRAGMA user_version");
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
}

/// Opens the file and brings it to the state that Journal's statements need.
std::unique_ptr<Database> open_database(const std::filesystem::path& path, JournalMode mode) {
  std::error_code unseen;
  if (mode == JournalMode::existing && !std::filesystem::exists(path, unseen) && !unseen) {
    throw ConfigError(path.string() + ": no such file; expected the journal of a run");
  }
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_EXRESCODE | (mode == JournalMode::existing ? 0 : SQLITE_OPEN_CREATE);
  auto database = std::make_unique<Database>(path, flags);
  sqlite3_busy_timeout(database->handle(), kBusyTimeoutMs);
  const bool empty = mode != JournalMode::existing && pragma(*database, "SELECT count(*) FROM sqlite_schema") == 0;
  if (mode == JournalMode::create && !empty) {
    throw ConfigError(path.string() + " exists; go on with 'fl resume' or choose another --output");
  }
  if (!empty) check_schema(*database);
  // Where the file system cannot share memory SQLite keeps its rollback journal, which is as safe.
  database->execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON", "open");
  if (empty) create_schema(*database);
  return database;
}

constexpr const char* kSelectRounds =
    "SELECT round, model_version, model_sha256, state_sha256, server_steps, virtual_seconds, abandoned FROM rounds "
    "ORDER BY round DESC LIMIT ?";

class Journal : public Store {
 public:
  Journal(const std::filesystem::path& path, JournalMode mode)
      : database_(open_database(path, mode)),
        select_meta_(*database_, "SELECT value FROM meta WHERE key=?"),
        upsert_meta_(*database_, "INSERT INTO meta VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value"),
        select_rounds_(*database_, kSelectRounds),
        insert_round_(*database_, "INSERT INTO rounds VALUES(?,?,?,?,?,?,?,0,?)"),
        insert_member_(*database_, "INSERT INTO participation VALUES(?,?,?)"),
        complete_(*database_, "UPDATE rounds SET complete=1, report=? WHERE round=?"),
        select_incomplete_(*database_, "SELECT round, complete, report FROM rounds ORDER BY round DESC LIMIT 1"),
        select_reports_(*database_, "SELECT round, report FROM rounds WHERE complete=1 ORDER BY round") {}

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
    transaction.commit();
  }

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
  Statement complete_;
  Statement select_incomplete_;
  Statement select_reports_;
};

}  // namespace

std::unique_ptr<Store> open_journal(const std::filesystem::path& path, JournalMode mode) {
  return std::make_unique<Journal>(path, mode);
}

}  // namespace fl
