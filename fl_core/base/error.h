#pragma once

#include <stdexcept>
#include <string>

namespace fl {

/// What every command of ours exits with. The numbers are documented in docs/exit-codes.md and never change their meaning.
enum class ExitCode : int {
  ok = 0,
  bug = 1,            ///< a check of our own failed, or an exception nobody expected
  config = 2,         ///< the experiment, the command line or the data do not fit together
  io = 4,             ///< disk full, unwritable folder, a file that vanished
  training = 5,       ///< the federation could not go on (too many abandoned rounds)
  out_of_band = 6,    ///< the run ended, but outside the band its experiment expects (only with --check), a replay differs, or an audit refutes a promise
  nonconforming = 7,  ///< a client or server that was tested does not keep to the wire format (fl conformance)
  budget = 8,         ///< the next round would break the privacy promise; the model of the last one is kept
  interrupted = 130,  ///< Ctrl-C or SIGTERM; the run can be resumed
};

/// Base of all errors that this library throws on purpose. `what()` is one line that a user can act on.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
  virtual ExitCode exit_code() const noexcept { return ExitCode::bug; }
};

/// The configuration, the command line, or a data file says something that cannot be done.
class ConfigError : public Error {
 public:
  using Error::Error;
  ExitCode exit_code() const noexcept override { return ExitCode::config; }
};

/// A peer sent bytes that break the protocol. Only that peer is dropped.
class ProtocolError : public Error {
 public:
  using Error::Error;
};

/// The operating system refused a read or a write.
class IoError : public Error {
 public:
  using Error::Error;
  ExitCode exit_code() const noexcept override { return ExitCode::io; }
};

/// The federation cannot go on: every update was rejected, or nobody answers.
class TrainingError : public Error {
 public:
  using Error::Error;
  ExitCode exit_code() const noexcept override { return ExitCode::training; }
};

/// The next round would cost more privacy than was promised. What was released is on disk.
class BudgetExhausted : public Error {
 public:
  using Error::Error;
  ExitCode exit_code() const noexcept override { return ExitCode::budget; }
};

/// The user asked to stop. What was finished is on disk.
class Interrupted : public Error {
 public:
  using Error::Error;
  ExitCode exit_code() const noexcept override { return ExitCode::interrupted; }
};

[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& message);

}  // namespace fl

/// For bugs of our own, never for input. Stays on in release.
#define FL_CHECK(condition, message)                                             \
  do {                                                                           \
    if (!(condition)) ::fl::check_failed(#condition, __FILE__, __LINE__, message); \
  } while (false)
