#pragma once

#include <cstdint>
#include <vector>

namespace fl {

// How far one client can move everything that a correlated-noise mechanism measures, when it takes part in at most
// `participations` of `steps` rounds, any two of them at least `separation` rounds apart: round t and then t +
// separation is allowed, 1 is no limit. (Tensorflow Privacy's min_separation counts the rounds in between: one less.)
// Squared L2 norm in units of the clip norm, for add_or_remove_one: a client adds any vector of norm <= 1 in each of
// its rounds. All releases together are then one Gaussian mechanism of noise multiplier stddev / sqrt(result). 0 where
// participations or steps is 0. All REQUIRE separation >= 1; ConfigError "rounds" for more than 2^24 steps, for trees
// 2^17.

/// Tree aggregation that releases the noisy sum of every complete dyadic interval ((i−1)·2^l, i·2^l] of 1 … steps
/// (Kairouz et al. 2103.00039, no restarts): the exact maximum of Σ over intervals of (participations inside)². Dynamic
/// programming over the tree; some 20 ms, at most 100 ms, for 10 000 steps; a second for 100 000.
double tree_sensitivity_squared(std::uint64_t participations, std::uint32_t separation, std::uint32_t steps);

/// The same where only the sums of rounds 1 … t are released: they are made of the intervals with odd i alone. Up to
/// half as much.
double prefix_tree_sensitivity_squared(std::uint64_t participations, std::uint32_t separation, std::uint32_t steps);

/// Coefficients c_0 … c_{bandwidth−1} of the square root of the prefix sums: c_0 = 1, c_k = c_{k−1} (2k − 1) / (2k)
/// (Fichtenberger, Henzinger, Upadhyay 2202.11205). They fall and are positive.
std::vector<double> square_root_coefficients(std::uint32_t bandwidth);

/// Banded square-root factorisation: C x + noise with C lower triangular Toeplitz, steps x steps, of the coefficients
/// above. The exact maximum: inner products of columns are not negative and fall with their distance and position, so
/// rounds 1, 1 + separation, … are worst. With separation >= bandwidth the columns do not overlap: the sum of their
/// squared norms (Choquette-Choo et al. 2306.08153). O(steps · bandwidth / separation + steps). REQUIRES: bandwidth
/// >= 1.
double banded_sensitivity_squared(std::uint32_t bandwidth, std::uint64_t participations, std::uint32_t separation,
                                  std::uint32_t steps);

}  // namespace fl
