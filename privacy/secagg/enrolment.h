#pragma once

#include <memory>
#include <span>
#include <vector>

#include "privacy/secagg/signature.h"

namespace fl {

/// Decides which Ed25519 keys are enrolled. Clients and the server have one each, and it must rest on something that the server
/// cannot change: what secure aggregation promises against a dishonest server stands or falls with it.
class CredentialJudge {
 public:
  virtual ~CredentialJudge() = default;
  /// The identity key that a peer's credential proves. Throws ProtocolError, with the reason, for one that is malformed, not
  /// enrolled, expired or revoked. Any thread.
  virtual PublicKey enrolled_key(std::span<const std::byte> credential) const = 0;
};

/// Longest credential that anybody accepts, in bytes: a certificate has some 600.
inline constexpr std::size_t kCredentialBytes = 4096;

/// One client's identity in secure aggregation.
struct Enrolment {
  SigningKey key;
  std::vector<std::byte> credential;              ///< proves that the key is enrolled
  std::shared_ptr<const CredentialJudge> judge;   ///< of its peers' credentials
};

}  // namespace fl
