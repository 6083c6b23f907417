#include "privacy/accounting/real_fft.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "fl_core/base/rng.h"

namespace fl {
namespace {

using Complex = std::complex<double>;

std::vector<double> random_values(std::size_t size) {
  Rng rng(7, Purpose::evaluation);
  std::vector<double> values(size);
  for (double& value : values) value = rng.uniform() - 0.25;
  return values;
}

TEST(RealFft, IsTheSumOfTheDefinition) {
  for (const std::size_t size :
       {std::size_t{2}, std::size_t{6}, std::size_t{16}, std::size_t{24}, std::size_t{40}, std::size_t{98}}) {
    const std::vector<double> values = random_values(size);
    std::vector<Complex> spectrum(size / 2 + 1);
    RealFft fft(size);
    fft.forward(values, spectrum);
    for (std::size_t k = 0; k <= size / 2; ++k) {
      Complex sum = 0;
      for (std::size_t j = 0; j < size; ++j) {
        sum += values[j] *
               std::polar(1.0, -2 * std::numbers::pi * static_cast<double>(j * k % size) / static_cast<double>(size));
      }
      EXPECT_LT(std::abs(spectrum[k] - sum), 1e-13) << "size " << size << ", frequency " << k;
    }
  }
}

TEST(RealFft, InverseGivesTheValuesBackWithinItsErrorBound) {
  for (const std::size_t size :
       {std::size_t{2}, std::size_t{16}, std::size_t{40}, std::size_t{96}, std::size_t{65536}, std::size_t{81920}}) {
    const std::vector<double> values = random_values(size);
    std::vector<Complex> spectrum(size / 2 + 1);
    std::vector<double> back(size);
    RealFft fft(size);
    fft.forward(values, spectrum);
    fft.inverse(spectrum, back);
    double error = 0;
    double norm = 0;
    for (std::size_t j = 0; j < size; ++j) {
      error += (back[j] - values[j]) * (back[j] - values[j]);
      norm += values[j] * values[j];
    }
    EXPECT_LT(std::sqrt(error / norm), 2 * fft.relative_error()) << size;
    EXPECT_LT(fft.relative_error(), 1e-13);
  }
}

TEST(RealFft, FastSizesAreTheNextWithFactorsOfTwoAndOneThreeOrFive) {
  EXPECT_EQ(RealFft::fast_size(1), 16u);
  EXPECT_EQ(RealFft::fast_size(16), 16u);
  EXPECT_EQ(RealFft::fast_size(17), 24u);
  EXPECT_EQ(RealFft::fast_size(33), 40u);
  EXPECT_EQ(RealFft::fast_size(41), 48u);
  EXPECT_EQ(RealFft::fast_size(49), 64u);
  EXPECT_EQ(RealFft::fast_size(65537), 81920u);
}

}  // namespace
}  // namespace fl
