#pragma once

#include <cstddef>
#include <span>

namespace fl {

/// What a hypothesis test on the outputs of a mechanism says about its ε.
struct EpsilonBound {
  double epsilon = 0;                ///< the mechanism's ε is at least this, with the confidence that was asked for
  double threshold = 0;              ///< a score of at least this counts as "the canary was there"
  std::size_t evaluated = 0;         ///< trials of each kind that errors were counted in
  std::size_t false_positives = 0;   ///< "there" where it was not
  std::size_t false_negatives = 0;
};

/// The upper end of the one-sided Clopper-Pearson interval: the largest p with P(X <= successes) >= level for X ~ Binomial(trials, p),
/// to 1e-12. 1 where every trial was a success. REQUIRES: successes <= trials, trials > 0, 0 < level < 1.
double clopper_pearson_upper(std::size_t successes, std::size_t trials, double level);

/// Lower bound on ε from scores of independent trials with and without the canary. The threshold is chosen on the first half of each
/// and errors are counted in the second half, so that the choice costs no confidence. (ε, δ) allows no test better than
/// FNR >= 1 - δ - e^ε FPR and FPR >= 1 - δ - e^ε FNR (Kairouz, Oh, Viswanath 2015, 1311.0776), so with upper bounds on both rates,
/// each at half of 1 - confidence, ε >= ln((1 - δ - FNR) / FPR) and the mirrored one (Nasr et al. 2021, 2101.04535); never below 0.
/// REQUIRES: equal lengths, at least 2; finite scores.
EpsilonBound epsilon_lower_bound(std::span<const double> with, std::span<const double> without, double delta, double confidence);

/// What epsilon_lower_bound() says of `trials` of each kind when the test never errs: no larger ε can be shown.
double most_epsilon(std::size_t trials, double delta, double confidence);

}  // namespace fl
