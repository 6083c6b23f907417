#include "privacy/secagg/shamir.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <vector>

#include "fl_core/base/error.h"
#include "tests/privacy/noise/statistics.h"
#include "tests/privacy/secagg/support.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::bytes_of;
using testing::HasSubstr;

std::vector<ShamirShare> some_of(const std::vector<ShamirShare>& shares, unsigned subset) {
  std::vector<ShamirShare> out;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    if ((subset >> i & 1) != 0) out.push_back({shares[i].x, shares[i].value.copy()});
  }
  return out;
}

std::vector<ShamirShare> copy(const std::vector<ShamirShare>& shares) { return some_of(shares, ~0U); }

std::string combined(const std::vector<ShamirShare>& shares, std::uint32_t threshold, std::size_t bytes = 32) {
  return to_hex(shamir_combine(shares, threshold, bytes).bytes());
}

TEST(Shamir, RebuildsTheVectorOfFederatedComputeFromAnyThree) {
  const auto vector = test::test_data("secagg_vectors.json").at("shamir");
  std::vector<ShamirShare> shares;
  for (const auto& value : vector.at("shares")) {
    std::vector<std::byte> bytes;
    for (const int byte : value) bytes.push_back(static_cast<std::byte>(byte));
    shares.push_back({static_cast<std::uint32_t>(shares.size() + 1), SecretBytes(std::span<const std::byte>(bytes))});
  }
  ASSERT_EQ(shares.size(), 5U);
  for (unsigned subset = 0; subset < 32; ++subset) {
    if (std::popcount(subset) < 3) continue;
    EXPECT_EQ(combined(some_of(shares, subset), 3, 4), "00000021") << subset;  // bytes 0, 0, 0, 33
  }
}

TEST(Shamir, RebuildsFromEverySubsetAndTellsFewerNothing) {
  RandomBits bits(test::key_of(1));
  const SecretKey secret = test::secret_of(0xfedcba9876543210);
  for (std::uint32_t n = 2; n <= 6; ++n) {
    for (std::uint32_t t = 2; t <= n; ++t) {
      const auto shares = shamir_split(secret.bytes(), n, t, bits);
      ASSERT_EQ(shares.size(), n);
      for (unsigned subset = 0; subset < 1U << n; ++subset) {
        const auto some = some_of(shares, subset);
        if (some.size() >= t) {
          EXPECT_EQ(combined(some, t), to_hex(secret.bytes())) << n << " " << t << " " << subset;
        } else {
          EXPECT_THROW(shamir_combine(some, t, 32), ProtocolError);
          // Taken for a polynomial of lower degree they rebuild something, but not the secret.
          if (some.size() >= 2) {
            try {
              EXPECT_NE(combined(some, static_cast<std::uint32_t>(some.size())), to_hex(secret.bytes()));
            } catch (const ProtocolError&) {
            }
          }
        }
      }
    }
  }
}

TEST(Shamir, RebuildsSecretsOfEverySizeAndTheExtremeOnes) {
  RandomBits bits(test::key_of(2));
  for (std::size_t size = 1; size <= 64; ++size) {
    for (const int fill : {0x00, 0xff, 0x80, 0x01}) {
      const std::vector<std::byte> secret(size, static_cast<std::byte>(fill));
      auto shares = shamir_split(secret, 4, 3, bits);
      std::swap(shares[0], shares[3]);  // in any order
      EXPECT_EQ(shares[0].value.size(), shamir_share_bytes(size));
      EXPECT_EQ(combined(shares, 3, size), to_hex(secret));
    }
  }
  // 256 bits are 9 limbs of 31.
  EXPECT_EQ(shamir_share_bytes(32), 36U);
  EXPECT_EQ(shamir_share_bytes(31), 32U);
}

TEST(Shamir, RebuildsAtTheSizesOfRounds) {
  RandomBits bits(test::key_of(3));
  const SecretKey secret = test::secret_of(77);
  auto shares = shamir_split(secret.bytes(), 100, 51, bits);
  EXPECT_EQ(combined(shares, 51), to_hex(secret.bytes()));
  shares.erase(shares.begin(), shares.begin() + 49);
  EXPECT_EQ(combined(shares, 51), to_hex(secret.bytes()));
}

TEST(Shamir, SharesOneLimbByThePolynomialThatTheBitsGive) {
  // A secret below 2^31 is one limb: the share of x is secret + a x + b x² mod p with a, b the next two numbers below
  // p.
  constexpr std::uint64_t p = 2147483659;
  RandomBits bits(test::key_of(4));
  RandomBits same(test::key_of(4));
  const auto shares = shamir_split(bytes_of("0a0b0c"), 5, 3, bits);
  const std::uint64_t a = same.below(p);
  const std::uint64_t b = same.below(p);
  for (std::uint64_t x = 1; x <= 5; ++x) {
    const std::uint64_t y = (0x0a0b0c + a * x % p + b * (x * x) % p) % p;
    EXPECT_EQ(shares[x - 1].x, x);
    std::uint64_t value = 0;
    for (const std::byte byte : shares[x - 1].value.bytes()) value = value << 8 | std::to_integer<std::uint64_t>(byte);
    EXPECT_EQ(value, y);
  }
}

TEST(Shamir, SharesBelowTheThresholdLookUniform) {
  // The share of x = 1 of an all-zero secret, threshold 2: its first limb's 8 bits below the highest, in 256 bins.
  // 2^31 + 11 numbers over bins of 2^23: uniform up to 1 in 10^8.
  RandomBits bits(test::key_of(5));
  std::vector<double> counts(256);
  constexpr int kSplits = 50'000;
  const SecretKey zeros;
  for (int i = 0; i < kSplits; ++i) {
    const auto shares = shamir_split(zeros.bytes(), 2, 2, bits);
    const auto value = shares[0].value.bytes();
    counts[(std::to_integer<std::size_t>(value[0]) << 1 | std::to_integer<std::size_t>(value[1]) >> 7) & 255] += 1;
  }
  EXPECT_LT(test::chi_square_statistic(counts, std::vector<double>(256, kSplits / 256.0)), test::kOneInAMillion);
}

TEST(Shamir, FindsAnyWrongShareAboveTheThreshold) {
  RandomBits bits(test::key_of(6));
  const auto shares = shamir_split(test::secret_of(5).bytes(), 6, 4, bits);
  for (std::size_t wrong = 0; wrong < 6; ++wrong) {
    for (std::size_t byte = 3; byte < 36; byte += 4) {
      auto given = copy(shares);
      given[wrong].value.bytes()[byte] ^= std::byte{1};
      EXPECT_THROW(shamir_combine(given, 4, 32), ProtocolError) << wrong << " " << byte;
    }
  }
}

TEST(Shamir, FindsAWrongShareAtTheThresholdByTheFirstLimb) {
  // The first limb of 32 bytes has 8 bits. The third of shares 1 to 4 counts 1 · 2 · 4 / ((1 - 3)(2 - 3)(4 - 3)) = 4
  // times, so a change of 2^16 becomes one of 2^18.
  RandomBits bits(test::key_of(7));
  const auto shares = shamir_split(test::secret_of(5).bytes(), 4, 4, bits);
  auto given = copy(shares);
  given[2].value.bytes()[1] ^= std::byte{1};
  EXPECT_THAT(test::error_of([&] { shamir_combine(given, 4, 32); }),
              HasSubstr("the 4 shares rebuild no secret of 32 bytes"));
  given[2].value = shares[3].value.copy();
  EXPECT_THROW(shamir_combine(given, 4, 32), ProtocolError);
}

TEST(Shamir, FindsLimbsThatAreTooLarge) {
  // Equal values at 1 and 2 are a constant polynomial. 2^31 is below p, but no limb of 31 bits.
  for (std::size_t limb = 0; limb < 9; ++limb) {
    std::vector<ShamirShare> shares(2);
    for (std::uint32_t i = 0; i < 2; ++i) {
      shares[i] = {i + 1, SecretBytes(36)};
      shares[i].value.bytes()[4 * limb] = std::byte{0x80};
    }
    EXPECT_THROW(shamir_combine(shares, 2, 32), ProtocolError) << limb;
    for (auto& share : shares) share.value.bytes()[4 * limb] = std::byte{0};
    EXPECT_EQ(combined(shares, 2), std::string(64, '0')) << limb;
  }
}

TEST(Shamir, RefusesWhatIsNoShare) {
  RandomBits bits(test::key_of(8));
  const auto shares = shamir_split(test::secret_of(5).bytes(), 4, 3, bits);
  const auto error = [&](auto change) {
    auto given = copy(shares);
    change(given);
    EXPECT_THROW(shamir_combine(given, 3, 32), ProtocolError);
    return test::error_of([&] { shamir_combine(given, 3, 32); });
  };
  EXPECT_THAT(error([](auto& s) { s.resize(2); }), HasSubstr("2 shares, expected at least the threshold 3"));
  EXPECT_THAT(error([](auto& s) { s[1].x = 0; }), HasSubstr("share 0; expected a number from 1"));
  EXPECT_THAT(error([](auto& s) { s[1].x = 1'000'001; }), HasSubstr("share 1000001; expected"));
  EXPECT_THAT(error([](auto& s) { s[1].x = 4; }), HasSubstr("share 4 was given twice"));
  EXPECT_THAT(error([](auto& s) { s[1].value = SecretBytes(35); }), HasSubstr("share 2 has 35 bytes, expected 36"));
  EXPECT_THAT(error([](auto& s) { s[1].value = SecretBytes(); }), HasSubstr("share 2 has 0 bytes"));
  // 2^31 + 11 = 0x8000000b itself, where 0 is meant.
  EXPECT_THAT(error([](auto& s) {
                s[3].value = SecretBytes(36);
                s[3].value.bytes()[32] = std::byte{0x80};
                s[3].value.bytes()[35] = std::byte{0x0b};
              }),
              HasSubstr("share 4 holds a number that is not below 2^31 + 11"));
  EXPECT_THAT(error([](auto& s) { s[3].value.bytes()[35] ^= std::byte{1}; }),
              HasSubstr("share 4 contradicts the first 3 of 4"));
  EXPECT_THAT(error([](auto& s) { std::swap(s[0].x, s[1].x); }), HasSubstr("contradicts"));
}

TEST(Shamir, RefusesToSplitBadly) {
  RandomBits bits(test::key_of(9));
  const SecretKey secret;
  EXPECT_THROW(shamir_split(secret.bytes(), 3, 1, bits), Error);
  EXPECT_THROW(shamir_split(secret.bytes(), 3, 4, bits), Error);
  EXPECT_THROW(shamir_split({}, 3, 2, bits), Error);
  EXPECT_THROW(shamir_split(std::vector<std::byte>(65), 3, 2, bits), Error);
}

}  // namespace
}  // namespace fl
