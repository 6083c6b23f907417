#include "fl_core/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "fl_core/base/error.h"

namespace fl {
namespace {

[[noreturn]] void fail_reading(const std::string& doing, const std::filesystem::path& path, int error) {
  throw IoError("cannot " + doing + " " + path.string() + ": " + std::strerror(error));
}

class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags, mode_t mode = 0644)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  bool close() {
    const int fd = std::exchange(fd_, -1);
    return fd < 0 || ::close(fd) == 0;
  }

 private:
  int fd_;
};

template <class Container>
Container read_into(const std::filesystem::path& path, std::uint64_t limit_bytes) {
  Descriptor file(path, O_RDONLY);
  if (file.get() < 0) fail_reading("open", path, errno);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) fail_reading("inspect", path, errno);
  if (S_ISDIR(info.st_mode)) fail_reading("read", path, EISDIR);
  if (static_cast<std::uint64_t>(info.st_size) > limit_bytes) {
    throw IoError("cannot read " + path.string() + ": it has " + std::to_string(info.st_size) +
                  " bytes, the limit is " + std::to_string(limit_bytes));
  }
  Container contents(static_cast<std::size_t>(info.st_size), {});
  std::size_t done = 0;
  while (done < contents.size()) {
    const ssize_t got = ::read(file.get(), contents.data() + done, contents.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_reading("read", path, errno);
    if (got == 0) throw IoError("cannot read " + path.string() + ": it became shorter while being read");
    done += static_cast<std::size_t>(got);
  }
  return contents;
}

/// "runs/x" for "runs/x/": its parent is then another folder.
std::filesystem::path without_slash(const std::filesystem::path& path) { return path.has_filename() ? path : path.parent_path(); }

}  // namespace

void fail_writing(const std::string& doing, const std::filesystem::path& path, int error) {
  std::string hint;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) hint = "; free some space, then go on with 'fl resume' or run the command again";
  if (error == EACCES || error == EROFS || error == EPERM || error == ENOTDIR) hint = "; choose a folder that you may write to (--output DIR)";
  throw IoError("cannot " + doing + " " + path.string() + ": " + std::strerror(error) + hint);
}

void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes, FileAccess access) {
  std::filesystem::path temporary = path;
  temporary += ".partial";
  const auto give_up = [&](const char* doing, int error) {
    ::unlink(temporary.c_str());
    fail_writing(doing, path, error);
  };
  // What an earlier crash left behind may have another mode, and may be open elsewhere: a private file is always a new one.
  const bool secret = access == FileAccess::owner;
  if (secret) ::unlink(temporary.c_str());
  Descriptor file(temporary, O_WRONLY | O_CREAT | (secret ? O_EXCL | O_NOFOLLOW : O_TRUNC), secret ? 0600 : 0644);
  if (file.get() < 0) fail_writing("create", path, errno);
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) give_up("write", errno);
    done += static_cast<std::size_t>(put);
  }
  if (::fsync(file.get()) != 0) give_up("flush", errno);
  if (!file.close()) give_up("close", errno);
  if (::rename(temporary.c_str(), path.c_str()) != 0) give_up("rename", errno);
  Descriptor folder(path.has_parent_path() ? path.parent_path() : ".", O_RDONLY | O_DIRECTORY);
  if (folder.get() < 0 || ::fsync(folder.get()) != 0) fail_writing("flush the folder of", path, errno);
}

void write_file_atomically(const std::filesystem::path& path, const std::string& text, FileAccess access) {
  write_file_atomically(path, std::as_bytes(std::span(text)), access);
}

std::vector<std::byte> read_file(const std::filesystem::path& path, std::uint64_t limit_bytes) {
  return read_into<std::vector<std::byte>>(path, limit_bytes);
}

std::string read_text_file(const std::filesystem::path& path, std::uint64_t limit_bytes) {
  return read_into<std::string>(path, limit_bytes);
}

std::filesystem::path make_folder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::path topmost;
  for (std::filesystem::path at = without_slash(path); !at.empty() && !std::filesystem::exists(at, error); at = at.parent_path()) topmost = at;
  std::filesystem::create_directories(path, error);
  if (error) fail_writing("create the folder", path, error.value());
  if (!std::filesystem::is_directory(path)) fail_writing("create the folder", path, ENOTDIR);
  return topmost;
}

void remove_empty_folders(const std::filesystem::path& path, const std::filesystem::path& topmost) {
  if (topmost.empty()) return;
  std::error_code error;
  for (std::filesystem::path at = without_slash(path); std::filesystem::remove(at, error) && at != topmost; at = at.parent_path()) continue;
}

}  // namespace fl
