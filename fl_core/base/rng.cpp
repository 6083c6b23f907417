#include "fl_core/base/rng.h"

#include <bit>
#include <cmath>
#include <utility>

#include "fl_core/base/error.h"

namespace fl {
namespace {

inline void quarter_round(std::uint32_t& a, std::uint32_t& b, std::uint32_t& c, std::uint32_t& d) {
  a += b; d ^= a; d = std::rotl(d, 16);
  c += d; b ^= c; b = std::rotl(b, 12);
  a += b; d ^= a; d = std::rotl(d, 8);
  c += d; b ^= c; b = std::rotl(b, 7);
}

constexpr double kPi = 3.14159265358979323846;

}  // namespace

void chacha20_block(const std::array<std::uint32_t, 8>& key, std::uint64_t counter, std::uint64_t nonce,
                    std::array<std::uint32_t, 16>& out) {
  const std::array<std::uint32_t, 16> start = {
      0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7],
      static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
      static_cast<std::uint32_t>(nonce), static_cast<std::uint32_t>(nonce >> 32)};
  auto x = start;
  for (int i = 0; i < 10; ++i) {
    quarter_round(x[0], x[4], x[8], x[12]);
    quarter_round(x[1], x[5], x[9], x[13]);
    quarter_round(x[2], x[6], x[10], x[14]);
    quarter_round(x[3], x[7], x[11], x[15]);
    quarter_round(x[0], x[5], x[10], x[15]);
    quarter_round(x[1], x[6], x[11], x[12]);
    quarter_round(x[2], x[7], x[8], x[13]);
    quarter_round(x[3], x[4], x[9], x[14]);
  }
  for (std::size_t i = 0; i < 16; ++i) out[i] = x[i] + start[i];
}

Rng::Rng(std::uint64_t seed, Purpose purpose, std::uint64_t round, std::uint64_t client) {
  const std::array<std::uint64_t, 4> words = {seed, static_cast<std::uint64_t>(purpose), round, client};
  for (std::size_t i = 0; i < 4; ++i) {
    key_[2 * i] = static_cast<std::uint32_t>(words[i]);
    key_[2 * i + 1] = static_cast<std::uint32_t>(words[i] >> 32);
  }
}

void Rng::refill() {
  chacha20_block(key_, counter_++, 0, block_);
  used_ = 0;
}

std::uint32_t Rng::next_u32() {
  if (used_ == block_.size()) refill();
  return block_[used_++];
}

std::uint64_t Rng::next_u64() {
  const std::uint64_t low = next_u32();
  return low | static_cast<std::uint64_t>(next_u32()) << 32;
}

double Rng::uniform() { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }

std::uint64_t Rng::below(std::uint64_t bound) {
  FL_CHECK(bound > 0, "Rng::below needs a positive bound");
  if (bound <= 0xffffffffULL) {
    // Lemire 2019, "Fast random integer generation in an interval", with 32-bit draws.
    const std::uint64_t threshold = (0x100000000ULL - bound) % bound;
    for (;;) {
      const std::uint64_t product = static_cast<std::uint64_t>(next_u32()) * bound;
      if ((product & 0xffffffffULL) >= threshold) return product >> 32;
    }
  }
  const std::uint64_t limit = ~0ULL - (~0ULL % bound + 1) % bound;
  for (;;) {
    const std::uint64_t draw = next_u64();
    if (draw <= limit) return draw % bound;
  }
}

double Rng::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  return radius * std::cos(2.0 * kPi * uniform());
}

double Rng::gamma(double shape) {
  FL_CHECK(shape > 0, "Rng::gamma needs a positive shape");
  if (shape < 1) {
    const double boost = std::pow(1.0 - uniform(), 1.0 / shape);
    return gamma(shape + 1) * boost;
  }
  const double d = shape - 1.0 / 3.0;
  const double c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double x = normal();
    const double base = 1.0 + c * x;
    if (base <= 0) continue;
    const double v = base * base * base;
    if (std::log(1.0 - uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

void Rng::shuffle(std::span<std::uint32_t> values) {
  for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
}

}  // namespace fl
