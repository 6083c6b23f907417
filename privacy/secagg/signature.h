#pragma once

#include <span>
#include <string_view>

#include "privacy/secagg/primitives.h"
#include "privacy/secagg/secret.h"

namespace fl {

using primitives::Signature;

/// An Ed25519 identity (RFC 8032). Moves only; the private key is wiped when it dies.
class SigningKey {
 public:
  /// From OpenSSL's generator. IoError when it fails.
  static SigningKey generate();
  explicit SigningKey(SecretKey seed);

  const PublicKey& public_key() const { return public_key_; }
  const SecretKey& seed() const { return seed_; }
  /// Signs domain ‖ 0 ‖ bytes, so that what is signed for one purpose says nothing for another.
  /// REQUIRES: the domain is not empty and has no zero byte.
  Signature sign(std::string_view domain, std::span<const std::byte> bytes) const;

 private:
  SecretKey seed_;
  PublicKey public_key_;
};

/// Whether the owner of `key` signed these bytes for this domain. REQUIRES as sign().
bool verify_signature(const PublicKey& key, std::string_view domain, std::span<const std::byte> bytes,
                      const Signature& signature);

}  // namespace fl
