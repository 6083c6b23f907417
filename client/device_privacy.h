#pragma once

#include <memory>
#include <optional>
#include <span>

#include "fl_core/config/plan.h"
#include "fl_core/round/types.h"
#include "privacy/mechanism/mechanism.h"

namespace fl {

/// A device's part of a promise of differential privacy: what it does to its training and to its delta before anything leaves.
/// One thread at a time.
class DevicePrivacy {
 public:
  /// `parameters`: floats of the model. `keys` is borrowed. Throws ConfigError where this device cannot or must not keep
  /// the promise: the mechanism refuses the setting, or the plan wants seeded noise and `keys` are secure, or the other way round.
  DevicePrivacy(const PrivacyPlan& plan, std::uint64_t parameters, NoiseKeys& keys);

  /// What the trainer must do to every example; nothing where the promise is about whole clients.
  std::optional<ExampleNoise> example_noise(std::uint32_t round, ClientId client) const;
  /// Turns the delta (float[N], finite) in place into what may leave.
  void protect(std::span<float> delta, std::uint32_t round, ClientId client) const;
  /// Whether an update is a release of its own, so that taking part costs this device's owner.
  bool releases_update() const { return mechanism_->on_device(); }

 private:
  NoiseKeys& keys_;
  std::unique_ptr<Mechanism> mechanism_;
  double noise_multiplier_;
  std::unique_ptr<DeviceMechanism> device_;  ///< null: the delta leaves as it is
};

}  // namespace fl
