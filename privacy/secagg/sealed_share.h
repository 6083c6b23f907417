#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "privacy/noise/random_bits.h"
#include "privacy/secagg/secret.h"

namespace fl {

/// What is sealed. Part of the protocol: never renumber, only append.
enum class SealedType : std::uint8_t { shares = 1 };

/// Where a sealed message belongs. It opens only under exactly this.
struct SealedAddress {
  SessionId session{};
  std::uint64_t round = 0;
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  SealedType type = SealedType::shares;
};

/// Bytes that sealing adds: nonce (12) and tag (16).
inline constexpr std::size_t kSealedExtraBytes = 28;

/// nonce ‖ AES-256-GCM(key, nonce, AAD = "tributary secagg 1 sealed" ‖ session ‖ round ‖ from ‖ to ‖ type, plain) ‖
/// tag. The nonce comes from `nonces`, which must not repeat under one key. IoError when OpenSSL fails.
std::vector<std::byte> seal(const SecretKey& key, const SealedAddress& address, std::span<const std::byte> plain,
                            RandomBits& nonces);

/// What was sealed. ProtocolError if a byte, the address or the key is another.
SecretBytes open_sealed(const SecretKey& key, const SealedAddress& address, std::span<const std::byte> sealed);

}  // namespace fl
