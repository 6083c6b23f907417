#include "privacy/secagg/mask.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <cstring>
#include <memory>
#include <set>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/base/hex.h"
#include "privacy/noise/random_bits.h"
#include "privacy/secagg/key_agreement.h"
#include "tests/privacy/noise/statistics.h"
#include "tests/privacy/secagg/support.h"

namespace fl {
namespace {

constexpr std::uint64_t low_bits(unsigned bits) {
  return bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
}

template <class Word>
std::vector<Word> numbers(std::size_t size, std::uint64_t key) {
  RandomBits bits(test::key_of(key));
  std::vector<Word> out(size);
  for (Word& value : out) value = static_cast<Word>(bits.next_u64());
  return out;
}

/// AES-256 of 0, 1, 2, … (big-endian, 128 bits), by ECB.
std::vector<std::byte> stream_by_hand(const SecretKey& key, std::size_t bytes) {
  std::vector<unsigned char> counters;
  std::array<unsigned char, 16> counter{};
  while (counters.size() < bytes) {
    counters.insert(counters.end(), counter.begin(), counter.end());
    for (std::size_t i = 16; i-- > 0 && ++counter[i] == 0;) {
    }
  }
  std::vector<std::byte> stream(counters.size() + 16);
  const std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> cipher(EVP_CIPHER_CTX_new(),
                                                                               &EVP_CIPHER_CTX_free);
  int size = 0;
  const auto* const first = reinterpret_cast<const unsigned char*>(key.bytes().data());
  if (EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_ecb(), nullptr, first, nullptr) != 1 ||
      EVP_EncryptUpdate(cipher.get(), reinterpret_cast<unsigned char*>(stream.data()), &size, counters.data(),
                        static_cast<int>(counters.size())) != 1) {
    throw std::runtime_error("AES-256-ECB failed");
  }
  return stream;
}

/// What mask.h describes, number by number: bytes of the stream, little-endian.
std::vector<std::uint64_t> mask_by_hand(const SecretKey& key, std::size_t size, unsigned bits) {
  const std::size_t bytes = (bits + 7) / 8;
  const auto stream = stream_by_hand(key, size * bytes);
  std::vector<std::uint64_t> out(size);
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t j = 0; j < bytes; ++j) out[i] |= std::to_integer<std::uint64_t>(stream[i * bytes + j]) << 8 * j;
    out[i] &= low_bits(bits);
  }
  return out;
}

template <class Word>
class Mask : public testing::Test {};
using Words = testing::Types<std::uint32_t, std::uint64_t>;
TYPED_TEST_SUITE(Mask, Words);

TYPED_TEST(Mask, IsTheStreamModuloTwoToTheBits) {
  const SecretKey key = test::secret_of(1);
  // Around blocks of 8192 bytes, and sizes that end within a block of AES.
  for (const std::size_t size : {0, 1, 15, 16, 17, 1023, 1024, 1025, 5001}) {
    for (unsigned bits = 1; bits <= 8 * sizeof(TypeParam); ++bits) {
      if (size > 17 && bits % 8 > 1) continue;
      const auto mask = mask_by_hand(key, size, bits);
      const auto plain = numbers<TypeParam>(size, 2);
      auto added = plain;
      add_mask(key, std::span(added), bits);
      auto subtracted = plain;
      subtract_mask(key, std::span(subtracted), bits);
      for (std::size_t i = 0; i < size; ++i) {
        ASSERT_EQ(added[i], (plain[i] + mask[i]) & low_bits(bits)) << size << " " << bits << " " << i;
        ASSERT_EQ(subtracted[i], (plain[i] - mask[i]) & low_bits(bits)) << size << " " << bits << " " << i;
      }
    }
  }
}

// NIST AESAVS appendix C.3 (KeySbox): AES-256 of zeros under this key.
TEST(Mask64, IsThePublishedStream) {
  const SecretKey key = test::secret_of_hex("c47b0294dbbbee0fec4757f22ffeee3587ca4730c3d33b691df38bab076bc558");
  std::vector<std::uint64_t> values(2);
  add_mask(key, std::span(values), 64);
  EXPECT_EQ(to_hex(std::as_bytes(std::span(values))), "46f2fb342d6f0ab477476fc501242c5f");
}

TYPED_TEST(Mask, ComesOffAgain) {
  for (unsigned bits = 1; bits <= 8 * sizeof(TypeParam); ++bits) {
    auto values = numbers<TypeParam>(3000, bits);
    for (TypeParam& value : values) value &= static_cast<TypeParam>(low_bits(bits));
    auto masked = values;
    add_mask(test::secret_of(1), std::span(masked), bits);
    if (bits >= 8) {
      EXPECT_NE(masked, values);
    }
    subtract_mask(test::secret_of(1), std::span(masked), bits);
    EXPECT_EQ(masked, values) << bits;
    subtract_mask(test::secret_of(1), std::span(masked), bits);
    add_mask(test::secret_of(1), std::span(masked), bits);
    EXPECT_EQ(masked, values) << bits;
  }
}

TYPED_TEST(Mask, OfManyKeysAtOnceIsTheSameAsOneByOneAndByRanges) {
  std::vector<SecretKey> keys;
  // So many that they do not go over the values at once, and an odd number of each sign.
  for (std::uint64_t i = 0; i < 261; ++i) keys.push_back(test::secret_of(i));
  std::vector<SignedMask> masks;
  for (const auto& key : keys) masks.push_back({&key, masks.size() % 3 == 1});
  for (const unsigned bits : {5U, 16U, 20U, 32U}) {
    const auto plain = numbers<TypeParam>(9000, 3);
    auto one_by_one = plain;
    for (const auto& mask : masks) {
      mask.subtract ? subtract_mask(*mask.key, std::span(one_by_one), bits)
                    : add_mask(*mask.key, std::span(one_by_one), bits);
    }
    auto at_once = plain;
    apply_masks(masks, std::span(at_once), bits);
    EXPECT_EQ(at_once, one_by_one) << bits;
    auto by_ranges = plain;
    const std::span all(by_ranges);
    apply_masks(masks, all.subspan(4112), bits, 4112);
    apply_masks(masks, all.subspan(16, 4096), bits, 16);
    apply_masks(masks, all.first(16), bits);
    EXPECT_EQ(by_ranges, one_by_one) << bits;
  }
}

TEST(Mask64, GoesByRangesFarFromTheBeginning) {
  // At number 2^36 the counter is 2^35: over 32 bits. Two ways to the same place.
  const SecretKey key = test::secret_of(1);
  const std::array<SignedMask, 1> masks{SignedMask{&key, false}};
  constexpr std::uint64_t kFar = std::uint64_t{1} << 36;
  std::vector<std::uint64_t> across(64);
  apply_masks(masks, std::span(across), 64, kFar - 32);
  std::vector<std::uint64_t> behind(32);
  apply_masks(masks, std::span(behind), 64, kFar);
  EXPECT_TRUE(std::ranges::equal(std::span(across).subspan(32), behind));
}

TEST(Mask64, IsTheSameAsThatOf32BitValuesWhereBothCan) {
  for (const unsigned bits : {7U, 16U, 21U, 27U}) {
    std::vector<std::uint64_t> wide(100);
    std::vector<std::uint32_t> narrow(100);
    add_mask(test::secret_of(1), std::span(wide), bits);
    add_mask(test::secret_of(1), std::span(narrow), bits);
    EXPECT_TRUE(std::ranges::equal(wide, narrow)) << bits;
  }
}

TEST(Mask64, CancelsBetweenAllPairs) {
  // Four clients; each adds the mask it shares with those after it and subtracts that with those before it.
  for (const unsigned bits : {17U, 64U}) {
    std::vector<AgreementKeys> clients;
    for (std::uint64_t i = 0; i < 4; ++i) clients.emplace_back(test::secret_of(100 + i));
    std::vector<std::uint64_t> sum(2500);
    std::vector<std::uint64_t> expected(2500);
    for (std::uint64_t own = 0; own < 4; ++own) {
      auto values = numbers<std::uint64_t>(2500, own);
      for (std::size_t i = 0; i < values.size(); ++i) expected[i] += values[i];
      for (std::uint64_t peer = 0; peer < 4; ++peer) {
        if (peer == own) continue;
        AgreementContext context;
        context.own = own;
        context.peer = peer;
        const SecretKey key = clients[own].agree(clients[peer].public_key(), context);
        own < peer ? add_mask(key, std::span(values), bits) : subtract_mask(key, std::span(values), bits);
      }
      for (std::size_t i = 0; i < values.size(); ++i) sum[i] += values[i];
    }
    for (std::size_t i = 0; i < sum.size(); ++i) ASSERT_EQ(sum[i] & low_bits(bits), expected[i] & low_bits(bits)) << i;
  }
}

TEST(Mask64, NeverUsesAStreamTwice) {
  // Every block of AES of every (session, round, pair, purpose, vector) and every self mask: all different. A stream
  // used twice, or shifted into another's, would repeat some. (By chance two of n random blocks of 128 bits agree with
  // n² / 2^129.)
  std::set<std::pair<std::uint64_t, std::uint64_t>> blocks;
  std::size_t count = 0;
  const auto add = [&](const SecretKey& key) {
    std::vector<std::uint64_t> values(64);
    add_mask(key, std::span(values), 64);
    for (std::size_t i = 0; i < values.size(); i += 2, ++count) blocks.emplace(values[i], values[i + 1]);
  };
  std::vector<AgreementKeys> clients;
  for (std::uint64_t i = 0; i < 3; ++i) clients.emplace_back(test::secret_of(i + 1));
  for (const int session : {0, 1}) {
    AgreementContext context;
    context.session[0] = static_cast<std::byte>(session);
    for (context.round = 0; context.round < 3; ++context.round) {
      for (context.vector = 0; context.vector < 2; ++context.vector) {
        for (context.own = 0; context.own < 3; ++context.own) {
          add(self_mask_key(test::secret_of(9), context.session, context.round, context.own, context.vector));
          for (context.peer = context.own + 1; context.peer < 3; ++context.peer) {
            for (const auto purpose : {AgreementPurpose::pairwise_mask, AgreementPurpose::share_sealing}) {
              context.purpose = purpose;
              add(clients[context.own].agree(clients[context.peer].public_key(), context));
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(count, 2U * 3 * 2 * (3 + 3 * 2) * 32);
  EXPECT_EQ(blocks.size(), count);
}

TEST(Mask64, MakesValuesUniform) {
  // Zeros under a mask of 12 bits in 4096 bins, as a server sees them.
  std::vector<std::uint64_t> values(400'000);
  add_mask(test::secret_of(11), std::span(values), 12);
  std::vector<double> counts(4096);
  for (const auto value : values) counts[value] += 1;
  EXPECT_LT(test::chi_square_statistic(counts, std::vector<double>(4096, 400'000 / 4096.0)), test::kOneInAMillion);
}

TEST(Mask64, RefusesBitsAndRangesThatAreNone) {
  const SecretKey key;
  std::vector<std::uint64_t> wide(4);
  std::vector<std::uint32_t> narrow(4);
  EXPECT_THROW(add_mask(key, std::span(wide), 0), Error);
  EXPECT_THROW(add_mask(key, std::span(wide), 65), Error);
  EXPECT_THROW(add_mask(key, std::span(narrow), 33), Error);
  EXPECT_THROW(apply_masks({}, std::span(wide), 64, 8), Error);
}

}  // namespace
}  // namespace fl
