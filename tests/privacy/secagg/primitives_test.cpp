#include "privacy/secagg/primitives.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <string>
#include <vector>

#include "privacy/noise/random_bits.h"
#include "tests/privacy/secagg/support.h"

namespace fl {
namespace {

using nlohmann::json;
using primitives::X25519Key;
using test::array_of;
using test::bytes_of;
using test::crypto_vectors;
using test::secret_of_hex;

const unsigned char* raw(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

/// One of OpenSSL's ciphers on its own, as mask.h and the model store use them.
std::string encrypt(const char* cipher, const std::string& key, const std::string& iv, std::span<const std::byte> plain,
                    const std::string& aad = "", std::size_t tag_bytes = 0) {
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  EVP_CIPHER* algorithm = EVP_CIPHER_fetch(nullptr, cipher, nullptr);
  EVP_CIPHER_CTX_set_flags(context, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
  std::vector<std::byte> out(plain.size() + 32);
  auto* room = reinterpret_cast<unsigned char*>(out.data());
  int size = 0;
  int more = 0;
  const auto key_bytes = bytes_of(key);
  const auto iv_bytes = bytes_of(iv);
  EXPECT_EQ(
      EVP_EncryptInit_ex2(context, algorithm, raw(key_bytes), iv_bytes.empty() ? nullptr : raw(iv_bytes), nullptr), 1);
  if (!aad.empty()) {
    EXPECT_EQ(EVP_EncryptUpdate(context, nullptr, &size, raw(bytes_of(aad)), static_cast<int>(aad.size() / 2)), 1);
  }
  EXPECT_EQ(EVP_EncryptUpdate(context, room, &size, raw(plain), static_cast<int>(plain.size())), 1);
  EXPECT_EQ(EVP_EncryptFinal_ex(context, room + size, &more), 1);
  if (tag_bytes > 0) {
    EXPECT_EQ(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, static_cast<int>(tag_bytes), room + size), 1);
  }
  EVP_CIPHER_free(algorithm);
  EVP_CIPHER_CTX_free(context);
  out.resize(static_cast<std::size_t>(size) + tag_bytes);
  return to_hex(out);
}

TEST(Primitives, AgreeByX25519AsInRfc7748) {
  for (const json& v : crypto_vectors("X25519")) {
    const X25519Key alice(secret_of_hex(v["alice_private"]));
    const X25519Key bob(secret_of_hex(v["bob_private"]));
    EXPECT_EQ(to_hex(alice.public_key()), v["alice_public"]);
    EXPECT_EQ(to_hex(bob.public_key()), v["bob_public"]);
    EXPECT_EQ(to_hex(alice.agree(bob.public_key()).value().bytes()), v["shared"]);
    EXPECT_EQ(to_hex(bob.agree(alice.public_key()).value().bytes()), v["shared"]);
  }
}

TEST(Primitives, IterateX25519AsInRfc7748) {
  for (const json& v : crypto_vectors("X25519 iterated")) {
    SecretKey k = secret_of_hex(v["start"]);
    PublicKey u = array_of<32>(v["start"]);
    for (int i = 1; i <= 1000; ++i) {
      SecretKey next = X25519Key(k).agree(u).value();
      std::ranges::copy(k.bytes(), u.begin());
      k = std::move(next);
      if (i == 1) {
        EXPECT_EQ(to_hex(k.bytes()), v["after_1"]);
      }
    }
    EXPECT_EQ(to_hex(k.bytes()), v["after_1000"]);
  }
}

TEST(Primitives, RefusePointsOfLowOrder) {
  std::size_t points = 0;
  for (const json& v : crypto_vectors("X25519 must reject")) {
    for (const std::string point : v["public_keys"]) {
      for (const int top : {0, 0x80}) {  // X25519 ignores the highest bit
        PublicKey key = array_of<32>(point);
        key[31] |= static_cast<std::byte>(top);
        EXPECT_FALSE(X25519Key(test::secret_of(1)).agree(key).has_value()) << point << " " << top;
        ++points;
      }
    }
  }
  EXPECT_EQ(points, 14U);
}

TEST(Primitives, DeriveByHkdfAsInRfc5869) {
  for (const json& v : crypto_vectors("HKDF-SHA256")) {
    std::vector<std::byte> out(v["length"].get<std::size_t>());
    primitives::hkdf_sha256(bytes_of(v["ikm"]), bytes_of(v["salt"]), bytes_of(v["info"]), out);
    EXPECT_EQ(to_hex(out), v["okm"]) << v["source"];
  }
}

TEST(Primitives, SignByEd25519AsInRfc8032) {
  for (const json& v : crypto_vectors("Ed25519")) {
    const SecretKey seed = secret_of_hex(v["seed"]);
    const auto message = bytes_of(v["message"]);
    const PublicKey key = primitives::ed25519_public(seed);
    EXPECT_EQ(to_hex(key), v["public"]);
    const auto signature = primitives::ed25519_sign(seed, message);
    EXPECT_EQ(to_hex(signature), v["signature"]);
    EXPECT_TRUE(primitives::ed25519_verify(key, message, signature));
  }
}

TEST(Primitives, SealByAesGcmAsInItsSpecification) {
  for (const json& v : crypto_vectors("AES-256-GCM")) {
    const SecretKey key = secret_of_hex(v["key"]);
    const auto nonce = array_of<primitives::kNonceBytes>(v["iv"]);
    const auto aad = bytes_of(v["aad"]);
    const auto sealed = primitives::aes_gcm_seal(key, nonce, aad, bytes_of(v["plaintext"]));
    EXPECT_EQ(to_hex(sealed), v.value("ciphertext", "") + v["tag"].get<std::string>()) << v["source"];
    EXPECT_EQ(to_hex(primitives::aes_gcm_open(key, nonce, aad, sealed).value().bytes()), v["plaintext"]);
  }
}

TEST(Primitives, OfOpenSslGiveTheOtherKnownAnswers) {
  for (const json& v : crypto_vectors("AES-256-CTR")) {
    EXPECT_EQ(encrypt("AES-256-CTR", v["key"], v["counter"], bytes_of(v["plaintext"])), v["ciphertext"]);
  }
  for (const json& v : crypto_vectors("ChaCha20-Poly1305")) {
    const std::string text = v["plaintext_utf8"];
    const std::string out =
        encrypt("ChaCha20-Poly1305", v["key"], v["nonce"], std::as_bytes(std::span(text)), v["aad"], 16);
    EXPECT_TRUE(out.starts_with(v["ciphertext_prefix"].get<std::string>())) << out;
    EXPECT_TRUE(out.ends_with(v["tag"].get<std::string>())) << out;
  }
  for (const json& v : crypto_vectors("AES-256 key wrap")) {
    EXPECT_EQ(encrypt("AES-256-WRAP", v["kek"], "", bytes_of(v["key_data"])), v["wrapped"]);
  }
  for (const json& v : crypto_vectors("AES-192 key wrap with padding")) {
    EXPECT_EQ(encrypt("AES-192-WRAP-PAD", v["kek"], "", bytes_of(v["key_data"])), v["wrapped"]);
  }
}

TEST(Primitives, ReadTheKnownStreamOfZeros) {
  for (const json& v : crypto_vectors("AES-256-CTR keystream")) {
    std::vector<std::uint64_t> stream(4);
    RandomBits(array_of<32>(v["key"])).fill(stream);
    EXPECT_EQ(to_hex(std::as_bytes(std::span(stream))), v["first_32_bytes"]);
  }
}

TEST(Primitives, AreAllCoveredByTheVectors) {
  // A primitive added to the file must be added to a test above.
  const std::vector<std::string> tested{
      "X25519",      "X25519 iterated",       "X25519 must reject", "HKDF-SHA256",      "ChaCha20-Poly1305",
      "AES-256-CTR", "AES-256-CTR keystream", "AES-256-GCM",        "AES-256 key wrap", "AES-192 key wrap with padding",
      "Ed25519"};
  const json data = test::test_data("crypto_vectors.json");
  EXPECT_EQ(data.at("vectors").size(), 16U);
  for (const json& v : data.at("vectors")) {
    EXPECT_TRUE(std::ranges::count(tested, v["primitive"].get<std::string>()) == 1) << v["primitive"];
  }
}

TEST(Primitives, PassTheirSelfTest) { EXPECT_NO_THROW(primitives::self_test()); }

}  // namespace
}  // namespace fl
