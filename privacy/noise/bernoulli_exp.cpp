#include "privacy/noise/bernoulli_exp.h"

#include <bit>

namespace fl {
namespace {

int width_of(uint128 value) {
  const auto high = static_cast<std::uint64_t>(value >> 64);
  return high != 0 ? 128 - std::countl_zero(high) : 64 - std::countl_zero(static_cast<std::uint64_t>(value));
}

/// A quotient in [0, 1] as it is compared with random bits: 2^64 times it lies between low and low + width.
struct Quotient {
  uint128 numerator;
  uint128 denominator;
  uint128 low;
  std::uint64_t width;

  Quotient(uint128 n, uint128 d) : numerator(n), denominator(d) {
    if (width_of(d) <= 64) {
      low = (n << 64) / d;
      width = 1;
      return;
    }
    // With the quotient n / d of the top parts, 62 bits or more: n / (d + 1) <= exact < (n + 1) / d, which is less than
    // 2^64 · (2d + 1) / (d (d + 1)) < 8 apart, and one more for the rounding.
    const int shift = width_of(d) - 63;
    low = ((n >> shift) << 64) / static_cast<std::uint64_t>((d >> shift) + 1);
    width = 10;
  }
};

/// Whether U · divisor < quotient for a uniform U whose first 64 bits are `first`: more bits are drawn until it shows.
bool decide(RandomBits& bits, const Quotient& quotient, std::uint64_t first, std::uint64_t divisor) {
  uint128 rest = quotient.numerator;
  const auto next_digit = [&] {
    rest <<= 1;
    const bool digit = rest >= quotient.denominator;
    if (digit) rest -= quotient.denominator;
    return digit;
  };
  // The quotient 1 would need a digit before the point.
  uint128 digits = rest == quotient.denominator ? 1 : 0;
  if (digits == 1) rest = 0;
  for (int i = 0; i < 64; ++i) digits = digits << 1 | static_cast<unsigned>(next_digit());
  // After n bits, 2^n (quotient - U · divisor) = difference + f - divisor · g with f and g in [0, 1).
  auto difference = static_cast<int128>(digits) - static_cast<int128>(uint128{first} * divisor);
  while (difference >= 0 && difference < static_cast<int128>(divisor)) {
    difference = 2 * difference + (next_digit() ? 1 : 0) - (bits.coin() ? static_cast<int128>(divisor) : 0);
  }
  return difference > 0;
}

bool compare(RandomBits& bits, std::uint64_t first, const Quotient& quotient, std::uint64_t divisor) {
  const uint128 lowest = uint128{first} * divisor;
  if (lowest + divisor <= quotient.low) return true;
  if (lowest >= quotient.low + quotient.width) return false;
  return decide(bits, quotient, first, divisor);
}

}  // namespace

bool is_below_quotient(RandomBits& bits, std::uint64_t first, uint128 numerator, uint128 denominator, std::uint64_t divisor) {
  return compare(bits, first, Quotient(numerator, denominator), divisor);
}

bool bernoulli_inverse_e(RandomBits& bits) {
  constexpr std::uint64_t kHigh = 0x5e2d58d8b3bcdf1a;  // 2^128 / e
  constexpr std::uint64_t kLow = 0xbadec7829054f90d;
  const std::uint64_t word = bits.next_u64();
  if (word == kHigh) [[unlikely]] return bits.next_u64() < kLow;
  return word < kHigh;
}

bool bernoulli_exp(RandomBits& bits, uint128 numerator, uint128 denominator) {
  if (numerator > denominator) {
    // Each whole unit of the exponent is one more chance to fail; most fail soon, however large the exponent.
    for (uint128 whole = numerator / denominator; whole > 0; --whole) {
      if (!bernoulli_inverse_e(bits)) return false;
    }
    numerator %= denominator;
  }
  const Quotient quotient(numerator, denominator);
  std::uint64_t tries = 1;
  while (compare(bits, bits.next_u64(), quotient, tries)) ++tries;
  return (tries & 1) != 0;
}

}  // namespace fl
