#include "privacy/secagg/envelope.h"

#include <string>

#include "fl_core/base/error.h"
#include "privacy/secagg/roster.h"

namespace fl {
namespace {

template <class Integer>
void put(SecAggBytes& bytes, Integer value) {
  for (std::size_t i = 0; i < sizeof value; ++i) bytes.push_back(static_cast<std::byte>(value >> (8 * i)));
}

/// Takes an integer off the front.
template <class Integer>
Integer take(SecAggView& bytes) {
  if (bytes.size() < sizeof(Integer)) throw ProtocolError("a list of credentials that ends in the middle");
  Integer value = 0;
  for (std::size_t i = 0; i < sizeof value; ++i) value |= static_cast<Integer>(static_cast<Integer>(bytes[i]) << (8 * i));
  bytes = bytes.subspan(sizeof(Integer));
  return value;
}

}  // namespace

void KnownPeers::add(ClientId client, std::span<const std::byte> credential, const CredentialJudge& judge) {
  if (credential.size() > kCredentialBytes) throw ProtocolError(secagg_name(client) + " has a credential of " + std::to_string(credential.size()) + " bytes");
  const PublicKey key = judge.enrolled_key(credential);
  if (keys_.contains(client)) throw ProtocolError(secagg_name(client) + " comes twice");
  if (!owners_.insert(key).second) throw ProtocolError(secagg_name(client) + " has the identity of another client of the round");
  keys_.emplace(client, key);
}

void KnownPeers::remove(ClientId client) {
  const auto found = keys_.find(client);
  if (found == keys_.end()) return;
  owners_.erase(found->second);
  keys_.erase(found);
}

void KnownPeers::clear() {
  keys_.clear();
  owners_.clear();
}

std::optional<PublicKey> KnownPeers::identity_key(ClientId client) const {
  const auto found = keys_.find(client);
  return found == keys_.end() ? std::nullopt : std::optional(found->second);
}

SecAggBytes encode_envelope(std::span<const Credential> credentials, SecAggView roster) {
  SecAggBytes bytes;
  put(bytes, static_cast<std::uint32_t>(credentials.size()));
  for (const auto& [client, credential] : credentials) {
    put(bytes, client);
    put(bytes, static_cast<std::uint32_t>(credential.size()));
    bytes.insert(bytes.end(), credential.begin(), credential.end());
  }
  bytes.insert(bytes.end(), roster.begin(), roster.end());
  return bytes;
}

Envelope decode_envelope(SecAggView bytes) {
  Envelope envelope;
  const auto count = take<std::uint32_t>(bytes);
  if (count > kMaximumSecAggClients) throw ProtocolError("credentials of " + std::to_string(count) + " clients");
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto client = take<std::uint64_t>(bytes);
    const auto size = take<std::uint32_t>(bytes);
    if (size > kCredentialBytes || size > bytes.size()) throw ProtocolError(secagg_name(client) + " has a credential of " + std::to_string(size) + " bytes");
    envelope.credentials.emplace_back(client, bytes.first(size));
    bytes = bytes.subspan(size);
  }
  envelope.roster = bytes;
  return envelope;
}

}  // namespace fl
