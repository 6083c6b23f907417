#include "simulations/device_model/device_model.h"

#include <cmath>

#include "fl_core/base/rng.h"

namespace fl {

DeviceBehaviour DeviceModel::behaviour(ClientId client, std::uint32_t round, std::int64_t examples, std::uint64_t bytes_down,
                                       std::uint64_t bytes_up) const {
  if (!options_) return {};
  Rng device(seed_, Purpose::device, 0, client);
  const double speed = options_->examples_per_s * std::exp(options_->speed_spread * device.normal());
  DeviceBehaviour behaviour;
  behaviour.duration = transfer(bytes_down, bytes_up) + static_cast<double>(examples) / speed;
  Rng luck(seed_, Purpose::device, round, client);
  if (luck.uniform() < options_->failure_probability) {
    behaviour.leaves = true;
    behaviour.duration *= luck.uniform();
  }
  return behaviour;
}

double DeviceModel::transfer(std::uint64_t bytes_down, std::uint64_t bytes_up) const {
  const double bytes_per_s = options_->bandwidth_mbit_s * 1e6 / 8;
  return options_->latency_s + static_cast<double>(bytes_down + bytes_up) / bytes_per_s;
}

std::uint32_t DeviceModel::leaves_in_step(ClientId client, std::uint32_t round) const {
  if (!options_) return 0;
  Rng luck(seed_, Purpose::device, round, client);
  const bool leaves = luck.uniform() < options_->failure_probability;
  luck.uniform();  // when, in behaviour()
  if (leaves) return 1 + static_cast<std::uint32_t>(luck.below(3));
  return luck.uniform() < options_->failure_probability ? 4 + static_cast<std::uint32_t>(luck.below(2)) : 0;
}

DeviceBehaviour DeviceModel::step(ClientId client, std::uint32_t round, std::uint32_t step, std::uint64_t bytes_down, std::uint64_t bytes_up) const {
  if (!options_) return {};
  return {transfer(bytes_down, bytes_up), leaves_in_step(client, round) == step};
}

}  // namespace fl
