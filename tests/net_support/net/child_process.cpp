#include "tests/net_support/net/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

#include "fl_core/base/error.h"

namespace fl::test {
namespace {

constexpr auto kHangs = std::chrono::seconds(120);

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& command, const std::map<std::string, std::string>& environment) {
  // Everything that takes memory happens before fork(): the test has threads.
  std::vector<std::string> arguments = command;
  std::vector<std::string> variables;
  for (char** one = environ; *one != nullptr; ++one) variables.emplace_back(*one);
  for (const auto& [name, value] : environment) variables.push_back(name + "=" + value);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(variables);
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw IoError(std::string("cannot make a pipe: ") + std::strerror(errno));
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(ends[1], STDOUT_FILENO);
    ::dup2(ends[1], STDERR_FILENO);
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  pipe_ = ends[0];
  if (pid_ < 0) {
    ::close(pipe_);
    throw IoError("cannot start " + command.at(0) + ": " + std::strerror(errno));
  }
  reader_ = std::thread([this] { read(); });
}

ChildProcess::~ChildProcess() {
  kill(SIGKILL);
  reader_.join();
  ::close(pipe_);
}

void ChildProcess::read() {
  std::string rest;
  std::array<char, 4096> piece{};
  for (;;) {
    const ssize_t got = ::read(pipe_, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    rest.append(piece.data(), static_cast<std::size_t>(got));
    const std::lock_guard lock(mutex_);
    for (std::size_t end = rest.find('\n'); end != std::string::npos; end = rest.find('\n')) {
      lines_.push_back(rest.substr(0, end));
      rest.erase(0, end + 1);
    }
    changed_.notify_all();
  }
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  const std::lock_guard lock(mutex_);
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  ended_ = true;
  changed_.notify_all();
}

void ChildProcess::kill(int signal) const {
  const std::lock_guard lock(mutex_);
  if (!ended_) ::kill(pid_, signal);
}

std::optional<std::string> ChildProcess::await(const std::string& text) {
  std::unique_lock lock(mutex_);
  std::size_t looked_at = 0;
  std::optional<std::string> found;
  const auto look = [&] {
    for (; !found && looked_at < lines_.size(); ++looked_at) {
      if (lines_[looked_at].find(text) != std::string::npos) found = lines_[looked_at];
    }
    return found.has_value() || ended_;
  };
  if (!changed_.wait_for(lock, kHangs, look)) throw Error("no line with '" + text + "'" + (lines_.empty() ? "" : " after: " + lines_.back()));
  return found;
}

int ChildProcess::wait() {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, kHangs, [&] { return ended_; })) throw Error("the program does not end" + (lines_.empty() ? "" : "; its last line: " + lines_.back()));
  return status_;
}

bool ChildProcess::ended() const {
  const std::lock_guard lock(mutex_);
  return ended_;
}

std::vector<std::string> ChildProcess::lines() const {
  const std::lock_guard lock(mutex_);
  return lines_;
}

std::string ChildProcess::last_line() const {
  const std::lock_guard lock(mutex_);
  return lines_.empty() ? "" : lines_.back();
}

}  // namespace fl::test
