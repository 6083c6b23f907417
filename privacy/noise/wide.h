#pragma once

#include <bit>
#include <cstdint>

namespace fl {

__extension__ using uint128 = unsigned __int128;
__extension__ using int128 = __int128;

/// floor(a · b / 2^64).
inline std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b) {
  return static_cast<std::uint64_t>(uint128{a} * b >> 64);
}

/// floor(√value), bit by bit.
inline std::uint64_t square_root(uint128 value) {
  std::uint64_t root = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const std::uint64_t next = root | std::uint64_t{1} << bit;
    if (uint128{next} * next <= value) root = next;
  }
  return root;
}

}  // namespace fl
