#include "privacy/secagg/key_agreement.h"

#include <string>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/hex.h"
#include "privacy/secagg/binding.h"

namespace fl {
namespace {

SecretKey derive(const SecretKey& key, const Binding& info) {
  SecretKey out;
  primitives::hkdf_sha256(key.bytes(), {}, info.bytes(), out.bytes());
  return out;
}

}  // namespace

AgreementKeys AgreementKeys::generate() { return AgreementKeys(SecretKey::random()); }

AgreementKeys::AgreementKeys(SecretKey seed) : seed_(std::move(seed)), key_(seed_), public_key_(key_.public_key()) {}

SecretKey AgreementKeys::agree(const PublicKey& peer, const AgreementContext& context) const {
  if (context.own == context.peer || peer == public_key_) {
    throw ProtocolError("key agreement: client " + std::to_string(context.own) + " was given itself, or its own key " +
                        to_hex(peer) + ", as its peer " + std::to_string(context.peer) +
                        "; expected the key of another client");
  }
  const auto shared = key_.agree(peer);
  if (!shared) {
    throw ProtocolError("key agreement: public key " + to_hex(peer) + " of client " + std::to_string(context.peer) +
                        " is a point of low order, with which anybody could guess the agreed key; expected an X25519 "
                        "public key made from random bytes");
  }
  Binding info("tributary secagg 1");
  info.add(context.session).add(context.round).add(static_cast<std::uint8_t>(context.purpose)).add(context.vector);
  if (context.own < context.peer) {
    info.add(context.own).add(public_key_).add(context.peer).add(peer);
  } else {
    info.add(context.peer).add(peer).add(context.own).add(public_key_);
  }
  return derive(*shared, info);
}

SecretKey self_mask_key(const SecretKey& seed, const SessionId& session, std::uint64_t round, std::uint64_t client,
                        std::uint32_t vector) {
  Binding info("tributary secagg 1 self");
  info.add(session).add(round).add(vector).add(client);
  return derive(seed, info);
}

}  // namespace fl
