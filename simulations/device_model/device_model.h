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
  /// The same for step 2 to 5 of secure aggregation, by a device that answered the train task. One that leaves in this round does so in
  /// a step before its vector is in, so that the sum holds the updates of a run without; and of the others as many leave after it.
  DeviceBehaviour step(ClientId client, std::uint32_t round, std::uint32_t step, std::uint64_t bytes_down, std::uint64_t bytes_up) const;
  /// Whether and when, under secure aggregation, the device leaves: 0 never, 1 in training, 2 to 5 in that step.
  std::uint32_t leaves_in_step(ClientId client, std::uint32_t round) const;

 private:
  double transfer(std::uint64_t bytes_down, std::uint64_t bytes_up) const;

  std::optional<DeviceOptions> options_;
  std::uint64_t seed_;
};

}  // namespace fl
