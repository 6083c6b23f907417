#pragma once

#include <cstdint>
#include <optional>

#include "fl_core/config/experiment.h"
#include "fl_core/round/types.h"

namespace fl {

/// What a virtual device does with a task, known before it trains: so virtual time never depends on the real machine.
struct DeviceBehaviour {
  Seconds duration = 0;  ///< from send to answer (or to its disappearance)
  bool leaves = false;   ///< it vanishes instead of answering
};

/// Speed and reliability of virtual devices. A device's speed factor is keyed by (seed, client); whether it leaves, by
/// (seed, round, client).
class DeviceModel {
 public:
  DeviceModel(const std::optional<DeviceOptions>& options, std::uint64_t seed) : options_(options), seed_(seed) {}

  /// latency + download + examples / speed + upload. Without options every device answers at once.
  DeviceBehaviour behaviour(ClientId client, std::uint32_t round, std::int64_t examples, std::uint64_t bytes_down,
                            std::uint64_t bytes_up) const;

 private:
  std::optional<DeviceOptions> options_;
  std::uint64_t seed_;
};

}  // namespace fl
