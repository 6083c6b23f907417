#include "simulations/audit_bound.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "fl_core/base/error.h"

namespace fl {
namespace {

/// ln P(X <= successes) for X ~ Binomial(trials, p), 0 < p < 1, summed from its largest term.
double log_at_most(std::size_t successes, std::size_t trials, double p) {
  const auto n = static_cast<double>(trials);
  const double odds = std::log(p) - std::log1p(-p);
  double top = -INFINITY;
  std::vector<double> terms(successes + 1);
  for (std::size_t k = 0; k <= successes; ++k) {
    const auto x = static_cast<double>(k);
    terms[k] = std::lgamma(n + 1) - std::lgamma(x + 1) - std::lgamma(n - x + 1) + x * odds + n * std::log1p(-p);
    top = std::max(top, terms[k]);
  }
  double sum = 0;
  for (const double term : terms) sum += std::exp(term - top);
  return top + std::log(sum);
}

/// The same upper bound roughly (Wilson's interval), in closed form: good enough to compare thresholds with.
double roughly_upper(std::size_t successes, std::size_t trials) {
  constexpr double kDeviations = 1.96;
  const auto n = static_cast<double>(trials);
  const double rate = static_cast<double>(successes) / n;
  const double squared = kDeviations * kDeviations / n;
  return (rate + squared / 2 + kDeviations * std::sqrt(rate * (1 - rate) / n + squared / (4 * n))) / (1 + squared);
}

/// Below 0 where the rates prove nothing.
double proven(double fpr, double fnr, double delta) {
  const auto one = [&](double a, double b) { return 1 - delta - b > 0 ? std::log((1 - delta - b) / a) : -INFINITY; };
  return std::max(one(fpr, fnr), one(fnr, fpr));
}

/// Midway between two neighbouring scores, so that where the two kinds lie apart the threshold lies between them.
double choose_threshold(std::span<const double> with, std::span<const double> without, double delta) {
  std::vector<double> present(with.begin(), with.end());
  std::vector<double> absent(without.begin(), without.end());
  std::sort(present.begin(), present.end());
  std::sort(absent.begin(), absent.end());
  std::vector<double> all(present.size() + absent.size());
  std::merge(present.begin(), present.end(), absent.begin(), absent.end(), all.begin());
  double best = -INFINITY;
  double threshold = all.front();
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (all[i] == all[i - 1]) continue;
    const double candidate = all[i - 1] + (all[i] - all[i - 1]) / 2;
    const auto missed = static_cast<std::size_t>(std::lower_bound(present.begin(), present.end(), candidate) - present.begin());
    const auto rightly = static_cast<std::size_t>(std::lower_bound(absent.begin(), absent.end(), candidate) - absent.begin());
    const double bound = proven(roughly_upper(absent.size() - rightly, absent.size()), roughly_upper(missed, present.size()), delta);
    if (bound > best) {
      best = bound;
      threshold = candidate;
    }
  }
  return threshold;
}

}  // namespace

double clopper_pearson_upper(std::size_t successes, std::size_t trials, double level) {
  FL_CHECK(trials > 0 && successes <= trials, "more successes than trials");
  if (successes == trials) return 1;
  const double wanted = std::log(level);
  double low = static_cast<double>(successes) / static_cast<double>(trials);
  double high = 1;
  while (high - low > 1e-12) {
    const double middle = low + (high - low) / 2;
    (log_at_most(successes, trials, middle) >= wanted ? low : high) = middle;
  }
  return high;
}

EpsilonBound epsilon_lower_bound(std::span<const double> with, std::span<const double> without, double delta, double confidence) {
  FL_CHECK(with.size() == without.size() && with.size() >= 2, "a test needs as many trials of either kind");
  const std::size_t half = with.size() / 2;
  EpsilonBound bound;
  bound.threshold = choose_threshold(with.first(half), without.first(half), delta);
  bound.evaluated = with.size() - half;
  for (const double score : with.subspan(half)) bound.false_negatives += score < bound.threshold ? 1 : 0;
  for (const double score : without.subspan(half)) bound.false_positives += score >= bound.threshold ? 1 : 0;
  const double level = (1 - confidence) / 2;
  const double fpr = clopper_pearson_upper(bound.false_positives, bound.evaluated, level);
  const double fnr = clopper_pearson_upper(bound.false_negatives, bound.evaluated, level);
  bound.epsilon = std::max(0.0, proven(fpr, fnr, delta));
  return bound;
}

double most_epsilon(std::size_t trials, double delta, double confidence) {
  const double upper = clopper_pearson_upper(0, trials - trials / 2, (1 - confidence) / 2);
  return std::max(0.0, proven(upper, upper, delta));
}

}  // namespace fl
