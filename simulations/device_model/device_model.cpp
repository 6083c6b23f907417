#include "simulations/device_model/device_model.h"

#include <cmath>

#include "fl_core/base/rng.h"

namespace fl {

DeviceBehaviour DeviceModel::behaviour(ClientId client, std::uint32_t round, std::int64_t examples, std::uint64_t bytes_down,
                                       std::uint64_t bytes_up) const {
  if (!options_) return {};
  Rng device(seed_, Purpose::device, 0, client);
  const double speed = options_->examples_per_s * std::exp(options_->speed_spread * device.normal());
  const double bytes_per_s = options_->bandwidth_mbit_s * 1e6 / 8;
  DeviceBehaviour behaviour;
  behaviour.duration = options_->latency_s + static_cast<double>(bytes_down + bytes_up) / bytes_per_s +
                       static_cast<double>(examples) / speed;
  Rng luck(seed_, Purpose::device, round, client);
  if (luck.uniform() < options_->failure_probability) {
    behaviour.leaves = true;
    behaviour.duration *= luck.uniform();
  }
  return behaviour;
}

}  // namespace fl
