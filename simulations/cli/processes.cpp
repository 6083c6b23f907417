#include "simulations/cli/processes.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"

namespace fl::cli {
namespace {

constexpr std::size_t kShownCharacters = 1000;
constexpr int kCannotExecute = 127;

/// What the new process does. Between fork and exec only calls that are safe after a signal: other threads held locks.
[[noreturn]] void become(const char* program, char* const* arguments, int output, int log, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(kCannotExecute);  // the parent died before the line above
  ::setpgid(0, 0);
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  for (const int signal : {SIGINT, SIGTERM, SIGXFSZ, SIGPIPE}) ::signal(signal, SIG_DFL);
  ::execv(program, arguments);
  for (const char* part : {"cannot execute ", program, ": ", ::strerrordesc_np(errno), "\n"}) {
    if (part != nullptr) [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, part, std::strlen(part));
  }
  ::_exit(kCannotExecute);
}

}  // namespace

ChildProcess::ChildProcess(Start start) : start_(std::move(start)) {
  const int log = ::open(start_.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) fail_writing("open", start_.log, errno);
  log_begin_ = ::lseek(log, 0, SEEK_END);
  std::array<int, 2> pipe_ends = {-1, -1};
  if (start_.read_output && ::pipe2(pipe_ends.data(), O_CLOEXEC) != 0) {
    const int error = errno;
    ::close(log);
    throw IoError("cannot start " + start_.name + ": " + std::strerror(error));
  }
  const std::string program = start_.program.string();
  std::vector<std::string> words = start_.arguments;
  words.insert(words.begin(), program);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  process_ = ::fork();
  const int error = errno;
  if (process_ == 0) become(program.c_str(), arguments.data(), start_.read_output ? pipe_ends[1] : log, log, parent);
  ::close(log);
  if (start_.read_output) {
    ::close(pipe_ends[1]);
    output_ = pipe_ends[0];
    ::fcntl(output_, F_SETFL, O_NONBLOCK);
  }
  if (process_ < 0) {
    if (output_ >= 0) ::close(output_);
    throw IoError("cannot start " + start_.name + ": " + std::strerror(error) + "; use fewer --clients");
  }
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : start_(std::move(other.start_)),
      process_(std::exchange(other.process_, -1)),
      output_(std::exchange(other.output_, -1)),
      partial_line_(std::move(other.partial_line_)),
      log_begin_(other.log_begin_),
      end_(other.end_) {}

ChildProcess::~ChildProcess() {
  if (process_ > 0 && !ended()) {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  if (output_ >= 0) ::close(output_);
}

std::optional<int> ChildProcess::ended() {
  int status = 0;
  if (!end_ && ::waitpid(process_, &status, WNOHANG) == process_) {
    end_ = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }
  return end_;
}

bool ChildProcess::wait_for_end(double seconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!ended()) {
    if (std::chrono::steady_clock::now() >= until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

void ChildProcess::send_signal(int signal) {
  if (!ended()) ::kill(process_, signal);  // not reaped yet, so the number is still its own
}

std::vector<std::string> ChildProcess::read_lines(double seconds) {
  std::vector<std::string> lines;
  if (output_ < 0) {
    wait_for_end(seconds);
    return lines;
  }
  pollfd waiting{output_, POLLIN, 0};
  if (::poll(&waiting, 1, static_cast<int>(seconds * 1000)) <= 0) return lines;
  std::array<char, 4096> bytes{};
  for (;;) {
    const ssize_t got = ::read(output_, bytes.data(), bytes.size());
    if (got == 0) {
      ::close(output_);
      output_ = -1;
    }
    if (got <= 0) break;
    partial_line_.append(bytes.data(), static_cast<std::size_t>(got));
  }
  std::size_t begin = 0;
  for (std::size_t end; (end = partial_line_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    lines.push_back(partial_line_.substr(begin, end - begin));
  }
  partial_line_.erase(0, begin);
  return lines;
}

std::string ChildProcess::how_it_ended() {
  FL_CHECK(ended(), "the process still runs");
  const std::string how = *end_ < 0 ? std::string("killed by signal ") + std::to_string(-*end_) + " (" + ::strsignal(-*end_) + ")"
                                    : "exit code " + std::to_string(*end_);
  const std::string said = last_log_line();
  return said.empty() ? how : how + ": " + said;
}

std::string ChildProcess::last_log_line() const {
  // A log may be long, and older than this process.
  std::string tail;
  const int file = ::open(start_.log.c_str(), O_RDONLY | O_CLOEXEC);
  if (file >= 0) {
    std::array<char, 4096> bytes{};
    const off_t size = ::lseek(file, 0, SEEK_END);
    const ssize_t got = ::pread(file, bytes.data(), bytes.size(), std::max(log_begin_, size - static_cast<off_t>(bytes.size())));
    if (got > 0) tail.assign(bytes.data(), static_cast<std::size_t>(got));
    ::close(file);
  }
  tail.erase(tail.find_last_not_of(" \r\n") + 1);
  const std::size_t begin = tail.find_last_of('\n');
  return (begin == std::string::npos ? tail : tail.substr(begin + 1)).substr(0, kShownCharacters);
}

std::filesystem::path program_beside_this(const std::string& name) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  const std::filesystem::path program = folder / name;
  if (error || ::access(program.c_str(), X_OK) != 0) {
    throw ConfigError("there is no program '" + name + "' beside 'fl' in " + folder.string() + "; build or install it there (cmake --build … --target " + name + ")");
  }
  return program;
}

std::uint16_t free_port(std::uint16_t wanted) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) throw IoError(std::string("cannot make a socket: ") + std::strerror(errno));
  // As the aggregator does: a port in TIME_WAIT is free.
  const int yes = 1;
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(wanted);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  // Two listeners may share a port until one listens, so ask for that too.
  const bool found = ::bind(listener, reinterpret_cast<const sockaddr*>(&address), size) == 0 && ::listen(listener, 1) == 0 &&
               ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  const int error = errno;
  ::close(listener);
  if (found) return ntohs(address.sin_port);
  if (wanted != 0) return free_port();
  throw IoError(std::string("no free port on 127.0.0.1: ") + std::strerror(error));
}

FolderLock::FolderLock(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "lock";
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file_ < 0) fail_writing("create", path, errno);
  if (::flock(file_, LOCK_EX | LOCK_NB) == 0) return;
  const int error = errno;
  ::close(file_);
  if (error != EWOULDBLOCK) fail_writing("lock", path, error);
  throw ConfigError(folder.string() + " is in use by another process; wait for it, or choose another --output");
}

FolderLock::~FolderLock() { ::close(file_); }

}  // namespace fl::cli
