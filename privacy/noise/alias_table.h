#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "privacy/noise/random_bits.h"
#include "privacy/noise/wide.h"

namespace fl {

/// Draws an index with given probabilities in constant time from one random word (alias method, Walker 1977, Vose 1991), in
/// integers: index i comes with probability weights[i] / 2^(64 + index_bits) exactly.
///
/// Of the word, the top 16 bits decide between a slot and its alias; the lowest `offset_bits` are left to the caller, as
/// uniform bits that are independent of the index; the next `index_bits` choose the slot.
class AliasTable {
 public:
  /// REQUIRES: weights of length 2^index_bits that sum to 2^(64 + index_bits); index_bits <= 15, index_bits + offset_bits < 64.
  AliasTable(std::span<const uint128> weights, int index_bits, int offset_bits);

  /// For any weights. Where 16 bits leave the decision open, one more word is taken. REQUIRES: index_bits + offset_bits <= 48.
  std::uint32_t pick(std::uint64_t word, RandomBits& bits) const {
    const auto slot = static_cast<std::uint32_t>(word >> offset_bits_) & slot_mask_;
    const std::uint32_t entry = slots_[slot];
    if (word >> 48 == (entry & 0xffff)) [[unlikely]] return refine(slot, bits);
    // A mask rather than a branch, which would be mispredicted half of the time.
    return slot ^ ((std::uint32_t{0} - static_cast<std::uint32_t>(word >> 48 > (entry & 0xffff))) & entry >> 16);
  }

  /// For loops that pick themselves: by slot, slot xor alias in the high 16 bits, and in the low ones the least value of a
  /// word's top 16 bits that goes to the alias. That is exact for weights that are multiples of 2^48 or, where index and
  /// offset leave less than 16 bits, of 2^(64 - bits left).
  std::span<const std::uint32_t> slots() const { return slots_; }

 private:
  std::uint32_t refine(std::uint32_t slot, RandomBits& bits) const;

  int offset_bits_;
  std::uint32_t slot_mask_;
  std::vector<std::uint32_t> slots_;
  std::vector<std::uint64_t> keep_;  ///< probability to keep the slot, times 2^64
};

}  // namespace fl
