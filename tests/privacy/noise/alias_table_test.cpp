#include "privacy/noise/alias_table.h"

#include <gtest/gtest.h>

#include "fl_core/base/error.h"
#include "tests/privacy/noise/statistics.h"

namespace fl {
namespace {

constexpr uint128 kOne = uint128{1} << 64;

TEST(AliasTable, GivesEachIndexExactlyItsShareOfAllWords) {
  // Weights in multiples of 2^48, so the top 16 bits and the index bits say all. Offset 5: the index is in bits 5 and 6.
  const uint128 unit = uint128{1} << 48;
  const std::vector<uint128> weights = {3 * unit, kOne - unit, 0, 3 * kOne - 2 * unit};
  const AliasTable table(weights, 2, 5);
  RandomBits bits(test::key_of(1));
  std::vector<std::uint64_t> counts(4);
  std::vector<std::uint64_t> coarse(4);
  for (std::uint64_t word = 0; word < 4 * 65536; ++word) {
    const std::uint64_t spread = word >> 2 << 48 | (word & 3) << 5;
    // 11 lies above the index, where it must not matter.
    const std::uint32_t slot = (word & 3) != 0 ? static_cast<std::uint32_t>(word & 3) : 0U;
    const std::uint32_t entry = table.slots()[slot];
    ++coarse[word >> 2 >= (entry & 0xffff) ? slot ^ entry >> 16 : slot];
    ++counts[table.pick(spread | 11ULL << 40 | 31, bits)];
  }
  EXPECT_EQ(coarse, (std::vector<std::uint64_t>{3, 65535, 0, 3 * 65536 - 2}));
  EXPECT_EQ(counts, coarse);
}

TEST(AliasTable, DecidesByAnotherWordWhereSixteenBitsTie) {
  // Slot 0 keeps 5.25 of 65536 parts of its words: part 5 is a tie that 1 of 4 words keep.
  const uint128 kept = (uint128{21} << 48) / 4;
  const AliasTable table(std::vector<uint128>{kept, 2 * kOne - kept}, 1, 0);
  RandomBits bits(test::key_of(2));
  const auto zeros = [&](std::uint64_t part) {
    int count = 0;
    for (int i = 0; i < 100'000; ++i) count += table.pick(part << 48, bits) == 0 ? 1 : 0;
    return count;
  };
  EXPECT_EQ(zeros(4), 100'000);
  EXPECT_EQ(zeros(6), 0);
  EXPECT_NEAR(zeros(5), 25'000, 5 * 137) << "√(100000 / 4 · 3 / 4) = 137";
}

TEST(AliasTable, RefusesWeightsThatAreNoProbabilities) {
  EXPECT_NO_THROW(AliasTable(std::vector<uint128>{kOne, kOne}, 1, 0));
  EXPECT_THROW(AliasTable(std::vector<uint128>{kOne, kOne - 1}, 1, 0), Error);
  EXPECT_THROW(AliasTable(std::vector<uint128>{kOne, kOne, kOne}, 1, 0), Error);
  EXPECT_THROW(AliasTable(std::vector<uint128>{kOne, kOne}, 1, 63), Error);
}

TEST(AliasTable, DrawsManyIndicesInProportion) {
  // 2^15 indices of weight i + 1: the sum of all is 2^15 (2^15 + 1) / 2, scaled to 2^79 with the rest on the last.
  constexpr std::size_t kSize = 32768;
  std::vector<uint128> weights(kSize);
  uint128 left = kOne * kSize;
  for (std::size_t i = 0; i < kSize; ++i) {
    weights[i] = i + 1 == kSize ? left : kOne * (i + 1) * 2 / (kSize + 1);
    left -= weights[i];
  }
  const AliasTable table(weights, 15, 0);
  RandomBits bits(test::key_of(3));
  std::vector<double> counts(64);
  std::vector<double> expected(64);
  constexpr double kDraws = 1'000'000;
  for (std::size_t i = 0; i < kSize; ++i) expected[i / 512] += kDraws * static_cast<double>(i + 1) * 2 / (32768.0 * 32769.0);
  for (int i = 0; i < 1'000'000; ++i) counts[table.pick(bits.next_u64(), bits) / 512] += 1;
  EXPECT_LT(test::chi_square_statistic(counts, expected), test::kOneInAMillion);
}

}  // namespace
}  // namespace fl
