#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fl::cli {

/// A program that this one started. It is in a process group of its own, so that Ctrl-C on the terminal reaches only us, and
/// the kernel kills it when we die. One thread.
class ChildProcess {
 public:
  struct Start {
    std::string name;                    ///< for messages
    std::filesystem::path program;
    std::vector<std::string> arguments;
    std::filesystem::path log;           ///< standard error is appended to it, and standard output unless it is read
    bool read_output = false;            ///< standard output comes through read_lines()
  };

  /// Throws IoError when the log cannot be written or no process can be made. A program that cannot be executed ends
  /// with 127 and says why in its log.
  explicit ChildProcess(Start start);
  /// Kills it if it still runs.
  ~ChildProcess();
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;

  const std::string& name() const { return start_.name; }
  pid_t id() const { return process_; }
  /// Its end, if it has come: the exit code, or minus the signal that killed it. Never blocks.
  std::optional<int> ended();
  /// Waits at most this long for the end.
  bool wait_for_end(double seconds);
  void send_signal(int signal);

  /// Waits at most this long for output and returns the complete lines that came, perhaps none.
  std::vector<std::string> read_lines(double seconds);

  /// "exit code 2: fl-client: client.json: …", with the last line of its log. REQUIRES: it has ended.
  std::string how_it_ended();
  /// The last line that it wrote to its log and that is not empty, at most 300 characters.
  std::string last_log_line() const;

 private:
  Start start_;
  pid_t process_ = -1;
  int output_ = -1;
  std::string partial_line_;
  off_t log_begin_ = 0;  ///< the log's size when it started
  std::optional<int> end_;
};

/// The path of a program in the folder of the running one. Throws ConfigError when it is not there.
std::filesystem::path program_beside_this(const std::string& name);

/// A TCP port of 127.0.0.1 that nobody listens on at this moment; `wanted` when that is free, 0 for any.
/// Throws IoError when there is none.
std::uint16_t free_port(std::uint16_t wanted = 0);

/// Holds the file `lock` of a folder, so that one process at a time works there.
class FolderLock {
 public:
  /// Throws ConfigError when another process holds it, IoError when it cannot be made.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int file_ = -1;
};

}  // namespace fl::cli
