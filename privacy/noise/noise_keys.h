#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace fl {

/// 256 bits that key one draw of noise (an AES-256-CTR key stream). Whoever knows it can take the noise off again.
using NoiseKey = std::array<std::byte, 32>;

/// What a key is for. Part of seeded results: never renumber, only append.
enum class NoisePurpose : std::uint64_t {
  central = 1,      ///< the server's noise on a round's sum
  clip_count = 2,   ///< the server's noise on the count of clipped updates
  correlated = 3,   ///< the root of all noise of a DP-FTRL run (round 0)
  device = 4,       ///< one device's noise on its update
  example = 5,      ///< one device's noise and batches of DP-SGD
  sampling = 6,     ///< who takes part: secret, because amplification by sampling counts on it
  secure_aggregation = 7,  ///< one client's keys and shares in one round of secure aggregation
};

/// Where keys come from. Any thread.
class NoiseKeys {
 public:
  virtual ~NoiseKeys() = default;
  /// A key for one draw. Secure keys never repeat, whatever the arguments; seeded ones depend on nothing else.
  virtual NoiseKey key(NoisePurpose purpose, std::uint64_t round, std::uint64_t client) = 0;
  /// Whether nobody can foresee the keys. False marks everything that comes of them "not private".
  virtual bool is_secure() const = 0;
};

/// Keys from OpenSSL's generator (RAND_priv_bytes). The only kind that fl-aggregator and fl-client link.
/// key() throws IoError when the generator fails: no noise, no release.
class SecureNoiseKeys final : public NoiseKeys {
 public:
  NoiseKey key(NoisePurpose purpose, std::uint64_t round, std::uint64_t client) override;
  bool is_secure() const override { return true; }
};

}  // namespace fl
