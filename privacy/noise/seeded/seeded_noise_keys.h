#pragma once

#include "privacy/noise/noise_keys.h"

namespace fl {

/// Keys that follow from a seed, for simulations that must reproduce: SHA-256 over ("tributary noise", seed, purpose, round,
/// client). Whoever knows the experiment knows the noise, so a run with them is NOT private. In a library of its own
/// (fl_privacy_seeded) that the simulator and the tests link, and fl-aggregator and fl-client do not.
class SeededNoiseKeys final : public NoiseKeys {
 public:
  explicit SeededNoiseKeys(std::uint64_t seed) : seed_(seed) {}
  NoiseKey key(NoisePurpose purpose, std::uint64_t round, std::uint64_t client) override;
  bool is_secure() const override { return false; }

 private:
  std::uint64_t seed_;
};

}  // namespace fl
