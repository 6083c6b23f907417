#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "fl_core/config/fields.h"

namespace fl {

/// What training may take from the machine, and when.
struct ClientLimits {
  std::int64_t threads = 1;
  std::optional<std::int64_t> memory_mb;
  std::int64_t cache_mb = 1024;
  std::string hours;
  bool mains_power = false;
  std::optional<double> max_load;

  void fields(Fields& f);
};

/// Where a policy looks. Tests replace it.
struct PolicySources {
  std::filesystem::path power_supplies = "/sys/class/power_supply";
  std::filesystem::path load = "/proc/loadavg";
  std::function<int()> local_hour;  ///< 0 … 23; the system's local time when empty
};

/// Whether training is allowed; if not, why: "on battery power".
struct Permission {
  bool allowed = true;
  std::string reason;
};

/// Says whether the owner of the machine lets it train now. Cheap: it is asked twice a second.
class TrainingPolicy {
 public:
  /// Throws ConfigError for hours that are no window.
  explicit TrainingPolicy(const ClientLimits& limits, PolicySources sources = {});

  /// `training` says that this program is at work now: then its own threads are taken off the load.
  Permission check(bool training) const;

 private:
  bool in_hours() const;
  bool on_mains() const;
  std::optional<double> load() const;

  ClientLimits limits_;
  PolicySources sources_;
  int first_hour_ = 0;  ///< the window is [first, last), and passes midnight when last < first
  int last_hour_ = 24;
};

}  // namespace fl
