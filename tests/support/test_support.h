#pragma once

#include <filesystem>
#include <string>

namespace fl::test {

/// A folder of its own under the system's temporary folder, removed with all its contents at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// The message of the fl::Error that `action` throws; empty when it throws none.
template <class Action>
std::string error_of(Action action);

}  // namespace fl::test

#include "fl_core/base/error.h"

template <class Action>
std::string fl::test::error_of(Action action) {
  try {
    action();
  } catch (const fl::Error& error) {
    return error.what();
  }
  return "";
}
