#include "privacy/secagg/sealed_share.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "fl_core/base/error.h"
#include "privacy/secagg/binding.h"
#include "privacy/secagg/primitives.h"

namespace fl {
namespace {

using primitives::Nonce;

static_assert(kSealedExtraBytes == primitives::kNonceBytes + primitives::kTagBytes);

Binding bound_to(const SealedAddress& address) {
  Binding aad("tributary secagg 1 sealed");
  aad.add(address.session).add(address.round).add(address.from).add(address.to);
  aad.add(static_cast<std::uint8_t>(address.type));
  return aad;
}

}  // namespace

std::vector<std::byte> seal(const SecretKey& key, const SealedAddress& address, std::span<const std::byte> plain,
                            RandomBits& nonces) {
  const std::array<std::uint64_t, 2> words{nonces.next_u64(), nonces.next_u64()};
  Nonce nonce;
  std::memcpy(nonce.data(), words.data(), nonce.size());
  const auto sealed = primitives::aes_gcm_seal(key, nonce, bound_to(address).bytes(), plain);
  std::vector<std::byte> out(nonce.size() + sealed.size());
  std::ranges::copy(sealed, std::ranges::copy(nonce, out.begin()).out);
  return out;
}

SecretBytes open_sealed(const SecretKey& key, const SealedAddress& address, std::span<const std::byte> sealed) {
  const auto where = [&] {
    return "sealed message from client " + std::to_string(address.from) + " to " + std::to_string(address.to) +
           " in round " + std::to_string(address.round);
  };
  if (sealed.size() < kSealedExtraBytes) {
    throw ProtocolError(where() + ": " + std::to_string(sealed.size()) + " bytes, expected at least " +
                        std::to_string(kSealedExtraBytes));
  }
  Nonce nonce;
  std::ranges::copy(sealed.first(nonce.size()), nonce.begin());
  auto plain = primitives::aes_gcm_open(key, nonce, bound_to(address).bytes(), sealed.subspan(nonce.size()));
  if (!plain) {
    throw ProtocolError(where() +
                        " does not open: it was changed on the way, or sealed for another session, round, pair or key");
  }
  return std::move(*plain);
}

}  // namespace fl
