#include "privacy/noise/cell_sampler.h"
#include "privacy/noise/noise_loops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/privacy/noise/statistics.h"

namespace fl {
namespace {

/// A rounded Gaussian on cells of 2^cell_bits, as GridGaussian makes it.
CellSampler gaussian(double stddev, int cell_bits) {
  return {rounded_gaussian_bell(stddev), cell_bits, static_cast<std::uint64_t>(std::ldexp(stddev, 53 - cell_bits))};
}

double probability(double stddev, std::int64_t k) { return rounded_gaussian_bell(stddev)->rough(k) / stddev / std::sqrt(2 * M_PI); }

TEST(CellSampler, RectanglesLieBelowTheBellAndLeaveLittle) {
  constexpr double kStddev = 4096 * 1.3;
  const CellSampler sampler = gaussian(kStddev, 3);
  double left = 0;
  for (std::int64_t k = -50'000; k <= 50'000; ++k) {
    const double rest = probability(kStddev, k) - sampler.rectangle(k);
    ASSERT_GE(rest, 0) << k;
    left += rest;
  }
  // Half a cell's fall, on both sides of the peak: (1 - 1/8) / 2 · 8 · 2 · 0.4 / σ for cells of 8, plus what rounding to
  // 2^-29 takes from 2^13 cells and the tails beyond 4096 · 8 / σ = 6.2 standard deviations.
  EXPECT_NEAR(left, 0.875 * 8 * 0.39894 / kStddev, 0.00003);
}

TEST(CellSampler, TheRemainderIsWhatTheRectanglesLeave) {
  // Each case once: cells of 8 with tails from 6 standard deviations on; the coarsest weights (8 bits), where the remainder
  // fills up whole cells too. Bins are eighths of a cell, folded over groups of cells, so a slope inside the cells shows.
  struct Case {
    double stddev;
    int cell_bits;
  };
  for (const Case& c : {Case{4096 * 1.3, 3}, Case{0x1p52, 43}, Case{0x1.8p30, 21}}) {
    const CellSampler sampler = gaussian(c.stddev, c.cell_bits);
    const double cell = std::ldexp(1.0, c.cell_bits);
    constexpr std::int64_t kGroup = 256;
    const auto bin_of = [&](std::int64_t k) {
      const std::int64_t eighth = k >> (c.cell_bits - 3) & 7;
      const std::int64_t group = ((k >> c.cell_bits) + 8192) / kGroup;
      return static_cast<std::size_t>(std::clamp<std::int64_t>(group, 0, 63) * 8 + eighth);
    };
    std::vector<double> expected(512);
    for (std::int64_t index = -8192; index < 8192; ++index) {
      for (std::int64_t eighth = 0; eighth < 8; ++eighth) {
        // The middle of the eighth stands for all of it; the bell is straight enough.
        const double middle = (static_cast<double>(index) + (static_cast<double>(eighth) + 0.5) / 8) * cell - (c.cell_bits > 3 ? 0 : 0.5);
        const auto k = static_cast<std::int64_t>(std::floor(middle));
        expected[bin_of(k)] += (probability(c.stddev, k) - sampler.rectangle(k)) * cell / 8;
      }
    }
    const double total = std::accumulate(expected.begin(), expected.end(), 0.0);
    constexpr int kDraws = 1'000'000;
    for (double& e : expected) e *= kDraws / total;
    std::vector<double> counts(512);
    RandomBits bits(test::key_of(1));
    for (int i = 0; i < kDraws; ++i) counts[bin_of(sampler.remainder(bits))] += 1;
    EXPECT_LT(test::chi_square_statistic(counts, expected), test::kOneInAMillion) << c.stddev;
  }
}

TEST(CellSampler, TheTailsFallLikeTheBell) {
  // Cells of 1/1023 standard deviation: the tails begin at 4.004 of them, and hold 8 % of the remainder.
  constexpr double kStddev = 0x1.ff8p29;
  const CellSampler sampler = gaussian(kStddev, 20);
  RandomBits bits(test::key_of(2));
  const double start = std::ldexp(4096.0, 20);
  const auto beyond = [&](double distance) { return std::erfc((start + distance * kStddev) / kStddev / std::sqrt(2.0)); };
  std::vector<double> counts(12);
  double tails = 0;
  for (int i = 0; i < 2'000'000; ++i) {
    const double distance = (std::abs(static_cast<double>(sampler.remainder(bits))) - start) / kStddev;
    if (distance < 0) continue;
    counts[static_cast<std::size_t>(std::min(distance * 10, 11.0))] += 1;
    tails += 1;
  }
  ASSERT_GT(tails, 100'000);
  std::vector<double> expected(12);
  for (std::size_t i = 0; i < 12; ++i) {
    const double next = i == 11 ? 0 : beyond(static_cast<double>(i + 1) / 10);
    expected[i] = tails * (beyond(static_cast<double>(i) / 10) - next) / beyond(0);
  }
  EXPECT_LT(test::chi_square_statistic(counts, expected), test::kOneInAMillion);
}

TEST(CellSampler, GivesTheSameBitsOnEveryInstructionSet) {
  for (const int exponent : {8, 9, 10, 20, 33, 51}) {
    const int cell_bits = std::max(0, exponent - 9);
    const CellSampler sampler = gaussian(std::ldexp(1.37, exponent), cell_bits);
    // Lengths around the vector width, the block of 64 and the chunk of 2048.
    for (const std::size_t length : {1, 3, 7, 63, 64, 65, 2047, 2048, 2049, 10'000}) {
      std::vector<std::int64_t> portable(length);
      std::vector<std::int64_t> best(length);
      RandomBits first(test::key_of(length));
      RandomBits second(test::key_of(length));
      use_portable_noise_loops(true);
      sampler.fill(first, portable);
      use_portable_noise_loops(false);
      sampler.fill(second, best);
      ASSERT_EQ(portable, best) << exponent << " " << length;
      ASSERT_EQ(first.next_u64(), second.next_u64());
    }
  }
}

}  // namespace
}  // namespace fl
