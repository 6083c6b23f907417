#pragma once

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "fl_core/base/file.h"

namespace fl {

/// A folder of its own under `parent` that goes away with its contents. Throws IoError when it cannot be made.
class ScratchFolder {
 public:
  explicit ScratchFolder(const std::string& name, const std::filesystem::path& parent = std::filesystem::temp_directory_path()) {
    std::string path = (parent / (name + "-XXXXXX")).string();
    if (::mkdtemp(path.data()) == nullptr) fail_writing("create", path, errno);
    path_ = path;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace fl
