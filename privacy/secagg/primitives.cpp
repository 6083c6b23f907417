#include "privacy/secagg/primitives.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "fl_core/base/error.h"

namespace fl::primitives {
namespace {

template <auto free>
struct Free {
  template <class T>
  void operator()(T* object) const {
    free(object);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Free<EVP_PKEY_CTX_free>>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, Free<EVP_MD_CTX_free>>;
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, Free<EVP_CIPHER_CTX_free>>;
using Kdf = std::unique_ptr<EVP_KDF, Free<EVP_KDF_free>>;
using KdfContext = std::unique_ptr<EVP_KDF_CTX, Free<EVP_KDF_CTX_free>>;

/// Never null: some calls of OpenSSL take a null pointer for "not given" even where the size is 0.
const unsigned char* data_of(std::span<const std::byte> bytes) {
  static constexpr unsigned char kNothing = 0;
  return bytes.empty() ? &kNothing : reinterpret_cast<const unsigned char*>(bytes.data());
}
unsigned char* room_of(std::span<std::byte> bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }

[[noreturn]] void fail(const char* what) {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  throw IoError(std::string("secure aggregation: OpenSSL failed at ") + what + " (" +
                (reason == nullptr ? "no reason given" : reason) +
                "); check the installed libcrypto (3.0 or later, with its default provider)");
}

Key private_key(int type, const SecretKey& bytes, const char* what) {
  Key key(EVP_PKEY_new_raw_private_key(type, nullptr, data_of(bytes.bytes()), SecretKey::kSize));
  if (!key) fail(what);
  return key;
}

PublicKey public_half(EVP_PKEY* key, const char* what) {
  PublicKey out;
  std::size_t size = out.size();
  if (EVP_PKEY_get_raw_public_key(key, room_of(out), &size) != 1 || size != out.size()) fail(what);
  return out;
}

int as_int(std::size_t size) {
  FL_CHECK(size <= 1U << 30, "a message for AES-GCM of more than 1 GiB");
  return static_cast<int>(size);
}

}  // namespace

void hkdf_sha256(std::span<const std::byte> key, std::span<const std::byte> salt, std::span<const std::byte> info,
                 std::span<std::byte> out) {
  FL_CHECK(info.size() <= 1024 && !out.empty() && out.size() <= 255 * 32, "HKDF's info or output is too long");
  // Looked up once: a lookup costs more than the derivation.
  static const Kdf algorithm(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
  if (!algorithm) fail("HKDF");
  const KdfContext context(EVP_KDF_CTX_new(algorithm.get()));
  if (!context) fail("HKDF");
  char digest[] = "SHA256";
  const auto octets = [](const char* name, std::span<const std::byte> bytes) {
    return OSSL_PARAM_construct_octet_string(name, const_cast<unsigned char*>(data_of(bytes)), bytes.size());
  };
  const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
                                   octets(OSSL_KDF_PARAM_KEY, key), octets(OSSL_KDF_PARAM_SALT, salt),
                                   octets(OSSL_KDF_PARAM_INFO, info), OSSL_PARAM_construct_end()};
  if (EVP_KDF_derive(context.get(), room_of(out), out.size(), parameters) != 1) fail("HKDF");
}

struct X25519Key::State {
  Key key;
  KeyContext context;  ///< ready to agree; looking the algorithm up each time would cost more than a copy
};

X25519Key::X25519Key(const SecretKey& key) {
  Key private_half = private_key(EVP_PKEY_X25519, key, "an X25519 key");
  KeyContext context(EVP_PKEY_CTX_new(private_half.get(), nullptr));
  if (!context || EVP_PKEY_derive_init(context.get()) != 1) fail("X25519");
  state_ = std::make_unique<State>(State{std::move(private_half), std::move(context)});
}
X25519Key::~X25519Key() = default;  // OpenSSL wipes the key
X25519Key::X25519Key(X25519Key&&) noexcept = default;
X25519Key& X25519Key::operator=(X25519Key&&) noexcept = default;

PublicKey X25519Key::public_key() const { return public_half(state_->key.get(), "an X25519 key"); }

std::optional<SecretKey> X25519Key::agree(const PublicKey& peer) const {
  const Key peer_key(EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, nullptr, data_of(peer), peer.size()));
  const KeyContext context(EVP_PKEY_CTX_dup(state_->context.get()));
  // Any 32 bytes are a public key of X25519, so there is nothing to check it for.
  if (!peer_key || !context || EVP_PKEY_derive_set_peer_ex(context.get(), peer_key.get(), 0) != 1) fail("X25519");
  SecretKey shared;
  std::size_t size = SecretKey::kSize;
  const bool derived = EVP_PKEY_derive(context.get(), room_of(shared.bytes()), &size) == 1;
  // OpenSSL refuses a result of zeros by itself; that must not depend on its version.
  const PublicKey zeros{};
  if (!derived || equal_in_constant_time(shared.bytes(), zeros)) {
    ERR_clear_error();
    return std::nullopt;
  }
  FL_CHECK(size == SecretKey::kSize, "X25519 gives 32 bytes");
  return shared;
}

PublicKey ed25519_public(const SecretKey& seed) {
  return public_half(private_key(EVP_PKEY_ED25519, seed, "an Ed25519 key").get(), "an Ed25519 key");
}

Signature ed25519_sign(const SecretKey& seed, std::span<const std::byte> message) {
  const Key key = private_key(EVP_PKEY_ED25519, seed, "an Ed25519 key");
  const DigestContext context(EVP_MD_CTX_new());
  Signature signature;
  std::size_t size = signature.size();
  if (!context || EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1 ||
      EVP_DigestSign(context.get(), room_of(signature), &size, data_of(message), message.size()) != 1 ||
      size != signature.size()) {
    fail("an Ed25519 signature");
  }
  return signature;
}

bool ed25519_verify(const PublicKey& public_key, std::span<const std::byte> message, const Signature& signature) {
  const Key key(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, data_of(public_key), public_key.size()));
  const DigestContext context(EVP_MD_CTX_new());
  if (!key || !context || EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1) {
    fail("the check of an Ed25519 signature");
  }
  const bool good =
      EVP_DigestVerify(context.get(), data_of(signature), signature.size(), data_of(message), message.size()) == 1;
  ERR_clear_error();  // a wrong signature leaves its reason behind
  return good;
}

std::vector<std::byte> aes_gcm_seal(const SecretKey& key, const Nonce& nonce, std::span<const std::byte> aad,
                                    std::span<const std::byte> plain) {
  const CipherContext context(EVP_CIPHER_CTX_new());
  std::vector<std::byte> out(plain.size() + kTagBytes);
  int size = 0;
  if (!context ||
      EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, data_of(key.bytes()), data_of(nonce)) != 1 ||
      EVP_EncryptUpdate(context.get(), nullptr, &size, data_of(aad), as_int(aad.size())) != 1 ||
      EVP_EncryptUpdate(context.get(), room_of(out), &size, data_of(plain), as_int(plain.size())) != 1 ||
      size != as_int(plain.size()) || EVP_EncryptFinal_ex(context.get(), room_of(out) + size, &size) != 1 ||
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes, out.data() + plain.size()) != 1) {
    fail("AES-256-GCM");
  }
  return out;
}

std::optional<SecretBytes> aes_gcm_open(const SecretKey& key, const Nonce& nonce, std::span<const std::byte> aad,
                                        std::span<const std::byte> sealed) {
  if (sealed.size() < kTagBytes) return std::nullopt;
  const auto cipher = sealed.first(sealed.size() - kTagBytes);
  std::array<std::byte, kTagBytes> tag;
  std::ranges::copy(sealed.last(kTagBytes), tag.begin());
  const CipherContext context(EVP_CIPHER_CTX_new());
  SecretBytes plain(cipher.size() + 1);  // not empty: a null pointer would mean AAD
  int size = 0;
  if (!context ||
      EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, data_of(key.bytes()), data_of(nonce)) != 1 ||
      EVP_DecryptUpdate(context.get(), nullptr, &size, data_of(aad), as_int(aad.size())) != 1 ||
      EVP_DecryptUpdate(context.get(), room_of(plain.bytes()), &size, data_of(cipher), as_int(cipher.size())) != 1 ||
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kTagBytes, tag.data()) != 1) {
    fail("AES-256-GCM");
  }
  if (EVP_DecryptFinal_ex(context.get(), room_of(plain.bytes()) + cipher.size(), &size) != 1) {
    ERR_clear_error();
    return std::nullopt;
  }
  return SecretBytes(plain.bytes().first(cipher.size()));
}

}  // namespace fl::primitives
