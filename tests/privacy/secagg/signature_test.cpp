#include "privacy/secagg/signature.h"

#include <gtest/gtest.h>

#include "fl_core/base/error.h"
#include "tests/privacy/secagg/support.h"

namespace fl {
namespace {

TEST(SigningKey, SignsTheDomainAZeroByteAndTheBytes) {
  // From the primitive, whose vectors primitives_test.cpp checks.
  const SigningKey key(test::secret_of(1));
  EXPECT_EQ(key.public_key(), primitives::ed25519_public(test::secret_of(1)));
  const auto message = test::bytes_of("0102");
  EXPECT_EQ(to_hex(key.sign("ab", message)),
            to_hex(primitives::ed25519_sign(test::secret_of(1), test::bytes_of("6162000102"))));
}

TEST(SigningKey, SignaturesHoldForTheirKeyDomainAndBytesOnly) {
  const SigningKey key = SigningKey::generate();
  const auto message = test::bytes_of("bytes 00..3f");
  const Signature signature = key.sign("advert", message);
  EXPECT_TRUE(verify_signature(key.public_key(), "advert", message, signature));
  EXPECT_FALSE(verify_signature(key.public_key(), "adver", message, signature));
  EXPECT_FALSE(verify_signature(key.public_key(), "survivors", message, signature));
  EXPECT_FALSE(verify_signature(SigningKey::generate().public_key(), "advert", message, signature));
  EXPECT_FALSE(verify_signature(key.public_key(), "advert", {}, signature));
  for (std::size_t i = 0; i < message.size(); ++i) {
    auto other = message;
    other[i] ^= std::byte{1};
    EXPECT_FALSE(verify_signature(key.public_key(), "advert", other, signature)) << i;
  }
  for (std::size_t i = 0; i < signature.size(); ++i) {
    auto other = signature;
    other[i] ^= std::byte{1};
    EXPECT_FALSE(verify_signature(key.public_key(), "advert", message, other)) << i;
  }
  // A shifted border between domain and bytes.
  std::vector<std::byte> shifted = test::bytes_of("74");  // "t"
  shifted.insert(shifted.end(), message.begin(), message.end());
  EXPECT_FALSE(verify_signature(key.public_key(), "adver", shifted, signature));
}

TEST(SigningKey, RefusesSignaturesThatAreNotReduced) {
  // RFC 8032 section 5.1.7: s must be below the group's order L, or one signature could be changed into another. s + L
  // for the signature of test 2, L = 2^252 + 27742317777372353535851937790883648493.
  const auto v = test::crypto_vectors("Ed25519").back();
  auto signature = test::array_of<64>(v["signature"]);
  const auto order = test::bytes_of("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
  unsigned carry = 0;
  for (std::size_t i = 0; i < 32; ++i) {
    carry += std::to_integer<unsigned>(signature[32 + i]) + std::to_integer<unsigned>(order[i]);
    signature[32 + i] = static_cast<std::byte>(carry & 255);
    carry >>= 8;
  }
  ASSERT_EQ(carry, 0U);
  EXPECT_FALSE(primitives::ed25519_verify(test::array_of<32>(v["public"]), test::bytes_of(v["message"]), signature));
}

TEST(SigningKey, RefusesDomainsThatAreAmbiguous) {
  const SigningKey key(test::secret_of(1));
  EXPECT_THROW(key.sign("", {}), Error);
  EXPECT_THROW(key.sign(std::string_view("a\0b", 3), {}), Error);
}

}  // namespace
}  // namespace fl
