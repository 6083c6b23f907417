#include "client/device_privacy.h"

#include "fl_core/config/json_reader.h"

namespace fl {

DevicePrivacy::DevicePrivacy(const PrivacyPlan& plan, std::uint64_t parameters, std::uint64_t trainer_steps, NoiseKeys& keys, bool summed)
    : keys_(keys), promise_(promise_of(plan, parameters)) {
  const std::string& randomness = plan.section.randomness;
  if ((randomness == "secure") != keys.is_secure()) {
    bad_value("privacy.randomness", randomness, keys.is_secure() ? "\"secure\": noise from a seed is for simulations and no deployed program has it"
                                                                 : "\"seeded\" in this test");
  }
  if (promise_.mechanism().protects_examples() != (trainer_steps > 0)) {
    bad_value("trainer", trainer_steps, "dp_sgd under the mechanism dp_sgd, and under no other: this trainer would not keep the promise");
  }
  if (trainer_steps != promise_.setting().example_steps) {
    bad_value("privacy.example_steps", promise_.setting().example_steps, "the trainer's steps, " + std::to_string(trainer_steps) + ": the promise must count all of them");
  }
  const Mechanism& mechanism = promise_.mechanism();
  device_ = summed ? mechanism.summed_device(promise_.setting(), promise_.noise_multiplier()) : mechanism.device(promise_.setting(), promise_.noise_multiplier());
}

std::optional<ExampleNoise> DevicePrivacy::example_noise(std::uint32_t round, ClientId client) const {
  std::optional<ExampleNoise> noise = promise_.mechanism().example_noise(promise_.noise_multiplier());
  if (noise) noise->key = keys_.key(NoisePurpose::example, round, client);
  return noise;
}

void DevicePrivacy::protect(std::span<float> delta, std::uint32_t round, ClientId client) const {
  if (device_) device_->protect(delta, round, keys_.key(NoisePurpose::device, round, client));
}

}  // namespace fl
