#pragma once

#include <cstdint>
#include <span>

#include "privacy/secagg/primitives.h"
#include "privacy/secagg/secret.h"

namespace fl {

/// What an agreed key is for. Part of the protocol: never renumber, only append.
enum class AgreementPurpose : std::uint8_t {
  share_sealing = 1,  ///< seals the shares that two clients send each other
  pairwise_mask = 2,  ///< masks that cancel between two clients
};

/// What a derived key is bound to. Two places that differ in any field get independent keys.
struct AgreementContext {
  SessionId session{};
  std::uint64_t round = 0;
  AgreementPurpose purpose = AgreementPurpose::pairwise_mask;
  std::uint64_t own = 0;     ///< this client's id
  std::uint64_t peer = 0;    ///< the other's; never equal to own
  std::uint32_t vector = 0;  ///< which of the round's masked vectors; 0 where there is one
};

/// An X25519 key pair for one round. Moves only; the private key is wiped when it dies.
class AgreementKeys {
 public:
  /// From OpenSSL's generator. IoError when it fails.
  static AgreementKeys generate();
  /// From 32 seed bytes, which are the private key: for simulations, and for the server to rebuild what a client that
  /// dropped out shared. Rebuilt keys are to be trusted only if public_key() is what the client advertised.
  explicit AgreementKeys(SecretKey seed);

  const PublicKey& public_key() const { return public_key_; }
  /// What Shamir's shares are made of.
  const SecretKey& seed() const { return seed_; }

  /// The key that only the two can know: HKDF-SHA256 of the X25519 secret, no salt, info = "tributary secagg 1" ‖
  /// session ‖ round ‖ purpose ‖ vector ‖ lower id ‖ its public key ‖ higher id ‖ its public key (integers
  /// little-endian). Both sides get the same. Some 40 us. Errors: ProtocolError for a public key of low order (RFC 7748
  /// section 6.1) or own's, and for own == peer.
  SecretKey agree(const PublicKey& peer, const AgreementContext& context) const;

 private:
  SecretKey seed_;
  primitives::X25519Key key_;
  PublicKey public_key_;
};

/// The key of a client's own mask, from the 32 seed bytes that it shares: HKDF-SHA256 with info = "tributary secagg 1
/// self" ‖ session ‖ round ‖ vector ‖ client.
SecretKey self_mask_key(const SecretKey& seed, const SessionId& session, std::uint64_t round, std::uint64_t client,
                        std::uint32_t vector = 0);

}  // namespace fl
