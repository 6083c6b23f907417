#include "privacy/mechanism/mechanism.h"

#include <nlohmann/json.hpp>

namespace fl {

nlohmann::json ServerMechanism::state() const { return nullptr; }
void ServerMechanism::set_state(const nlohmann::json&) {}

void Mechanism::check(const PrivacySetting&, double, const std::string&) const {}
std::unique_ptr<ServerMechanism> Mechanism::server(const PrivacySetting&, double, NoiseKeys&) const { return nullptr; }
std::unique_ptr<DeviceMechanism> Mechanism::device(const PrivacySetting&, double) const { return nullptr; }
SumCode Mechanism::sum_code(const PrivacySetting& setting, double, const std::string&) const {
  return SumCode::grid(setting.max_cohort, setting.bound_bits, ExactSum::kMaxWeight);
}
std::optional<ExampleNoise> Mechanism::example_noise(double) const { return std::nullopt; }

MechanismRegistry& mechanisms() {
  static MechanismRegistry registry("mechanism");
  return registry;
}

}  // namespace fl
