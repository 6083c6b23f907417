#pragma once

#include <optional>

#include "fl_core/round/types.h"
#include "privacy/secagg/secret.h"

namespace fl {

/// Who is enrolled, under which Ed25519 key. The client's host fills it from a source that the server cannot change
/// (certificates, a signed list): everything that secure aggregation promises against a dishonest server rests on it.
class PeerDirectory {
 public:
  virtual ~PeerDirectory() = default;
  /// The identity key of that client; nothing if there is no such client or it was revoked. Any thread.
  virtual std::optional<PublicKey> identity_key(ClientId client) const = 0;
};

}  // namespace fl
