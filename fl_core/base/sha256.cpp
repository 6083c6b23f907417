#include "fl_core/base/sha256.h"

#include <openssl/evp.h>

#include "fl_core/base/error.h"
#include "fl_core/base/hex.h"

namespace fl {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  FL_CHECK(state_->context != nullptr && EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1,
           "OpenSSL has no SHA-256");
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

Sha256& Sha256::add(std::span<const std::byte> bytes) {
  FL_CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1, "SHA-256 update failed");
  return *this;
}

Sha256& Sha256::add(const std::string& text) { return add(std::as_bytes(std::span(text))); }

Sha256::Digest Sha256::finish() {
  Digest digest;
  unsigned int size = 0;
  FL_CHECK(EVP_DigestFinal_ex(state_->context, reinterpret_cast<unsigned char*>(digest.data()), &size) == 1 &&
               size == digest.size(),
           "SHA-256 final failed");
  return digest;
}

std::string Sha256::finish_hex() { return to_hex(finish()); }

std::string sha256_hex(std::span<const std::byte> bytes) { return Sha256().add(bytes).finish_hex(); }

}  // namespace fl
