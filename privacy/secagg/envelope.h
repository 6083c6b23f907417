#pragma once

#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "privacy/secagg/enrolment.h"
#include "privacy/secagg/messages.h"
#include "privacy/secagg/peer_directory.h"

namespace fl {

/// Bytes of an encoded advert; its credential follows them in the answer of step 1.
inline constexpr std::size_t kAdvertMessageBytes = kSecAggHeaderBytes + 8 + 2 * 32 + 64;

/// The clients whose credentials were judged. Two clients under one identity are refused: a cohort would be smaller than it looks.
class KnownPeers final : public PeerDirectory {
 public:
  /// Throws ProtocolError when the judge does, or for a client or a key that is known already.
  void add(ClientId client, std::span<const std::byte> credential, const CredentialJudge& judge);
  void remove(ClientId client);
  void clear();
  std::optional<PublicKey> identity_key(ClientId client) const override;

 private:
  std::map<ClientId, PublicKey> keys_;
  std::set<PublicKey> owners_;
};

using Credential = std::pair<ClientId, std::vector<std::byte>>;

/// Body of step 2: u32 count, then for each client u64 id, u32 length, credential; then the roster message.
SecAggBytes encode_envelope(std::span<const Credential> credentials, SecAggView roster);
/// What encode_envelope() was given; views into `bytes`. Throws ProtocolError, before it allocates for more than is there.
struct Envelope {
  std::vector<std::pair<ClientId, std::span<const std::byte>>> credentials;
  SecAggView roster;
};
Envelope decode_envelope(SecAggView bytes);

}  // namespace fl
