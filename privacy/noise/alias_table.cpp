#include "privacy/noise/alias_table.h"

#include <cstddef>

#include "fl_core/base/error.h"

namespace fl {

AliasTable::AliasTable(std::span<const uint128> weights, int index_bits, int offset_bits)
    : offset_bits_(offset_bits),
      slot_mask_((std::uint32_t{1} << index_bits) - 1),
      slots_(weights.size()),
      keep_(weights.size(), ~std::uint64_t{0}) {
  FL_CHECK(weights.size() == std::size_t{1} << index_bits, "an alias table needs 2^index_bits weights");
  FL_CHECK(index_bits <= 15 && index_bits + offset_bits < 64, "an alias table leaves too few bits to decide with");
  // Every slot has room for 2^64; what a poor slot leaves empty is filled by one rich slot, its alias.
  constexpr uint128 kRoom = uint128{1} << 64;
  std::vector<uint128> left(weights.begin(), weights.end());
  std::vector<std::uint32_t> poor;
  std::vector<std::uint32_t> rich;
  uint128 sum = 0;
  for (std::uint32_t i = 0; i < left.size(); ++i) {
    sum += left[i];
    (left[i] < kRoom ? poor : rich).push_back(i);
  }
  FL_CHECK(sum == kRoom << index_bits, "the weights of an alias table must sum to 2^(64 + index_bits)");
  while (!poor.empty() && !rich.empty()) {
    const std::uint32_t slot = poor.back();
    const std::uint32_t alias = rich.back();
    poor.pop_back();
    keep_[slot] = static_cast<std::uint64_t>(left[slot]);
    slots_[slot] = (slot ^ alias) << 16;
    left[alias] -= kRoom - left[slot];
    if (left[alias] < kRoom) {
      rich.pop_back();
      poor.push_back(alias);
    }
  }
  // The sum is exact, so whoever is left is exactly full and keeps its slot whatever the threshold (its alias is itself).
  for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i] |= static_cast<std::uint32_t>(keep_[i] >> 48);
}

std::uint32_t AliasTable::refine(std::uint32_t slot, RandomBits& bits) const {
  return bits.next_u64() < keep_[slot] << 16 ? slot : slot ^ slots_[slot] >> 16;
}

}  // namespace fl
