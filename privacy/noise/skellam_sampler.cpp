#include "privacy/noise/skellam_sampler.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <memory>
#include <vector>

#include "privacy/noise/bells.h"

namespace fl {
namespace {

constexpr double kLargestTable = 0x1p20;

/// high + low, with |low| at most half a unit in high's last place (Dekker 1971).
struct Pair {
  double high = 0;
  double low = 0;
};

/// REQUIRES: |a| >= |b|, or both of one sign and order.
Pair fast_sum(double a, double b) {
  const double sum = a + b;
  return {sum, b - (sum - a)};
}

Pair sum(double a, double b) {
  const double total = a + b;
  const double of_b = total - a;
  return {total, (a - (total - of_b)) + (b - of_b)};
}

/// a · b exactly, without fused operations, so that every processor gives the same bits.
Pair product(double a, double b) {
  const auto split = [](double x) {
    const double scaled = x * 134217729.0;  // 2^27 + 1
    const double high = scaled - (scaled - x);
    return Pair{high, x - high};
  };
  const double total = a * b;
  const Pair x = split(a);
  const Pair y = split(b);
  return {total, ((x.high * y.high - total) + x.high * y.low + x.low * y.high) + x.low * y.low};
}

Pair operator+(const Pair& a, const Pair& b) {
  const Pair high = sum(a.high, b.high);
  const Pair low = sum(a.low, b.low);
  const Pair middle = fast_sum(high.high, high.low + low.high);
  return fast_sum(middle.high, middle.low + low.low);
}

Pair operator*(const Pair& a, const Pair& b) {
  const Pair exact = product(a.high, b.high);
  return fast_sum(exact.high, exact.low + (a.high * b.low + a.low * b.high));
}

/// a / b, b > 0.
Pair quotient(const Pair& a, const Pair& b) {
  const double first = a.high / b.high;
  const Pair taken = b * Pair{-first, 0};
  const Pair left = a + taken;
  const double second = left.high / b.high;
  const Pair again = left + b * Pair{-second, 0};
  const Pair upper = fast_sum(first, second);
  return upper + Pair{again.high / b.high, 0};
}

/// floor(value · 2^bits), give or take one; 0 <= value <= 1.
uint128 fixed(const Pair& value, int bits) {
  const double scale = std::ldexp(1.0, bits);
  return static_cast<uint128>(static_cast<int128>(value.high * scale) + static_cast<int128>(value.low * scale));
}

/// P(0), P(1), …, P(size - 1) over P(0) + 2 P(1) + 2 P(2) + …
std::vector<Pair> bessel_weights(double variance, std::size_t size) {
  std::vector<Pair> weights(size);
  const Pair step = quotient({2, 0}, {variance, 0});
  weights[size - 1] = {0x1p-500, 0};
  Pair above;
  Pair total;
  for (std::size_t k = size - 1; k > 0; --k) {
    weights[k - 1] = above + Pair{static_cast<double>(k), 0} * step * weights[k];
    above = weights[k];
    total = total + weights[k] + weights[k];
  }
  total = total + weights[0];
  for (Pair& weight : weights) weight = quotient(weight, total);
  return weights;
}

}  // namespace

SkellamSampler::SkellamSampler(double variance) {
  if (variance > kLargestTable) {
    // Cells of 2^bits integers, √v / 2^bits in [2^9, 2^10): v / 4^bits = u in [2^18, 2^20); √u · 2^53 = √(u · 2^106).
    int exponent = 0;
    const double fraction = std::frexp(variance, &exponent);
    const int cell_bits = (exponent - 19) / 2;
    const auto mantissa = static_cast<std::uint64_t>(std::ldexp(fraction, 53));
    const std::uint64_t stddev = square_root(uint128{mantissa} << (exponent - 2 * cell_bits - 53 + 106));
    cells_.emplace(large_skellam_bell(variance), cell_bits, stddev);
    return;
  }
  const auto size = static_cast<std::size_t>(12 * std::sqrt(variance)) + 17;
  const std::vector<Pair> probabilities = bessel_weights(variance, size);
  const auto index_bits = static_cast<int>(std::bit_width(2 * size - 1));
  std::vector<uint128> weights(std::size_t{1} << index_bits);
  const std::size_t middle = weights.size() / 2;
  uint128 left = uint128{1} << (64 + index_bits);
  for (std::size_t k = 1; k < size; ++k) {
    weights[middle + k] = weights[middle - k] = fixed(probabilities[k], 64 + index_bits);
    left -= 2 * weights[middle + k];
  }
  weights[middle] = left;
  middle_ = static_cast<std::int64_t>(middle);
  table_.emplace(weights, index_bits, 0);
}

void SkellamSampler::fill(RandomBits& bits, std::span<std::int64_t> out) const {
  if (cells_) return cells_->fill(bits, out);
  std::array<std::uint64_t, 2048> words;
  const std::size_t used = std::min(words.size(), out.size());
  while (!out.empty()) {
    const std::span chunk = out.first(std::min(words.size(), out.size()));
    bits.fill(std::span(words).first(chunk.size()));
    for (std::size_t i = 0; i < chunk.size(); ++i) chunk[i] = static_cast<std::int64_t>(table_->pick(words[i], bits)) - middle_;
    out = out.subspan(chunk.size());
  }
  OPENSSL_cleanse(words.data(), 8 * used);
}

}  // namespace fl
