#include "privacy/noise/seeded/seeded_noise_keys.h"

#include "fl_core/base/sha256.h"

namespace fl {

NoiseKey SeededNoiseKeys::key(NoisePurpose purpose, std::uint64_t round, std::uint64_t client) {
  // The text, then four words of 8 bytes, little-endian: every argument at a fixed place, so no two calls collide.
  const std::uint64_t words[] = {seed_, static_cast<std::uint64_t>(purpose), round, client};
  std::array<std::byte, sizeof(words)> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(words[i / 8] >> 8 * (i % 8));
  return Sha256().add("tributary noise").add(bytes).finish();
}

}  // namespace fl
