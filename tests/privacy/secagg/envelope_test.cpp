#include "privacy/secagg/envelope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fl_core/base/error.h"
#include "fl_core/base/rng.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using testing::HasSubstr;

/// A credential is a key; the byte 0xff at its front is refused.
class Judge final : public CredentialJudge {
 public:
  PublicKey enrolled_key(std::span<const std::byte> credential) const override {
    PublicKey key{};
    if (credential.size() != key.size() || credential[0] == std::byte{0xff}) throw ProtocolError("not enrolled");
    std::copy(credential.begin(), credential.end(), key.begin());
    return key;
  }
};

std::vector<std::byte> credential(unsigned char first) {
  std::vector<std::byte> bytes(32);
  bytes[0] = static_cast<std::byte>(first);
  return bytes;
}

TEST(Envelope, GivesBackWhatWentIn) {
  const std::vector<Credential> credentials = {{3, credential(1)}, {UINT64_MAX, {}}};
  const SecAggBytes roster = {std::byte{7}, std::byte{8}};
  const SecAggBytes bytes = encode_envelope(credentials, roster);
  const Envelope envelope = decode_envelope(bytes);
  ASSERT_EQ(envelope.credentials.size(), 2U);
  EXPECT_EQ(envelope.credentials[0].first, 3U);
  EXPECT_TRUE(std::equal(envelope.credentials[0].second.begin(), envelope.credentials[0].second.end(), credentials[0].second.begin()));
  EXPECT_EQ(envelope.credentials[1].first, UINT64_MAX);
  EXPECT_TRUE(envelope.credentials[1].second.empty());
  EXPECT_TRUE(std::equal(envelope.roster.begin(), envelope.roster.end(), roster.begin(), roster.end()));
}

TEST(Envelope, EveryTruncationIsRefusedOrShortensTheRoster) {
  const SecAggBytes bytes = encode_envelope(std::vector<Credential>{{1, credential(1)}, {2, credential(2)}}, {});
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(decode_envelope(SecAggView(bytes).first(size)), ProtocolError) << size;
  }
  EXPECT_NO_THROW(decode_envelope(bytes));
}

TEST(Envelope, ClaimsBeyondTheBytesAreRefused) {
  SecAggBytes bytes = encode_envelope(std::vector<Credential>{{1, credential(1)}}, {});
  bytes[12] = bytes[13] = std::byte{0xff};  // the credential's length
  EXPECT_THAT(test::error_of([&] { decode_envelope(bytes); }), HasSubstr("client 1 has a credential of 65535 bytes"));
  const SecAggBytes many(4, std::byte{0xff});
  EXPECT_THAT(test::error_of([&] { decode_envelope(many); }), HasSubstr("credentials of 4294967295 clients"));
  Rng rng(5, Purpose::synthetic_data);
  for (int i = 0; i < 20'000; ++i) {
    SecAggBytes noise(rng.below(200));
    for (std::byte& byte : noise) byte = static_cast<std::byte>(rng.below(4));
    try {
      decode_envelope(noise);
    } catch (const ProtocolError&) {
    }
  }
}

TEST(KnownPeers, OneIdentityIsOneClient) {
  const Judge judge;
  KnownPeers peers;
  peers.add(1, credential(1), judge);
  EXPECT_THAT(test::error_of([&] { peers.add(2, credential(1), judge); }), HasSubstr("client 2 has the identity of another client of the round"));
  EXPECT_THAT(test::error_of([&] { peers.add(1, credential(2), judge); }), HasSubstr("client 1 comes twice"));
  EXPECT_THAT(test::error_of([&] { peers.add(3, credential(0xff), judge); }), HasSubstr("not enrolled"));
  EXPECT_FALSE(peers.identity_key(2));
  EXPECT_FALSE(peers.identity_key(3));
  ASSERT_TRUE(peers.identity_key(1));
  peers.remove(1);
  EXPECT_FALSE(peers.identity_key(1));
  peers.add(2, credential(1), judge);
  EXPECT_TRUE(peers.identity_key(2));
}

}  // namespace
}  // namespace fl
