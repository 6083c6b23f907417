#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace fl::test {

/// A program that runs beside the test, its standard output and error read line by line into memory. It dies with the test.
class ChildProcess {
 public:
  /// Throws IoError when it cannot be started. `environment` is added to the test's own.
  ChildProcess(const std::vector<std::string>& command, const std::map<std::string, std::string>& environment = {});
  /// Kills it when it still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  void kill(int signal) const;
  /// Blocks until a line with this text was printed; nothing when the program ended without it.
  std::optional<std::string> await(const std::string& text);
  /// Blocks until it has ended: its exit code, or minus the signal that killed it. Throws Error after two minutes.
  int wait();
  bool ended() const;
  /// All that was printed so far.
  std::vector<std::string> lines() const;
  std::string last_line() const;

 private:
  void read();

  pid_t pid_ = -1;
  int pipe_ = -1;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<std::string> lines_;
  bool ended_ = false;
  int status_ = 0;
  std::thread reader_;
};

}  // namespace fl::test
