#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "privacy/noise/alias_table.h"
#include "privacy/noise/bells.h"
#include "privacy/noise/random_bits.h"

namespace fl {

/// Draws from a bell whose standard deviation is 2^8 or more, by integers alone where it is fast.
///
/// The integers are cut into cells of 2^s, 512 to 1024 of them a standard deviation (at least 256 where s = 0). In each cell
/// the bell is a rectangle, not higher than the cell's lowest point, and a remainder. A cell is chosen with the exact
/// probability of its rectangle (AliasTable) and s random bits choose the integer in it: no arithmetic at all. One slot of the
/// alias table stands for all remainders together, 1 to 3 of 1000 draws, and for the tails beyond 4 standard deviations or
/// more: there integers are proposed under an upper bound and accepted against the bell itself, so that both parts together
/// are the bell.
///
/// Distance. P(k) = rectangle(k) + remainder(k) holds for any rectangles below the bell, so errors come from three things
/// only: the bell's own error, at most 6 · 2^-62 in g over 32 standard deviations, in all 32 · 0.4 · 6 · 2^-62 < 2^-55;
/// rectangles whose height is known to 2^-62 in g, over 16 standard deviations, < 2^-59; uniforms of 64 bits in the remainder,
/// where 2^13 cells times 2^-64 weigh less than 2^-6. Together below 2^-54 in total variation.
class CellSampler {
 public:
  /// Cells are 2^cell_bits wide; `stddev_cells` is the standard deviation in cells, times 2^53.
  /// REQUIRES: 2^61 <= stddev_cells < 2^63, and at least 2^62 where cell_bits > 0; 0 <= cell_bits <= 43.
  CellSampler(std::unique_ptr<const Bell> bell, int cell_bits, std::uint64_t stddev_cells);

  /// Independent draws. The same bits with every instruction set.
  void fill(RandomBits& bits, std::span<std::int64_t> out) const;

  /// For tests: the two parts of the bell, as the probability that fill() draws k from a rectangle, and as one draw from the
  /// remainder.
  double rectangle(std::int64_t k) const;
  std::int64_t remainder(RandomBits& bits) const;

 private:
  /// Of a proposal in the remainder: which cell or tail, and how often a tail's bound was halved.
  struct Part {
    std::size_t index;
    int halvings;
  };
  Part choose(RandomBits& bits) const;
  std::int64_t propose(const Part& part, RandomBits& bits) const;
  bool accept(std::int64_t k, const Part& part, RandomBits& bits) const;
  bool is_tail(std::size_t part) const { return part == 0 || part + 1 == floors_.size(); }

  std::unique_ptr<const Bell> bell_;
  int cell_bits_;
  std::uint64_t stddev_cells_;
  std::unique_ptr<const AliasTable> cells_;
  /// By part: 0 is the left tail, then the cells 1, 2, …, at last the right tail. In units of 2^-62 of g.
  std::vector<std::uint64_t> floors_;      ///< height of the rectangle
  std::vector<std::uint64_t> heights_;     ///< bound on the remainder's height over the floor; multiples of 4
  std::vector<std::uint64_t> cumulative_;  ///< area of the bounds up to and with a part, in cells and units of 2^-60 of g
};

}  // namespace fl
