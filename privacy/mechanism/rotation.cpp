#include "privacy/mechanism/rotation.h"

#include <bit>
#include <cmath>

#include "fl_core/base/error.h"
#include "fl_core/base/rng.h"

namespace fl {
namespace {

/// Transforms of this many doubles (32 KiB) stay in the first-level cache.
constexpr std::size_t kCached = 4096;

void butterflies(double* x, std::size_t half) {
  for (std::size_t i = 0; i < half; ++i) {
    const double a = x[i];
    const double b = x[half + i];
    x[i] = a + b;
    x[half + i] = a - b;
  }
}

/// Without the scale.
void transform(double* x, std::size_t size) {
  if (size > kCached) {
    butterflies(x, size / 2);
    transform(x, size / 2);
    transform(x + size / 2, size / 2);
    return;
  }
  for (std::size_t half = size / 2; half >= 1; half /= 2) {
    for (std::size_t start = 0; start < size; start += 2 * half) butterflies(x + start, half);
  }
}

}  // namespace

void hadamard(std::span<double> x) {
  FL_CHECK(std::has_single_bit(x.size()), "a Hadamard transform has a power of two as its length");
  transform(x.data(), x.size());
  const double scale = 1 / std::sqrt(static_cast<double>(x.size()));
  for (double& value : x) value *= scale;
}

void Rotation::flip_signs(std::span<double> x, std::uint64_t block) const {
  Rng rng(0, Purpose::rotation, round_, block);
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (i % 32 == 0) bits = rng.next_u32();
    if ((bits >> (i % 32) & 1) != 0) x[i] = -x[i];
  }
}

void Rotation::apply(std::span<double> x) const {
  const std::size_t block = std::bit_floor(x.size());
  if (block == 0) return;
  flip_signs(x.first(block), 0);
  hadamard(x.first(block));
  if (block == x.size()) return;
  flip_signs(x.last(block), 1);
  hadamard(x.last(block));
}

void Rotation::invert(std::span<double> x) const {
  const std::size_t block = std::bit_floor(x.size());
  if (block == 0) return;
  if (block != x.size()) {
    hadamard(x.last(block));
    flip_signs(x.last(block), 1);
  }
  hadamard(x.first(block));
  flip_signs(x.first(block), 0);
}

double Rotation::spread(std::uint64_t size) { return size == 0 ? 1 : static_cast<double>(size) / static_cast<double>(std::bit_floor(size)); }

}  // namespace fl
