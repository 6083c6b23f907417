#include "privacy/noise/random_bits.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/base/hex.h"
#include "tests/privacy/noise/statistics.h"

namespace fl {
namespace {

using Block = std::array<std::byte, 16>;

NoiseKey key_of_hex(const std::string& hex) {
  NoiseKey key{};
  const auto bytes = from_hex(hex);
  std::copy(bytes->begin(), bytes->end(), key.begin());
  return key;
}

/// AES-256 of one block, through ECB.
Block encrypt(const NoiseKey& key, const Block& plain) {
  Block out{};
  int size = 0;
  EVP_CIPHER_CTX* cipher = EVP_CIPHER_CTX_new();
  EVP_EncryptInit_ex(cipher, EVP_aes_256_ecb(), nullptr, reinterpret_cast<const unsigned char*>(key.data()), nullptr);
  EVP_CIPHER_CTX_set_padding(cipher, 0);
  EVP_EncryptUpdate(cipher, reinterpret_cast<unsigned char*>(out.data()), &size, reinterpret_cast<const unsigned char*>(plain.data()), 16);
  EVP_CIPHER_CTX_free(cipher);
  return out;
}

Block next_block(RandomBits& bits) {
  Block block{};
  for (std::size_t i = 0; i < 16; i += 8) {
    const std::uint64_t word = bits.next_u64();
    for (std::size_t j = 0; j < 8; ++j) block[i + j] = static_cast<std::byte>(word >> 8 * j);
  }
  return block;
}

TEST(RandomBits, BeginWithTheKnownEncryptionOfZero) {
  // NIST AESAVS appendix C.3, KeySbox for AES-256: the encryption of an all-zero block, which is the first counter.
  RandomBits first(key_of_hex("c47b0294dbbbee0fec4757f22ffeee3587ca4730c3d33b691df38bab076bc558"));
  EXPECT_EQ(to_hex(next_block(first)), "46f2fb342d6f0ab477476fc501242c5f");
  RandomBits second(key_of_hex("28d46cffa158533194214a91e712fc2b45b518076675affd910edeca5f41ac64"));
  EXPECT_EQ(to_hex(next_block(second)), "4bf3b0a69aeb6657794f2901b1440ad4");
}

TEST(RandomBits, AreTheEncryptedCounterInEveryBlock) {
  // ECB is the reference, first checked itself against the output block of NIST SP 800-38A F.5.5 (CTR-AES256) for its counter.
  // 3000 blocks of 16 bytes go over the edge of the buffer twice.
  const NoiseKey key = key_of_hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
  Block counter{};
  for (std::size_t i = 0; i < 16; ++i) counter[i] = static_cast<std::byte>(0xf0 + i);
  ASSERT_EQ(to_hex(encrypt(key, counter)), "0bdf7df1591716335e9a8b15c860c502") << "the reference itself";
  RandomBits bits(key);
  for (unsigned i = 0; i < 3000; ++i) {
    Block block{};
    block[14] = static_cast<std::byte>(i >> 8);
    block[15] = static_cast<std::byte>(i);
    ASSERT_EQ(to_hex(next_block(bits)), to_hex(encrypt(key, block))) << i;
  }
}

TEST(RandomBits, AreTheSameWordByWordAndInBulk) {
  RandomBits one(test::key_of(1));
  RandomBits bulk(test::key_of(1));
  // Sizes around the buffer of 2048 words, from an empty, a partly used and a full one.
  for (const std::size_t size : {0, 1, 2047, 2048, 2049, 5000, 3, 4096, 8192, 1}) {
    std::vector<std::uint64_t> words(size);
    bulk.fill(words);
    for (const std::uint64_t word : words) ASSERT_EQ(word, one.next_u64());
  }
  RandomBits moved = std::move(bulk);
  EXPECT_EQ(moved.next_u64(), one.next_u64());
  EXPECT_NE(RandomBits(test::key_of(1)).next_u64(), RandomBits(test::key_of(2)).next_u64());
}

TEST(RandomBits, BelowIsUniformWhereRejectionMatters) {
  // Without rejection, of 3 · 2^62 values those whose product overflows first would come twice as often: a third too many.
  RandomBits bits(test::key_of(3));
  constexpr std::uint64_t kBound = 3ULL << 62;
  std::vector<double> counts(6);
  constexpr int kDraws = 600'000;
  for (int i = 0; i < kDraws; ++i) {
    const std::uint64_t value = bits.below(kBound);
    ASSERT_LT(value, kBound);
    counts[value % 3 + (value >= kBound / 2 ? 3 : 0)] += 1;
  }
  EXPECT_LT(test::chi_square_statistic(counts, std::vector<double>(6, kDraws / 6.0)), test::kOneInAMillion);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(bits.below(1), 0U);
  EXPECT_THROW(bits.below(0), Error);
}

TEST(RandomBits, BelowIsUniformForSmallBounds) {
  RandomBits bits(test::key_of(4));
  std::vector<double> counts(7);
  for (int i = 0; i < 700'000; ++i) counts[bits.below(7)] += 1;
  EXPECT_LT(test::chi_square_statistic(counts, std::vector<double>(7, 100'000)), test::kOneInAMillion);
}

TEST(RandomBits, CoinsAreTheBitsOfWords) {
  RandomBits coins(test::key_of(5));
  RandomBits words(test::key_of(5));
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t word = words.next_u64();
    for (int bit = 0; bit < 64; ++bit) ASSERT_EQ(coins.coin(), (word >> bit & 1) != 0) << i << " " << bit;
  }
}

}  // namespace
}  // namespace fl
