#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

#include "fl_core/base/error.h"
#include "fl_core/net/tls_context.h"

/// What `fl conformance` does: tests of a server or a client, of any maker, against fl_core/wire/FORMAT.md.
namespace fl::cli {

/// Prints one line a check, on standard output.
class Checks {
 public:
  explicit Checks(bool json) : json_(json) {}

  /// Runs one check of a section of FORMAT.md; any exception of the other end's making is its failure. Returns whether it passed.
  bool check(const std::string& section, const std::string& what, const std::function<void()>& action);
  /// A check whose failure leaves nothing to go on with: throws Stop.
  void must(const std::string& section, const std::string& what, const std::function<void()>& action);
  void skip(const std::string& section, const std::string& what, const std::string& why);
  /// Something a person may want to know; on standard error.
  void say(const std::string& line) const;
  /// The totals; nonconforming unless all passed.
  ExitCode finish(bool stopped);

  struct Stop {};

 private:
  void show(const std::string& section, const std::string& what, const char* result, const std::string& detail);

  bool json_;
  int passed_ = 0;
  int failed_ = 0;
  int skipped_ = 0;
};

/// What a check found wrong.
class CheckFailed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
/// Throws CheckFailed.
void expect(bool condition, const std::string& otherwise);

struct ConformanceOptions {
  std::string host;
  std::uint16_t port = 0;
  TlsFiles tls;
  std::string server_name;              ///< in the server's certificate; empty: `host`
  std::string input = "1x28x28";        ///< shape of the examples that we claim to have
  std::uint32_t classes = 10;
  std::uint64_t examples = 100;
  bool passive = false;                 ///< nothing that takes or answers a task
  std::chrono::seconds wait{30};        ///< for a task, for its receipt, for a client to come back
  std::chrono::milliseconds limit{5000};  ///< for everything that should happen at once
};

/// Tests the server at host:port, as a client.
void test_server(const ConformanceOptions& options, Checks& checks);
/// Tests a client that is told to connect to host:port, as a server.
void test_client(const ConformanceOptions& options, Checks& checks);

}  // namespace fl::cli
