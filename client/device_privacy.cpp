#include "client/device_privacy.h"

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "privacy/mechanism/promise.h"

namespace fl {

DevicePrivacy::DevicePrivacy(const PrivacyPlan& plan, std::uint64_t parameters, NoiseKeys& keys)
    : keys_(keys), mechanism_(mechanisms().create(plan.mechanism, "privacy.mechanism")), noise_multiplier_(plan.noise_multiplier) {
  if ((plan.randomness == "secure") != keys.is_secure()) {
    bad_value("privacy.randomness", plan.randomness, keys.is_secure() ? "\"secure\": noise from a seed is for simulations and no deployed program has it"
                                                                      : "\"seeded\" in this test");
  }
  const PrivacySetting setting = setting_of(plan, parameters);
  mechanism_->check(setting, noise_multiplier_, "privacy.mechanism");
  device_ = mechanism_->device(setting, noise_multiplier_);
}

std::optional<ExampleNoise> DevicePrivacy::example_noise(std::uint32_t round, ClientId client) const {
  std::optional<ExampleNoise> noise = mechanism_->example_noise(noise_multiplier_);
  if (noise) noise->key = keys_.key(NoisePurpose::example, round, client);
  return noise;
}

void DevicePrivacy::protect(std::span<float> delta, std::uint32_t round, ClientId client) const {
  if (device_) device_->protect(delta, round, keys_.key(NoisePurpose::device, round, client));
}

}  // namespace fl
