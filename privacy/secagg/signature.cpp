#include "privacy/secagg/signature.h"

#include <utility>

#include "fl_core/base/error.h"
#include "privacy/secagg/binding.h"

namespace fl {
namespace {

Binding message(std::string_view domain, std::span<const std::byte> bytes) {
  FL_CHECK(!domain.empty() && domain.find('\0') == std::string_view::npos,
           "a signature's domain is empty or has a zero byte");
  return Binding(domain).add(bytes);
}

}  // namespace

SigningKey SigningKey::generate() { return SigningKey(SecretKey::random()); }

SigningKey::SigningKey(SecretKey seed) : seed_(std::move(seed)), public_key_(primitives::ed25519_public(seed_)) {}

Signature SigningKey::sign(std::string_view domain, std::span<const std::byte> bytes) const {
  return primitives::ed25519_sign(seed_, message(domain, bytes).bytes());
}

bool verify_signature(const PublicKey& key, std::string_view domain, std::span<const std::byte> bytes,
                      const Signature& signature) {
  return primitives::ed25519_verify(key, message(domain, bytes).bytes(), signature);
}

}  // namespace fl
