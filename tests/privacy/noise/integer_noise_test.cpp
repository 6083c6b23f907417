#include "privacy/noise/integer_noise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "tests/privacy/noise/statistics.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::size_t kDraws = 1'000'000;

template <class Noise>
std::vector<std::int64_t> draws_of(const Noise& noise, std::uint64_t key, std::size_t count = kDraws) {
  RandomBits bits(test::key_of(key));
  std::vector<std::int64_t> draws(count);
  noise.fill(bits, draws);
  return draws;
}

std::vector<double> counts_of(const std::vector<std::int64_t>& draws, std::int64_t edge) {
  std::vector<double> counts(static_cast<std::size_t>(2 * edge + 1));
  for (const std::int64_t k : draws) counts[static_cast<std::size_t>(std::clamp(k, -edge, edge) + edge)] += 1;
  return counts;
}

/// P(-edge), …, P(edge) of the discrete Gaussian, summed directly.
std::vector<double> discrete_gaussian_pmf(double variance, std::int64_t edge) {
  std::vector<double> pmf;
  double total = 0;
  for (std::int64_t k = -edge; k <= edge; ++k) {
    pmf.push_back(std::exp(-static_cast<double>(k * k) / (2 * variance)));
    total += pmf.back();
  }
  for (double& p : pmf) p /= total;
  return pmf;
}

/// P(-edge), …, P(edge) of Skellam: all ways to be k as the difference of two Poissons of mean v / 2.
std::vector<double> skellam_pmf(double variance, std::int64_t edge) {
  const double mean = variance / 2;
  const auto poisson = [&](std::int64_t n) { return n < 0 ? 0 : std::exp(static_cast<double>(n) * std::log(mean) - mean - std::lgamma(static_cast<double>(n) + 1)); };
  const auto last = static_cast<std::int64_t>(mean + 12 * std::sqrt(mean) + 40);
  std::vector<double> table;
  for (std::int64_t n = 0; n <= last; ++n) table.push_back(poisson(n));
  std::vector<double> pmf;
  for (std::int64_t k = -edge; k <= edge; ++k) {
    double p = 0;
    for (std::int64_t n = 0; n + std::abs(k) <= last; ++n) p += table[static_cast<std::size_t>(n)] * table[static_cast<std::size_t>(n + std::abs(k))];
    pmf.push_back(p);
  }
  return pmf;
}

template <class Noise>
void expect_pmf(const Noise& noise, std::uint64_t key, std::vector<double> expected) {
  const auto edge = static_cast<std::int64_t>(expected.size() / 2);
  const auto counts = counts_of(draws_of(noise, key), edge);
  double sum = 0;
  for (double& e : expected) sum += e *= kDraws;
  expected.front() += (kDraws - sum) / 2;
  expected.back() += (kDraws - sum) / 2;
  EXPECT_LT(test::chi_square_statistic(counts, expected), test::kOneInAMillion) << noise.variance();
}

TEST(IntegerNoise, MatchesThePublishedProbabilities) {
  // data/noise_pmf.json: exp(-k²/2σ²) and e^-v I_k(v), computed from the definitions.
  std::ifstream file(FL_TEST_DATA "/noise_pmf.json");
  const nlohmann::json document = nlohmann::json::parse(file);
  int cases = 0;
  for (const nlohmann::json& vector : document.at("vectors")) {
    const bool gaussian = vector.at("distribution") == "discrete_gaussian";
    const double variance = gaussian ? std::pow(vector.at("sigma").get<double>(), 2) : vector.at("variance").get<double>();
    const std::uint64_t key = 100 + static_cast<std::uint64_t>(++cases);
    const auto draws = gaussian ? draws_of(DiscreteGaussian(variance), key) : draws_of(Skellam(variance), key);
    // Each probability within 5 standard deviations of its count, √(n p (1 - p)), or 2 draws where it is that rare.
    for (std::int64_t k = -3; k <= 3; ++k) {
      const double p = vector.at("pmf_0_to_3").at(static_cast<std::size_t>(std::abs(k)));
      const auto count = static_cast<double>(std::count(draws.begin(), draws.end(), k));
      EXPECT_NEAR(count, kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)) + 2) << vector << " at " << k;
    }
    // The spread of a mean of squares is √(kurtosis - 1) · variance / √n; kurtosis < 5 in all cases, so 5 of them are 1 %.
    double squares = 0;
    for (const std::int64_t k : draws) squares += static_cast<double>(k * k) / kDraws;
    const double expected = vector.value("variance", variance);
    EXPECT_NEAR(squares, expected, 0.01 * expected) << vector;
  }
  EXPECT_EQ(cases, 7);
}

TEST(IntegerNoise, FollowsItsDistribution) {
  for (const double sigma : {0.3, 0.5, 1.0, 3.0, 10.0, 31.7, 500.0}) {
    // The variance is rounded up to a multiple of 2^-20: the pmf is that of what is drawn with.
    const DiscreteGaussian noise(sigma * sigma);
    expect_pmf(noise, 1, discrete_gaussian_pmf(noise.variance(), static_cast<std::int64_t>(12 * sigma) + 8));
  }
  for (const double variance : {0.01, 0.5, 1.0, 4.0, 100.0, 1234.5, 90'000.0}) {
    expect_pmf(Skellam(variance), 2, skellam_pmf(variance, static_cast<std::int64_t>(8 * std::sqrt(variance)) + 8));
  }
}

TEST(IntegerNoise, IsAsNearInDivergenceAsTheReferenceAsks) {
  // google-research/federated@5e27a86323a3 discrete_gaussian_utils_test.py: the Kullback-Leibler divergence of the counts at
  // σ = 10 from the distribution is below 5e-2 for 1000 and 5e-3 for 10000 draws.
  const auto divergence = [](const auto& noise, const std::vector<double>& pmf, std::size_t count) {
    const auto counts = counts_of(draws_of(noise, 3, count), static_cast<std::int64_t>(pmf.size() / 2));
    double sum = 0;
    for (std::size_t i = 0; i < pmf.size(); ++i) {
      const double p = counts[i] / static_cast<double>(count);
      if (p > 0) sum += p * std::log(p / pmf[i]);
    }
    return sum;
  };
  const auto gaussian = discrete_gaussian_pmf(100, 200);
  EXPECT_LT(divergence(DiscreteGaussian(100), gaussian, 1000), 5e-2);
  EXPECT_LT(divergence(DiscreteGaussian(100), gaussian, 10'000), 5e-3);
  const auto skellam = skellam_pmf(100, 200);
  EXPECT_LT(divergence(Skellam(100), skellam, 1000), 5e-2);
  EXPECT_LT(divergence(Skellam(100), skellam, 10'000), 5e-3);
  EXPECT_GT(divergence(Skellam(120), gaussian, 10'000), 5e-3) << "the control: 10 % more standard deviation is seen";
}

template <class Noise>
void expect_nearly_normal(double variance, std::uint64_t key) {
  // From σ = 300 on, both are normal to within what 10^6 draws tell: mean ± 0.001, variance ± √2 · 0.001, kurtosis ± √24 ·
  // 0.001, 5 of each; a jitter of one unit makes them continuous.
  std::vector<double> values;
  RandomBits jitter(test::key_of(999));
  for (const std::int64_t k : draws_of(Noise(variance), key)) {
    const double shift = static_cast<double>(jitter.next_u64() >> 11) * 0x1p-53 - 0.5;
    values.push_back((static_cast<double>(k) + shift) / std::sqrt(variance));
  }
  const test::Moments moments = test::moments_of(values);
  EXPECT_NEAR(moments.mean, 0, 0.005) << variance;
  EXPECT_NEAR(moments.variance, 1, 0.0071) << variance;
  EXPECT_NEAR(moments.kurtosis, 3, 0.0245) << variance;
  EXPECT_LT(test::ks_statistic(values), 2.69) << variance;
}

TEST(IntegerNoise, IsNormalWhereItIsLarge) {
  for (const double variance : {1e5, 0x1p20, 0x1p20 + 1, 5e6, 1e9, 0x1p40}) {
    expect_nearly_normal<DiscreteGaussian>(variance, 4);
    expect_nearly_normal<Skellam>(variance, 5);
  }
}

TEST(Skellam, AddsUpToSkellam) {
  const auto first = draws_of(Skellam(30), 6);
  const auto second = draws_of(Skellam(70), 7);
  std::vector<std::int64_t> sums;
  for (std::size_t i = 0; i < kDraws; ++i) sums.push_back(first[i] + second[i]);
  auto expected = skellam_pmf(100, 80);
  for (double& e : expected) e *= kDraws;
  EXPECT_LT(test::chi_square_statistic(counts_of(sums, 80), expected), test::kOneInAMillion);
}

TEST(IntegerNoise, IsFixedForEver) {
  // Seeded runs must reproduce: these are what the first build drew.
  EXPECT_THAT(draws_of(DiscreteGaussian(1e4), 1, 6), ElementsAre(14, -105, -131, -74, 84, 178));
  EXPECT_THAT(draws_of(Skellam(1e4), 1, 6), ElementsAre(-117, 17, 34, -143, -31, 69));
  EXPECT_THAT(draws_of(Skellam(1e8), 1, 6), ElementsAre(3506, -7395, -17667, -8236, -4171, 1296));
  RandomBits bits(test::key_of(1));
  EXPECT_EQ(Skellam(1e4).draw(bits), draws_of(Skellam(1e4), 1, 1).front());
  EXPECT_EQ(DiscreteGaussian(1e4).draw(bits), [] {
    RandomBits same(test::key_of(1));
    same.next_u64();
    return DiscreteGaussian(1e4).draw(same);
  }());
}

TEST(IntegerNoise, TakesVariancesInRangeAlone) {
  EXPECT_EQ(DiscreteGaussian(2.5).variance(), 2.5);
  EXPECT_EQ(DiscreteGaussian(0.1).variance(), std::ldexp(104858.0, -20)) << "0.1 · 2^20 = 104857.6, rounded up";
  EXPECT_EQ(Skellam(0.1).variance(), 0.1);
  for (const double variance : {0.0, -1.0, 0x1p-21, 0x1.0001p40, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    EXPECT_THROW(DiscreteGaussian{variance}, ConfigError) << variance;
    EXPECT_THROW(Skellam{variance}, ConfigError) << variance;
  }
  EXPECT_THAT(test::error_of([] { Skellam(0); }), HasSubstr("Skellam noise: the variance is 0.000000; expected 2^-20 to 2^40"));
  // At the lower edge nearly all draws are 0: P(1) = v / 2 for Skellam, exp(-1 / 2v) = 0 for the discrete Gaussian.
  for (const std::int64_t k : draws_of(DiscreteGaussian(0x1p-20), 8, 10'000)) ASSERT_EQ(k, 0);
  EXPECT_LT(std::abs(draws_of(Skellam(0x1p-20), 8, 10'000).front()), 2);
}

}  // namespace
}  // namespace fl
