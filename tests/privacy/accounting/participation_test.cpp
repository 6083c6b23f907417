#include "privacy/accounting/participation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "tests/privacy/accounting/vectors.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

constexpr std::uint64_t kUnlimited = std::uint64_t{1} << 40;

/// The largest `moved(rounds)` over all sets of rounds (bit i: round i + 1) that keep limit and separation.
double largest(std::uint64_t participations, std::uint32_t separation, std::uint32_t steps,
               const std::function<double(std::uint32_t)>& moved) {
  double most = 0;
  for (std::uint32_t rounds = 0; rounds < 1u << steps; ++rounds) {
    if (static_cast<std::uint64_t>(std::popcount(rounds)) > participations) continue;
    bool apart = true;
    for (std::uint32_t gap = 1; gap < separation && gap < steps; ++gap) apart = apart && (rounds & rounds >> gap) == 0;
    if (apart) most = std::max(most, moved(rounds));
  }
  return most;
}

/// Σ over the complete dyadic intervals of 1 … steps of the squared number of rounds inside.
double moved_in_tree(std::uint32_t rounds, std::uint32_t steps, bool right_nodes) {
  double sum = 0;
  for (std::uint32_t level = 0; 1u << level <= steps; ++level) {
    for (std::uint32_t i = 1; i << level <= steps; ++i) {
      if (!right_nodes && i % 2 == 0) continue;
      const std::uint32_t inside = rounds >> ((i - 1) << level) & ((1u << (1u << level)) - 1);
      sum += std::pow(std::popcount(inside), 2);
    }
  }
  return sum;
}

double moved_in_bands(std::uint32_t rounds, std::uint32_t steps, std::uint32_t bandwidth) {
  double sum = 0;
  for (std::uint32_t row = 0; row < steps; ++row) {
    double moved = 0;
    double coefficient = 1;
    for (std::uint32_t back = 0; back < bandwidth && back <= row; ++back) {
      if ((rounds >> (row - back) & 1) != 0) moved += coefficient;
      coefficient *= (2.0 * back + 1) / (2.0 * back + 2);
    }
    sum += moved * moved;
  }
  return sum;
}

TEST(TreeSensitivity, IsThatOfOtherLibraries) {
  const auto& vectors = test::privacy_vectors().at("tree_aggregation_sensitivity");
  ASSERT_EQ(vectors.size(), 4u);
  for (const auto& vector : vectors) {
    // Their min_separation counts the rounds between two participations.
    const std::uint32_t separation = vector.at("min_separation").get<std::uint32_t>() + 1;
    EXPECT_EQ(tree_sensitivity_squared(vector.at("max_participation"), separation, vector.at("steps")),
              vector.at("sensitivity_squared"))
        << vector;
  }
}

TEST(TreeSensitivity, IsTheMaximumOverAllPatterns) {
  for (std::uint32_t steps = 1; steps <= 13; ++steps) {
    for (std::uint32_t separation = 1; separation <= steps + 1; ++separation) {
      for (const std::uint64_t participations :
           {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{3}, std::uint64_t{5}, kUnlimited}) {
        const auto expected = [&](bool right_nodes) {
          return largest(participations, separation, steps,
                         [&](std::uint32_t rounds) { return moved_in_tree(rounds, steps, right_nodes); });
        };
        EXPECT_EQ(tree_sensitivity_squared(participations, separation, steps), expected(true))
            << participations << " " << separation << " " << steps;
        EXPECT_EQ(prefix_tree_sensitivity_squared(participations, separation, steps), expected(false))
            << participations << " " << separation << " " << steps;
      }
    }
  }
}

TEST(TreeSensitivity, HasClosedFormsAtTheEnds) {
  // One round is in one interval of each length: ⌊log₂ 10000⌋ + 1 = 14 of them for round 1.
  EXPECT_EQ(tree_sensitivity_squared(1, 1, 10000), 14);
  EXPECT_EQ(tree_sensitivity_squared(kUnlimited, 10000, 10000), 14);
  // All 2^13 rounds: Σ_l 2^(13−l) · 4^l = 2^13 (2^14 − 1).
  EXPECT_EQ(tree_sensitivity_squared(kUnlimited, 1, 8192), 8192.0 * 16383.0);
  EXPECT_EQ(tree_sensitivity_squared(0, 1, 10000), 0);
  EXPECT_EQ(tree_sensitivity_squared(3, 1, 0), 0);
}

TEST(TreeSensitivity, GrowsWithParticipationsAndStepsAndFallsWithSeparation) {
  for (const std::uint32_t separation : {2u, 7u, 50u, 333u}) {
    for (const std::uint64_t participations : {std::uint64_t{4}, kUnlimited}) {
      const double here = tree_sensitivity_squared(participations, separation, 3000);
      EXPECT_GE(tree_sensitivity_squared(participations + 1, separation, 3000), here);
      EXPECT_GE(tree_sensitivity_squared(participations, separation, 3001), here);
      EXPECT_LE(tree_sensitivity_squared(participations, separation + 1, 3000), here);
      EXPECT_LE(prefix_tree_sensitivity_squared(participations, separation, 3000), here);
    }
  }
}

TEST(TreeSensitivity, AllowsTheMostRoundsThatFit) {
  // google-deepmind/jax_privacy@8967688c sensitivity_test L61-90: of 5 rounds, 1 … 6 apart, at most 5, 3, 2, 2, 1, 1.
  // Of bandwidth 1 the matrix is the identity, and the sensitivity counts the rounds.
  const double most[] = {5, 3, 2, 2, 1, 1};
  for (std::uint32_t separation = 1; separation <= 6; ++separation) {
    EXPECT_EQ(banded_sensitivity_squared(1, kUnlimited, separation, 5), most[separation - 1]) << separation;
  }
}

TEST(BandedSensitivity, CoefficientsAreTheSquareRootOfThePrefixSums) {
  const std::vector<double> c = square_root_coefficients(64);
  EXPECT_EQ(c[0], 1);
  EXPECT_EQ(c[1], 0.5);
  EXPECT_EQ(c[2], 0.375);
  // C C = the matrix of ones: every convolution sums to 1.
  for (std::size_t k = 0; k < c.size(); ++k) {
    double sum = 0;
    for (std::size_t i = 0; i <= k; ++i) sum += c[i] * c[k - i];
    EXPECT_NEAR(sum, 1, 1e-14) << k;
  }
}

TEST(BandedSensitivity, IsTheMaximumOverAllPatterns) {
  for (const std::uint32_t steps : {1u, 2u, 5u, 9u, 12u}) {
    for (std::uint32_t bandwidth = 1; bandwidth <= 6; ++bandwidth) {
      for (std::uint32_t separation = 1; separation <= 7; ++separation) {
        for (const std::uint64_t participations : {std::uint64_t{1}, std::uint64_t{2}, kUnlimited}) {
          const double expected = largest(participations, separation, steps, [&](std::uint32_t rounds) {
            return moved_in_bands(rounds, steps, bandwidth);
          });
          EXPECT_NEAR(banded_sensitivity_squared(bandwidth, participations, separation, steps), expected,
                      1e-12 * expected)
              << bandwidth << " " << participations << " " << separation << " " << steps;
        }
      }
    }
  }
}

TEST(BandedSensitivity, AddsColumnsThatDoNotOverlap) {
  // Bandwidth 3: a whole column has 1 + 1/4 + 9/64 = 89/64, the last but one row 1 + 1/4, the last 1. Rounds 1, 5, 9 of
  // 10: two whole, one cut.
  EXPECT_DOUBLE_EQ(banded_sensitivity_squared(3, kUnlimited, 4, 10), 2 * 89.0 / 64 + 1.25);
  EXPECT_DOUBLE_EQ(banded_sensitivity_squared(3, 2, 4, 10), 2 * 89.0 / 64);
  EXPECT_DOUBLE_EQ(banded_sensitivity_squared(3, kUnlimited, 4, 9), 2 * 89.0 / 64 + 1);
  EXPECT_EQ(banded_sensitivity_squared(3, 0, 4, 9), 0);
  EXPECT_EQ(banded_sensitivity_squared(3, 1, 4, 0), 0);
}

TEST(Sensitivities, RefuseMoreRoundsThanTheyCanSearch) {
  EXPECT_EQ(test::error_of([] { tree_sensitivity_squared(1, 1, 131073); }),
            "rounds: 131073; expected at most 131072 for a mechanism with correlated noise");
  EXPECT_EQ(test::error_of([] { banded_sensitivity_squared(1, 1, 1, 16777217); }),
            "rounds: 16777217; expected at most 16777216 for a mechanism with correlated noise");
}

}  // namespace
}  // namespace fl
