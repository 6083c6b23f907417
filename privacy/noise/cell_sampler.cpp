#include "privacy/noise/cell_sampler.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "fl_core/base/error.h"
#include "privacy/noise/noise_loops.h"

namespace fl {
namespace {

constexpr int kIndexBits = 13;
constexpr std::int64_t kCells = std::int64_t{1} << kIndexBits;
constexpr std::int64_t kHalf = kCells / 2;  ///< the cell that begins at 0; cell 0 stands for the remainder
/// A tail is cut into blocks of 256 cells, a quarter of a standard deviation at least. Four standard deviations out, the bell
/// falls by e^-1 from one block to the next, so that halving its bound with each block stays above it.
constexpr int kBlockBits = 8;
constexpr std::uint64_t kPrecise = std::uint64_t{1} << 62;
constexpr int kPeakShift = 62 + 73 - 64 - kIndexBits;
/// More than Bell::rough can be off, near and in all.
constexpr double kSlack = 0x1p-40;
constexpr double kMargin = 0x1p-29;

}  // namespace

CellSampler::CellSampler(std::unique_ptr<const Bell> bell, int cell_bits, std::uint64_t stddev_cells)
    : bell_(std::move(bell)),
      cell_bits_(cell_bits),
      stddev_cells_(stddev_cells),
      floors_(kCells + 1),
      heights_(kCells + 1),
      cumulative_(kCells + 1) {
  FL_CHECK(stddev_cells >> 61 != 0 && stddev_cells >> 63 == 0 && cell_bits >= 0 && cell_bits <= 43, "a bell does not fit its cells");
  // The probability of a cell as high as the peak, 1 / (√(2π) · stddev_cells), times 2^73.
  constexpr uint128 kInverseRoot = uint128{0x33108a67a86ca11a} << 64 | 0x1f9678a017571c5f;
  const auto peak = static_cast<std::uint64_t>((kInverseRoot >> 1) / stddev_cells);

  // Coarse weights need no second word; what they leave is for the remainder.
  const uint128 coarse = uint128{1} << (64 - std::min(16, 64 - kIndexBits - cell_bits));
  std::vector<uint128> weights(kCells);
  uint128 left = uint128{1} << (64 + kIndexBits);
  const auto scaled = [&](std::int64_t k, double slack) {
    return static_cast<std::uint64_t>(bell_->rough(k) * (1 + slack) * static_cast<double>(kPrecise));
  };
  for (std::int64_t cell = 1; cell < kCells; ++cell) {
    const auto i = static_cast<std::size_t>(cell);
    const std::int64_t first = (cell - kHalf) * (std::int64_t{1} << cell_bits);
    const std::int64_t last = first + (std::int64_t{1} << cell_bits) - 1;
    const std::uint64_t lowest = scaled(cell < kHalf ? first : last, -kSlack);
    const uint128 most = uint128{lowest < 8 ? 0 : lowest - 8} * peak >> kPeakShift;
    weights[i] = most / coarse * coarse;
    floors_[i] = static_cast<std::uint64_t>((weights[i] << kPeakShift) / peak);
    heights_[i] = (scaled(cell < kHalf ? last : first, kSlack) + 8 - floors_[i]) / 4 * 4 + 4;
    left -= weights[i];
  }
  weights[0] = left;
  cells_ = std::make_unique<const AliasTable>(weights, kIndexBits, cell_bits);

  heights_.front() = (heights_[1] + floors_[1]) / 4 * 4 + 4;
  heights_.back() = (heights_[kCells - 1] + floors_[kCells - 1]) / 4 * 4 + 4;
  std::uint64_t area = 0;
  for (std::size_t i = 0; i < cumulative_.size(); ++i) {
    area += is_tail(i) ? heights_[i] / 4 << (kBlockBits + 1) : heights_[i] / 4;  // a tail's: height · (1 + 1/2 + 1/4 + …)
    cumulative_[i] = area;
  }
}

void CellSampler::fill(RandomBits& bits, std::span<std::int64_t> out) const {
  constexpr std::size_t kBlock = 64;    // few enough that most blocks have no remainder to draw
  constexpr std::size_t kChunk = 2048;  // few enough for the nearest cache
  const NoiseLoops& loops = noise_loops();
  const std::int64_t first = -kHalf * (std::int64_t{1} << cell_bits_);
  while (!out.empty()) {
    const std::span chunk = out.first(std::min(kChunk, out.size()));
    // The words become draws where they lie, so none are left behind to be wiped.
    bits.fill({reinterpret_cast<std::uint64_t*>(chunk.data()), chunk.size()});
    for (std::size_t begin = 0; begin < chunk.size(); begin += kBlock) {
      const std::span block = chunk.subspan(begin, std::min(kBlock, chunk.size() - begin));
      if (!loops.cells(cells_->slots().data(), kCells - 1, cell_bits_, first, block.data(), block.size())) continue;
      for (std::int64_t& draw : block) {
        if ((draw - first) >> cell_bits_ == 0) draw = remainder(bits);
      }
    }
    out = out.subspan(chunk.size());
  }
}

double CellSampler::rectangle(std::int64_t k) const {
  const std::int64_t cell = (k >> cell_bits_) + kHalf;
  if (cell < 1 || cell >= kCells) return 0;
  const double stddev = std::ldexp(static_cast<double>(stddev_cells_), cell_bits_ - 53);
  return static_cast<double>(floors_[static_cast<std::size_t>(cell)]) / static_cast<double>(kPrecise) * 0.3989422804014327 / stddev;
}

std::int64_t CellSampler::remainder(RandomBits& bits) const {
  for (;;) {
    const Part part = choose(bits);
    const std::int64_t k = propose(part, bits);
    if (accept(k, part, bits)) return k;
  }
}

CellSampler::Part CellSampler::choose(RandomBits& bits) const {
  const std::uint64_t area = multiply_high(bits.next_u64(), cumulative_.back());
  // The number of parts that end at or before `area`, by halving steps without branches: they would be mispredicted.
  const std::uint64_t* ends = cumulative_.data();
  std::size_t index = 0;
  for (std::size_t step = kCells / 2; step > 0; step /= 2) index += ends[index + step - 1] <= area ? step : 0;
  index += ends[index] <= area ? 1 : 0;
  return {index, is_tail(index) ? std::countr_zero(bits.next_u64() | std::uint64_t{1} << 63) : 0};
}

std::int64_t CellSampler::propose(const Part& part, RandomBits& bits) const {
  const auto uniform = [&](int width) { return static_cast<std::int64_t>(bits.next_u64() & ((std::uint64_t{1} << width) - 1)); };
  const std::int64_t cell = std::int64_t{1} << cell_bits_;
  if (!is_tail(part.index)) return (static_cast<std::int64_t>(part.index) - kHalf) * cell + uniform(cell_bits_);
  const std::int64_t distance = (std::int64_t{part.halvings} << (cell_bits_ + kBlockBits)) + uniform(cell_bits_ + kBlockBits);
  return part.index == 0 ? (1 - kHalf) * cell - 1 - distance : kHalf * cell + distance;
}

bool CellSampler::accept(std::int64_t k, const Part& part, RandomBits& bits) const {
  const std::uint64_t level = multiply_high(bits.next_u64(), heights_[part.index]);
  // Is level + floor < g(k) · 2^62 · 2^halvings? The rough bell decides wherever it can.
  const double scale = static_cast<double>(kPrecise) * static_cast<double>(std::uint64_t{1} << part.halvings);
  const double rough = bell_->rough(k) * scale;
  const double difference = rough - static_cast<double>(floors_[part.index]) - static_cast<double>(level);
  const double margin = rough * kMargin + 16;
  if (difference > margin) return true;
  if (difference < -margin) return false;
  // Undecided proposals from 16 standard deviations on, of a chance below 2^-180, are dropped.
  const auto limit = static_cast<std::int64_t>(stddev_cells_ >> 49 << cell_bits_);
  if (std::abs(k) >= limit) return false;
  return uint128{level} + floors_[part.index] < uint128{bell_->precise(k)} << part.halvings;
}

}  // namespace fl
