#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace fl {

/// How many updates this device has let out under each promise of differential privacy: the device's own ledger, so that no
/// server can ask it more often than it promised. One small file, written before an update may leave. One thread at a time.
class ParticipationLog {
 public:
  /// `file` empty: in memory. Throws ConfigError when the file is damaged, IoError.
  explicit ParticipationLog(std::filesystem::path file);

  std::uint64_t used(const std::string& promise) const;
  /// Counts one more; on disk when it returns. Throws IoError, and then nothing may leave.
  void add(const std::string& promise);

 private:
  std::filesystem::path file_;
  std::map<std::string, std::uint64_t> used_;
};

}  // namespace fl
