#pragma once

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "fl_core/base/rng.h"
#include "privacy/mechanism/mechanism.h"

namespace fl::test {

inline std::unique_ptr<Mechanism> mechanism(const std::string& name, nlohmann::json options = nlohmann::json::object()) {
  options["name"] = name;
  return mechanisms().create(options, "privacy.mechanism");
}

inline PrivacySetting setting_for(std::uint64_t parameters, std::uint64_t cohort) {
  PrivacySetting setting;
  setting.parameters = parameters;
  setting.cohort = static_cast<double>(cohort);
  setting.max_cohort = cohort;
  setting.minimum_cohort = cohort;
  return setting;
}

/// Values of about `scale`.
inline std::vector<float> random_update(std::size_t size, double scale, std::uint64_t stream) {
  Rng rng(7, Purpose::synthetic_data, 0, stream);
  std::vector<float> values(size);
  for (float& value : values) value = static_cast<float>(scale * rng.normal());
  return values;
}

inline std::vector<float> released(ServerMechanism& server, std::uint32_t round, std::size_t size) {
  std::vector<float> mean(size);
  server.release(round, mean);
  return mean;
}

/// Root mean square, the standard deviation of noise without a mean. Of n draws it is off by a factor 1 ± 1/√(2n).
template <class Values>
double rms(const Values& values) {
  double squares = 0;
  for (const auto value : values) squares += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(squares / static_cast<double>(values.size()));
}

inline double norm(std::span<const float> values) { return rms(values) * std::sqrt(static_cast<double>(values.size())); }

}  // namespace fl::test
