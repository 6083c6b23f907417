// Loaded into a program with LD_PRELOAD, kills it with SIGKILL at a chosen change of a folder.
//
//   FL_CRASH_FOLDER  only calls on files below this folder count (absolute path)
//   FL_CRASH_AT      the number of the call, from 1 on, before which the process dies; 0 or absent: never
//   FL_CRASH_HALF    set: a write is done by half before the process dies, as on a machine that loses power
//   FL_CRASH_COUNT   a file to which the number of calls is written at an orderly end
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

struct Plan {
  std::string folder;
  long at = 0;
  bool half = false;
  std::atomic<long> calls = 0;

  Plan() {
    if (const char* path = std::getenv("FL_CRASH_FOLDER")) folder = path;
    if (const char* number = std::getenv("FL_CRASH_AT")) at = std::strtol(number, nullptr, 10);
    half = std::getenv("FL_CRASH_HALF") != nullptr;
  }
  ~Plan() {
    const char* path = std::getenv("FL_CRASH_COUNT");
    if (path == nullptr) return;
    if (std::FILE* file = std::fopen(path, "w")) {
      std::fprintf(file, "%ld\n", calls.load());
      std::fclose(file);
    }
  }
};

Plan& plan() {
  static Plan one;
  return one;
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

[[noreturn]] void die() {
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

/// Counts a call on this path; whether it is the one.
bool strikes(const char* path) {
  Plan& one = plan();
  if (one.folder.empty() || std::strncmp(path, one.folder.c_str(), one.folder.size()) != 0) return false;
  return ++one.calls == one.at;
}

bool strikes(int fd) {
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  std::array<char, 4096> path{};
  if (::readlink(link.c_str(), path.data(), path.size() - 1) <= 0) return false;
  return strikes(path.data());
}

}  // namespace

extern "C" {

ssize_t write(int fd, const void* bytes, size_t size) {
  const auto real = next<ssize_t(int, const void*, size_t)>("write");
  if (strikes(fd)) {
    if (plan().half) real(fd, bytes, size / 2);
    die();
  }
  return real(fd, bytes, size);
}

ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t offset) {
  const auto real = next<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
  if (strikes(fd)) {
    if (plan().half) real(fd, bytes, size / 2, offset);
    die();
  }
  return real(fd, bytes, size, offset);
}

ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) { return pwrite64(fd, bytes, size, offset); }

int fsync(int fd) {
  if (strikes(fd)) die();
  return next<int(int)>("fsync")(fd);
}

int fdatasync(int fd) {
  if (strikes(fd)) die();
  return next<int(int)>("fdatasync")(fd);
}

int ftruncate64(int fd, off64_t size) {
  if (strikes(fd)) die();
  return next<int(int, off64_t)>("ftruncate64")(fd, size);
}

int ftruncate(int fd, off_t size) noexcept { return ftruncate64(fd, size); }

int rename(const char* from, const char* to) {
  if (strikes(to)) die();
  return next<int(const char*, const char*)>("rename")(from, to);
}

int link(const char* from, const char* to) {
  if (strikes(to)) die();
  return next<int(const char*, const char*)>("link")(from, to);
}

int unlink(const char* path) {
  if (strikes(path)) die();
  return next<int(const char*)>("unlink")(path);
}

}  // extern "C"
