#include "privacy/secagg/secret.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rand.h>

#include <algorithm>
#include <string>
#include <utility>

#include "fl_core/base/error.h"

namespace fl {

SecretKey::SecretKey(std::span<const std::byte, kSize> bytes) { std::ranges::copy(bytes, bytes_.begin()); }

SecretKey::~SecretKey() { OPENSSL_cleanse(bytes_.data(), kSize); }

SecretKey::SecretKey(SecretKey&& other) noexcept : bytes_(other.bytes_) { OPENSSL_cleanse(other.bytes_.data(), kSize); }

SecretKey& SecretKey::operator=(SecretKey&& other) noexcept {
  if (this != &other) {
    bytes_ = other.bytes_;
    OPENSSL_cleanse(other.bytes_.data(), kSize);
  }
  return *this;
}

SecretKey SecretKey::random() {
  SecretKey key;
  if (RAND_priv_bytes(reinterpret_cast<unsigned char*>(key.bytes_.data()), static_cast<int>(kSize)) != 1) {
    const unsigned long code = ERR_get_error();
    const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
    throw IoError("secure aggregation: OpenSSL's random generator failed (" +
                  std::string(reason == nullptr ? "no reason given" : reason) +
                  "), so there is no key and nothing is sent; check that the system has a source of entropy");
  }
  return key;
}

SecretBytes::~SecretBytes() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
  if (this != &other) {
    OPENSSL_cleanse(bytes_.data(), bytes_.size());
    bytes_ = std::move(other.bytes_);
    other.bytes_.clear();
  }
  return *this;
}

bool equal_in_constant_time(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace fl
