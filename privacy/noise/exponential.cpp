#include "privacy/noise/exponential.h"

#include <bit>

namespace fl {

double exponential_rough(double x) {
  if (!(x <= 700)) return 0;
  // x = halvings · ln 2 + rest with |rest| <= 0.35; the first part of ln 2 has 32 bits, so its product is exact.
  const auto halvings = static_cast<std::int64_t>(x * 1.4426950408889634 + 0.5);
  const auto n = static_cast<double>(halvings);
  const double rest = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
  // Taylor; the first term left out is 0.35^14 / 14! = 2^-57.
  double sum = 1;
#pragma GCC unroll 13
  for (int term = 13; term >= 1; --term) sum = 1 - sum * rest * (1.0 / term);
  return sum * std::bit_cast<double>(static_cast<std::uint64_t>(1023 - halvings) << 52);
}

std::uint64_t exponential_precise(uint128 x) {
  constexpr uint128 kLn2 = uint128{0xb17217f7d1cf79} << 64 | 0xabc9e3b39803f2f6;  // ln 2 · 2^120
  auto halvings = static_cast<std::uint64_t>(x / kLn2);
  if (halvings > 63) return 0;
  // rest · 2^64 in [0, ln 2 · 2^64); what is cut off is below one unit.
  const auto rest = static_cast<std::uint64_t>((x - halvings * kLn2) >> 56);
  // Taylor in units of 2^-63: each term's rounding is divided by those before it, so the sum is off by less than two units,
  // and the first term left out is 0.7^24 / 24! = 2^-91.
  constexpr std::uint64_t kOne = std::uint64_t{1} << 63;
  std::uint64_t sum = kOne;
  for (std::uint64_t term = 23; term >= 1; --term) sum = kOne - multiply_high(rest, sum) / term;
  return sum >> (halvings + 1);
}

}  // namespace fl
