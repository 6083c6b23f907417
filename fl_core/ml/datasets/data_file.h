#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace fl {

namespace limits {
inline constexpr std::uint64_t kDataFileBytes = 16ULL << 30U;  ///< one data file, on disk and after inflating
inline constexpr std::uint64_t kDataTextBytes = 4ULL << 30U;   ///< one CSV, JSON or record file after inflating
inline constexpr std::int64_t kClasses = 1 << 20;              ///< classes of a data set
}  // namespace limits

/// One file of a data set in memory: gz or raw, told apart by the first two bytes (1f 8b), never by the name. All errors
/// are ConfigErrors that begin with the path. Nothing is inflated beyond what the caller expects.
class DataFile {
 public:
  /// Reads the file. `hint` says how to get it and ends the error where it is absent.
  DataFile(std::string path, const std::string& hint);

  const std::string& path() const { return path_; }
  /// The first `count` bytes, or all where the file has fewer.
  std::vector<std::uint8_t> prefix(std::size_t count) const;
  /// Bytes [skip, size) of a file that must have exactly `size` bytes; `layout` says in the error why so many.
  std::vector<std::uint8_t> exactly(std::uint64_t skip, std::uint64_t size, const std::string& layout) const;
  /// The whole file, of at most kDataTextBytes.
  std::string text() const;

 private:
  bool compressed() const;

  std::string path_;
  std::vector<std::byte> bytes_;
};

/// True for a regular file (or a link to one).
bool is_data_file(const std::string& path);

}  // namespace fl
