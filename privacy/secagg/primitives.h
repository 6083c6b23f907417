#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "privacy/secagg/secret.h"

/// OpenSSL's primitives with C++ types and nothing added, so that the vectors of their standards can be run through
/// them. Secure aggregation uses key_agreement.h, mask.h, sealed_share.h and signature.h, which bind purpose and round.
/// All throw IoError when OpenSSL itself fails (no memory, no such algorithm). Any thread.
namespace fl::primitives {

/// RFC 5869 with SHA-256. REQUIRES: info of at most 1024 bytes (a limit of OpenSSL 3.0), out of 1 to 8160.
void hkdf_sha256(std::span<const std::byte> key, std::span<const std::byte> salt, std::span<const std::byte> info,
                 std::span<std::byte> out);

/// An X25519 private key (RFC 7748; clamping included), set up once for many agreements. Wiped when it dies.
class X25519Key {
 public:
  explicit X25519Key(const SecretKey& private_key);
  ~X25519Key();
  /// What was moved from can only be assigned to or destroyed.
  X25519Key(X25519Key&&) noexcept;
  X25519Key& operator=(X25519Key&&) noexcept;

  PublicKey public_key() const;
  /// The x-coordinate both sides reach; nothing if it is zero (a peer's point of low order, RFC 7748 section 6.1).
  std::optional<SecretKey> agree(const PublicKey& peer) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

using Signature = std::array<std::byte, 64>;
/// RFC 8032, pure Ed25519.
PublicKey ed25519_public(const SecretKey& seed);
Signature ed25519_sign(const SecretKey& seed, std::span<const std::byte> message);
bool ed25519_verify(const PublicKey& key, std::span<const std::byte> message, const Signature& signature);

inline constexpr std::size_t kNonceBytes = 12;
inline constexpr std::size_t kTagBytes = 16;
using Nonce = std::array<std::byte, kNonceBytes>;
/// AES-256-GCM: ciphertext, then the tag of 16 bytes.
std::vector<std::byte> aes_gcm_seal(const SecretKey& key, const Nonce& nonce, std::span<const std::byte> aad,
                                    std::span<const std::byte> plain);
/// What was sealed; nothing if it, the nonce, the AAD or the key is another, or it is shorter than a tag.
std::optional<SecretBytes> aes_gcm_open(const SecretKey& key, const Nonce& nonce, std::span<const std::byte> aad,
                                        std::span<const std::byte> sealed);

/// Runs one known answer of each primitive and of the stream AES-256-CTR. IoError names the one that fails: a libcrypto that
/// computes something else must not be used. Programs call it once before the first round.
void self_test();

}  // namespace fl::primitives
