#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace fl {

/// In which round of each run this device last let out a masked update. In a round that is not newer it never takes part again:
/// two sums of one round over different clients show the difference. One small file, written before a masked update may leave.
/// One thread at a time.
class MaskedRounds {
 public:
  /// Runs that are remembered: those that were noted last.
  static constexpr std::size_t kRuns = 64;

  /// `file` empty: in memory. Throws ConfigError when the file is damaged, IoError.
  explicit MaskedRounds(std::filesystem::path file);

  /// 0 when there was none.
  std::uint32_t newest(const std::string& run) const;
  /// `run`: 32 hex digits. On disk when it returns; an older round than the newest changes nothing. Throws IoError, and then
  /// nothing may leave.
  void note(const std::string& run, std::uint32_t round);

 private:
  struct Entry {
    std::string run;
    std::uint32_t round = 0;
  };

  void save(const std::vector<Entry>& entries) const;

  std::filesystem::path file_;
  std::vector<Entry> entries_;  ///< the one that was noted last comes last
};

}  // namespace fl
