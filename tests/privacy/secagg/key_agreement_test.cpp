#include "privacy/secagg/key_agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "fl_core/base/error.h"
#include "privacy/secagg/primitives.h"
#include "tests/privacy/secagg/support.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using testing::HasSubstr;

AgreementContext context_of(std::uint64_t own, std::uint64_t peer) {
  AgreementContext context;
  context.session = test::array_of<32>("bytes 40..5f");
  context.round = 0x0102030405060708;
  context.own = own;
  context.peer = peer;
  return context;
}

std::string agreed(const AgreementKeys& own, const AgreementKeys& peer, const AgreementContext& context) {
  return to_hex(own.agree(peer.public_key(), context).bytes());
}

TEST(KeyAgreement, GivesBothSidesTheSameKey) {
  const AgreementKeys alice(test::secret_of(1));
  const AgreementKeys bob = AgreementKeys::generate();
  EXPECT_EQ(agreed(alice, bob, context_of(3, 900)), agreed(bob, alice, context_of(900, 3)));
  EXPECT_EQ(agreed(alice, bob, context_of(900, 3)), agreed(bob, alice, context_of(3, 900)));
}

TEST(KeyAgreement, IsHkdfOfTheSecretBoundToEverythingInOrder) {
  // Built from the primitives, whose vectors primitives_test.cpp checks, with RFC 7748's key pairs.
  const auto v = test::crypto_vectors("X25519").front();
  const AgreementKeys alice(test::secret_of_hex(v["alice_private"]));
  const AgreementKeys bob(test::secret_of_hex(v["bob_private"]));
  const std::string label =
      "7472696275746172792073656361676720310"
      "0";  // "tributary secagg 1" and a zero byte
  std::string session;
  for (const std::byte byte : test::bytes_of("bytes 40..5f")) session += to_hex({&byte, 1});
  const auto info =
      test::bytes_of(label + session + "0807060504030201" + "02" + "2a000000" + "0300000000000000" +
                     v["bob_public"].get<std::string>() + "8403000000000000" + v["alice_public"].get<std::string>());
  SecretKey expected;
  primitives::hkdf_sha256(test::bytes_of(v["shared"]), {}, info, expected.bytes());
  auto context = context_of(900, 3);
  context.vector = 42;
  EXPECT_EQ(agreed(alice, bob, context), to_hex(expected.bytes()));
}

TEST(KeyAgreement, DependsOnEveryFieldAndKey) {
  const AgreementKeys alice(test::secret_of(1));
  const AgreementKeys bob(test::secret_of(2));
  std::set<std::string> keys;
  const auto add = [&](auto change) {
    auto context = context_of(3, 900);
    change(context);
    EXPECT_TRUE(keys.insert(agreed(alice, bob, context)).second) << keys.size();
  };
  add([](auto&) {});
  for (std::size_t i = 0; i < 32; ++i) add([i](auto& c) { c.session[i] ^= std::byte{1}; });
  for (unsigned i = 0; i < 64; ++i) add([i](auto& c) { c.round ^= std::uint64_t{1} << i; });
  add([](auto& c) { c.purpose = AgreementPurpose::share_sealing; });
  add([](auto& c) { std::swap(c.own, c.peer); });
  add([](auto& c) { c.own = 4; });
  add([](auto& c) { c.peer = 901; });
  add([](auto& c) { c.peer = 900 + (std::uint64_t{1} << 63); });
  for (unsigned i = 0; i < 32; ++i) add([i](auto& c) { c.vector ^= 1U << i; });
  EXPECT_TRUE(keys.insert(agreed(alice, AgreementKeys(test::secret_of(3)), context_of(3, 900))).second);
  EXPECT_TRUE(keys.insert(agreed(AgreementKeys(test::secret_of(3)), bob, context_of(3, 900))).second);
}

TEST(KeyAgreement, RefusesPointsOfLowOrder) {
  const AgreementKeys own(test::secret_of(1));
  for (const auto& v : test::crypto_vectors("X25519 must reject")) {
    for (const std::string point : v["public_keys"]) {
      const auto attempt = [&] { own.agree(test::array_of<32>(point), context_of(3, 900)); };
      EXPECT_THROW(attempt(), ProtocolError);
      EXPECT_THAT(test::error_of(attempt), HasSubstr("public key " + point + " of client 900 is a point of low order"));
    }
  }
}

TEST(KeyAgreement, RefusesItself) {
  const AgreementKeys own(test::secret_of(1));
  const AgreementKeys peer(test::secret_of(2));
  EXPECT_THROW(own.agree(own.public_key(), context_of(3, 900)), ProtocolError);
  EXPECT_THROW(own.agree(peer.public_key(), context_of(3, 3)), ProtocolError);
}

TEST(KeyAgreement, KeysCanBeRebuiltFromTheirSeed) {
  const AgreementKeys keys = AgreementKeys::generate();
  const AgreementKeys rebuilt(keys.seed().copy());
  EXPECT_EQ(rebuilt.public_key(), keys.public_key());
  EXPECT_NE(AgreementKeys::generate().public_key(), keys.public_key());
}

TEST(SelfMaskKey, IsHkdfBoundToEverything) {
  const SecretKey seed = test::secret_of(1);
  const SessionId session = test::array_of<32>("bytes 40..5f");
  std::string session_hex = to_hex(session);
  const auto info = test::bytes_of(
      "747269627574617279207365636167672031"
      "2073656c66"
      "00" +
      session_hex + "0500000000000000" + "02000000" + "0700000000000000");
  SecretKey expected;
  primitives::hkdf_sha256(seed.bytes(), {}, info, expected.bytes());
  EXPECT_EQ(to_hex(self_mask_key(seed, session, 5, 7, 2).bytes()), to_hex(expected.bytes()));
  SessionId other = session;
  other[31] ^= std::byte{1};
  const std::set<std::string> keys{to_hex(self_mask_key(seed, session, 5, 7).bytes()),
                                   to_hex(self_mask_key(seed, session, 6, 7).bytes()),
                                   to_hex(self_mask_key(seed, session, 5, 8).bytes()),
                                   to_hex(self_mask_key(seed, session, 5, 7, 1).bytes()),
                                   to_hex(self_mask_key(seed, other, 5, 7).bytes()),
                                   to_hex(self_mask_key(test::secret_of(2), session, 5, 7).bytes())};
  EXPECT_EQ(keys.size(), 6U);
}

}  // namespace
}  // namespace fl
