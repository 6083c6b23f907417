#pragma once

#include <memory>
#include <optional>
#include <span>

#include "fl_core/config/plan.h"
#include "fl_core/round/types.h"
#include "privacy/mechanism/promise.h"

namespace fl {

/// A device's part of a promise of differential privacy: what it does to its training and to its delta before anything leaves.
/// It rebuilds the promise from the plan, so it knows the ε itself. One thread at a time.
class DevicePrivacy {
 public:
  /// `parameters`: floats of the model. `trainer_steps`: Trainer::private_steps() of the plan's trainer. `keys` is borrowed. Throws
  /// ConfigError where this device cannot or must not keep the promise: a setting that the mechanism refuses, a trainer that does not
  /// belong to it or takes other steps than are counted, seeded noise where `keys` are secure, or the other way round.
  /// `summed`: under secure aggregation.
  DevicePrivacy(const PrivacyPlan& plan, std::uint64_t parameters, std::uint64_t trainer_steps, NoiseKeys& keys, bool summed = false);

  const Promise& promise() const { return promise_; }
  /// ε of all planned rounds.
  double epsilon() const { return promise_.epsilon_after(promise_.setting().rounds); }
  /// How often this device may take part.
  std::uint64_t participations() const { return promise_.setting().participations(promise_.setting().rounds); }

  /// What the trainer must do to every example; nothing where the promise is about whole clients.
  std::optional<ExampleNoise> example_noise(std::uint32_t round, ClientId client) const;
  /// Whether protect() does anything; then a delta without meaning (failed training) leaves as zeros, and nobody sees that it failed.
  bool changes_delta() const { return device_ != nullptr; }
  /// Turns the delta (float[N], finite) in place into what may leave.
  void protect(std::span<float> delta, std::uint32_t round, ClientId client) const;
  /// Whether an answer is a release of its own, so that taking part costs this device's owner.
  bool releases_update() const { return promise_.mechanism().on_device(); }

 private:
  NoiseKeys& keys_;
  Promise promise_;
  std::unique_ptr<DeviceMechanism> device_;  ///< null: the delta leaves as it is
};

}  // namespace fl
