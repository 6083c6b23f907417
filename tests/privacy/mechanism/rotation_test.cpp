#include "privacy/mechanism/rotation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "fl_core/base/rng.h"

namespace fl {
namespace {

double norm(const std::vector<double>& x) { return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0)); }

std::vector<double> random_vector(std::size_t size) {
  Rng rng(3, Purpose::synthetic_data, 0, size);
  std::vector<double> x(size);
  for (double& value : x) value = rng.normal();
  return x;
}

TEST(Hadamard, IsSylvestersMatrixOverTheRootOfItsSize) {
  // Entry (i, j) is (-1)^(number of ones in i & j) / √n; 16 384 is beyond what is transformed in the cache.
  for (const std::size_t size : {1U, 2U, 8U, 16384U}) {
    for (const std::size_t column : {std::size_t{0}, size / 3, size - 1}) {
      std::vector<double> x(size, 0);
      x[column] = 1;
      hadamard(x);
      for (std::size_t i = 0; i < size; ++i) {
        const double sign = __builtin_popcountll(i & column) % 2 == 0 ? 1 : -1;
        ASSERT_NEAR(x[i], sign / std::sqrt(static_cast<double>(size)), 1e-15) << size << ": " << i << ", " << column;
      }
    }
  }
}

TEST(Rotation, KeepsTheNormAndIsUndone) {
  for (const std::size_t size : {0U, 1U, 2U, 3U, 5U, 64U, 1000U, 4097U, 20'000U}) {
    const std::vector<double> original = random_vector(size);
    std::vector<double> x = original;
    Rotation(5).apply(x);
    EXPECT_NEAR(norm(x), norm(original), 1e-12 * norm(original)) << size;
    Rotation(5).invert(x);
    for (std::size_t i = 0; i < size; ++i) ASSERT_NEAR(x[i], original[i], 1e-12) << size;
  }
}

TEST(Rotation, SpreadsAnyCoordinateEvenly) {
  // From wherever all of the norm sits, no coordinate gets more than a variance of spread / N: a maximum of √(2 ln N) = 3.7
  // standard deviations is expected of a Gaussian, and 6 is next to impossible.
  for (const std::size_t size : {1000U, 1024U, 1500U, 2047U}) {
    for (const std::size_t place : {std::size_t{0}, size / 2, size - 1}) {
      std::vector<double> x(size, 0);
      x[place] = 1;
      Rotation(1).apply(x);
      const double deviation = std::sqrt(Rotation::spread(size) / static_cast<double>(size));
      for (const double value : x) ASSERT_LE(std::abs(value), 6 * deviation) << size << " from " << place;
    }
  }
  EXPECT_EQ(Rotation::spread(1024), 1);
  EXPECT_EQ(Rotation::spread(1536), 1.5);
}

TEST(Rotation, IsAnotherOneInEveryRound) {
  const std::vector<double> original = random_vector(100);
  std::vector<double> first = original;
  std::vector<double> again = original;
  std::vector<double> second = original;
  Rotation(1).apply(first);
  Rotation(1).apply(again);
  Rotation(2).apply(second);
  EXPECT_EQ(first, again);
  EXPECT_NE(first, second);
}

}  // namespace
}  // namespace fl
