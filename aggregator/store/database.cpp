#include "aggregator/store/database.h"

#include <sqlite3.h>

#include <new>

#include "fl_core/base/error.h"

namespace fl::store {

Database::Database(const std::filesystem::path& path, int flags) : path_(path.string()) {
  const int code = sqlite3_open_v2(path_.c_str(), &handle_, flags, nullptr);
  if (code == SQLITE_OK) return;
  try {
    fail("open", code);
  } catch (...) {
    sqlite3_close(handle_);
    throw;
  }
}

Database::~Database() { sqlite3_close(handle_); }

void Database::execute(const char* sql, const char* doing) {
  const int code = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail(doing, code);
}

std::int64_t Database::integer(const char* sql) {
  Statement statement(*this, sql);
  return statement.step() ? statement.integer(0) : 0;
}

void Database::fail(const char* doing, int code) const {
  const std::string reason = handle_ != nullptr ? sqlite3_errmsg(handle_) : sqlite3_errstr(code);
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: damaged(reason);
    case SQLITE_FULL:
      throw IoError(failed(doing, reason) + "; free some space, then go on with 'fl resume' or start the aggregator again");
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      throw IoError(failed(doing, reason) + "; check that you may write to its folder");
    case SQLITE_BUSY:
    case SQLITE_LOCKED: throw IoError(failed(doing, reason) + "; another program holds it: close that first");
    case SQLITE_NOMEM: throw std::bad_alloc();
    case SQLITE_IOERR:
      throw IoError(failed(doing, reason) + "; check the disk, then go on with 'fl resume' or start the aggregator again");
    default: throw Error(failed(doing, reason) + "; this is a bug in Tributary, please report it");
  }
}

void Database::damaged(const std::string& reason) const {
  throw ConfigError("the journal " + path_ + " is damaged: " + reason + "; restore the run folder from a copy");
}

std::string Database::failed(const char* doing, const std::string& reason) const {
  return std::string("cannot ") + doing + " the journal " + path_ + ": " + reason;
}

Statement::Statement(Database& database, const char* sql) : database_(database) {
  const int code = sqlite3_prepare_v3(database.handle(), sql, -1, SQLITE_PREPARE_PERSISTENT, &statement_, nullptr);
  // Our SQL is constant, so a table that it does not find is missing from the file.
  if (code == SQLITE_ERROR) database_.damaged(sqlite3_errmsg(database_.handle()));
  if (code != SQLITE_OK) database_.fail("read", code);
}

Statement::~Statement() { sqlite3_finalize(statement_); }

Statement& Statement::start() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
  bound_ = 0;
  return *this;
}

Statement& Statement::bind(std::int64_t value) { return check(sqlite3_bind_int64(statement_, ++bound_, value)); }
Statement& Statement::bind(double value) { return check(sqlite3_bind_double(statement_, ++bound_, value)); }
Statement& Statement::bind(const std::string& value) {
  return check(sqlite3_bind_text64(statement_, ++bound_, value.data(), value.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
}
Statement& Statement::bind(const std::optional<std::string>& value) {
  if (value) return bind(*value);
  return check(sqlite3_bind_null(statement_, ++bound_));
}

bool Statement::step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  sqlite3_reset(statement_);  // a statement left open would keep its read transaction
  if (code != SQLITE_DONE) database_.fail(sqlite3_stmt_readonly(statement_) != 0 ? "read" : "write to", code);
  return false;
}

void Statement::run() { FL_CHECK(!step(), "a statement that changes the journal gave a row"); }

std::int64_t Statement::integer(int column) { return sqlite3_column_int64(statement_, column); }
double Statement::number(int column) { return sqlite3_column_double(statement_, column); }
std::string Statement::text(int column) {
  const unsigned char* text = sqlite3_column_text(statement_, column);
  if (text == nullptr) return "";
  return std::string(reinterpret_cast<const char*>(text), static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
}
bool Statement::is_null(int column) { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

Statement& Statement::check(int code) {
  if (code != SQLITE_OK) database_.fail("write to", code);
  return *this;
}

Transaction::Transaction(Database& database) : database_(database) { database_.execute("BEGIN IMMEDIATE", "write to"); }

Transaction::~Transaction() {
  if (!done_) sqlite3_exec(database_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
}

void Transaction::commit() {
  database_.execute("COMMIT", "write to");
  done_ = true;
}

}  // namespace fl::store
