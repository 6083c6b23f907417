#include "privacy/secagg/sealed_share.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "fl_core/base/error.h"
#include "privacy/secagg/primitives.h"
#include "tests/privacy/noise/statistics.h"
#include "tests/privacy/secagg/support.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using testing::HasSubstr;

SealedAddress address() {
  SealedAddress out;
  out.session = test::array_of<32>("bytes 40..5f");
  out.round = 5;
  out.from = 7;
  out.to = 9;
  return out;
}

struct SealedShare : testing::Test {
  SecretKey key = test::secret_of(1);
  RandomBits nonces{test::key_of(1)};
  std::vector<std::byte> plain = test::bytes_of("bytes 00..47");  // two shares of 36 bytes
  std::vector<std::byte> sealed = seal(key, address(), plain, nonces);
};

TEST_F(SealedShare, OpensWhereItBelongs) {
  EXPECT_EQ(to_hex(open_sealed(key, address(), sealed).bytes()), to_hex(plain));
  EXPECT_EQ(sealed.size(), plain.size() + kSealedExtraBytes);
  const auto nothing = seal(key, address(), {}, nonces);
  EXPECT_EQ(open_sealed(key, address(), nothing).size(), 0U);
}

TEST_F(SealedShare, IsAesGcmBoundToTheAddress) {
  // From the primitive, whose vectors primitives_test.cpp checks: "tributary secagg 1 sealed", zero, and the fields.
  const auto nonce = test::array_of<12>(to_hex(std::span(sealed).first(12)));
  const auto aad = test::bytes_of(
      "747269627574617279207365636167672031"
      "207365616c6564"
      "00" +
      to_hex(address().session) +
      "0500000000000000"
      "0700000000000000"
      "0900000000000000"
      "01");
  EXPECT_EQ(to_hex(std::span(sealed).subspan(12)), to_hex(primitives::aes_gcm_seal(key, nonce, aad, plain)));
}

TEST_F(SealedShare, DoesNotOpenWithAnyBitChanged) {
  for (std::size_t byte = 0; byte < sealed.size(); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      auto changed = sealed;
      changed[byte] ^= static_cast<std::byte>(1 << bit);
      EXPECT_THROW(open_sealed(key, address(), changed), ProtocolError) << byte << " " << bit;
    }
  }
}

TEST_F(SealedShare, DoesNotOpenAtAnyOtherLength) {
  for (std::size_t size = 0; size < sealed.size(); ++size) {
    EXPECT_THROW(open_sealed(key, address(), std::span(sealed).first(size)), ProtocolError) << size;
    EXPECT_THROW(open_sealed(key, address(), std::span(sealed).last(size)), ProtocolError) << size;
  }
  auto longer = sealed;
  longer.push_back(std::byte{0});
  EXPECT_THROW(open_sealed(key, address(), longer), ProtocolError);
  EXPECT_THAT(test::error_of([&] { open_sealed(key, address(), std::span(sealed).first(27)); }),
              HasSubstr("from client 7 to 9 in round 5: 27 bytes, expected at least 28"));
}

TEST_F(SealedShare, DoesNotOpenAtAnyOtherAddress) {
  const auto opens = [&](auto change) {
    auto other = address();
    change(other);
    return test::error_of([&] { open_sealed(key, other, sealed); });
  };
  EXPECT_EQ(opens([](auto&) {}), "");
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_THAT(opens([i](auto& a) { a.session[i] ^= std::byte{1}; }), HasSubstr("does not open"));
  }
  for (unsigned i = 0; i < 64; ++i) {
    EXPECT_THAT(opens([i](auto& a) { a.round ^= std::uint64_t{1} << i; }), HasSubstr("does not open"));
    EXPECT_THAT(opens([i](auto& a) { a.from ^= std::uint64_t{1} << i; }), HasSubstr("does not open"));
    EXPECT_THAT(opens([i](auto& a) { a.to ^= std::uint64_t{1} << i; }), HasSubstr("does not open"));
  }
  EXPECT_THAT(opens([](auto& a) { std::swap(a.from, a.to); }),
              HasSubstr("from client 9 to 7 in round 5 does not open"));
  EXPECT_THAT(opens([](auto& a) { a.type = static_cast<SealedType>(2); }), HasSubstr("does not open"));
}

TEST_F(SealedShare, DoesNotOpenWithAnotherKey) {
  for (std::size_t i = 0; i < 32; ++i) {
    SecretKey other = key.copy();
    other.bytes()[i] ^= std::byte{1};
    EXPECT_THROW(open_sealed(other, address(), sealed), ProtocolError);
  }
}

TEST_F(SealedShare, TakesANewNonceEachTime) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const auto again = seal(key, address(), plain, nonces);
    seen.insert(to_hex(std::span(again).first(12)));
  }
  EXPECT_EQ(seen.size(), 1000U);
  RandomBits same{test::key_of(1)};
  EXPECT_EQ(seal(key, address(), plain, same), sealed) << "equal random bits, equal bytes";
}

}  // namespace
}  // namespace fl
