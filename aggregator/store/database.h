#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

struct sqlite3;
struct sqlite3_stmt;

/// SQLite's C interface as the journal needs it; inside aggregator/store only.
namespace fl::store {

/// One connection, and the translation of SQLite's errors into ours.
class Database {
 public:
  /// `flags` are those of sqlite3_open_v2. Throws as fail() does.
  Database(const std::filesystem::path& path, int flags);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  sqlite3* handle() const { return handle_; }
  const std::string& path() const { return path_; }

  /// Runs constant SQL that gives no rows. `doing` is the verb of the error: "cannot DOING the journal …".
  void execute(const char* sql, const char* doing);
  /// The first column of the first row of constant SQL; 0 without one.
  std::int64_t integer(const char* sql);

  /// What to tell the user about SQLite's result code: IoError where the system refuses, ConfigError for a damaged file.
  [[noreturn]] void fail(const char* doing, int code) const;
  [[noreturn]] void damaged(const std::string& reason) const;

 private:
  std::string failed(const char* doing, const std::string& reason) const;

  std::string path_;
  sqlite3* handle_ = nullptr;
};

/// A prepared statement that is used again and again: start().bind(…).bind(…), then step() or run().
class Statement {
 public:
  Statement(Database& database, const char* sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& start();
  Statement& bind(std::int64_t value);
  Statement& bind(double value);
  Statement& bind(const std::string& value);
  Statement& bind(const std::optional<std::string>& value);

  /// Whether there is a row.
  bool step();
  /// For statements that change something.
  void run();

  std::int64_t integer(int column);
  double number(int column);
  std::string text(int column);
  bool is_null(int column);

 private:
  Statement& check(int code);

  Database& database_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

/// Undone unless commit() is reached.
class Transaction {
 public:
  explicit Transaction(Database& database);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  Database& database_;
  bool done_ = false;
};

}  // namespace fl::store
