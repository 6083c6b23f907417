#include "privacy/accounting/analytic_gaussian.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "fl_core/base/error.h"

namespace fl {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUlp = std::numeric_limits<double>::epsilon();
const double kLogRootTwoPi = 0.5 * std::log(2 * std::numbers::pi);

/// Mills ratio Φ(−x) / φ(x), which neither under- nor overflows for x >= 0.
double mills(double x) {
  if (x < 12) return std::sqrt(std::numbers::pi / 2) * std::exp(0.5 * x * x) * std::erfc(x / std::numbers::sqrt2);
  // Laplace's continued fraction 1/(x + 1/(x + 2/(x + 3/(x + …)))): from x = 12 on, 40 terms are below 1e-16.
  double rest = x;
  for (int k = 40; k > 0; --k) rest = x + k / rest;
  return 1 / rest;
}

/// log of ∫₀^∞ (1 − e^{−µs}) e^{−ts − s²/2} ds = mills(t) − mills(t + µ) for µ <= max(1, t) and t >= −µ/2, where the
/// difference would cancel. The trapezoidal rule in v = log s converges like e^{−π²/(2h)}, h its step.
double log_small_difference(double t, double mu) {
  constexpr double kStep = 0.125;
  const double scale = 1 / std::max(1.0, t);
  double sum = 0;
  for (int i = -176; i <= 36; ++i) {
    const double s = scale * std::exp(kStep * i);
    sum += s * -std::expm1(-mu * s) * std::exp(-s * (t + 0.5 * s));
  }
  return std::log(kStep * sum);
}

/// log δ, rounded up. µ = 1/σ and t = ε/µ − µ/2: δ = Φ(−t) − e^ε Φ(−t − µ) = φ(t) (mills(t) − mills(t + µ)).
double log_delta(double mu, double epsilon) {
  const double t = epsilon / mu - mu / 2;
  // Errors of t, of the squares and of the last steps, all relative to δ.
  const double slack = 1e-12 + 4 * kUlp * (std::abs(t) * (epsilon / mu + mu) + t * t);
  if (mu <= std::max(1.0, t)) return -0.5 * t * t - kLogRootTwoPi + log_small_difference(t, mu) + slack;
  const double density = -0.5 * t * t - kLogRootTwoPi;
  if (t >= 0) return density + std::log(mills(t) - mills(t + mu)) + slack;
  const double delta = 0.5 * std::erfc(t / std::numbers::sqrt2) - std::exp(density) * mills(t + mu);
  return std::min(0.0, std::log(delta) + slack);
}

}  // namespace

double gaussian_delta(double sigma, double epsilon) {
  FL_CHECK(sigma >= 0 && epsilon >= 0, "sigma, epsilon >= 0");
  if (sigma == 0) return 1;
  if (std::isinf(sigma) || std::isinf(epsilon)) return 0;
  return std::min(1.0, std::exp(log_delta(1 / sigma, epsilon)));
}

double gaussian_epsilon(double sigma, double delta) {
  FL_CHECK(sigma >= 0 && delta > 0 && delta < 1, "sigma >= 0, 0 < delta < 1");
  if (sigma == 0) return kInfinity;
  if (std::isinf(sigma)) return 0;
  const double mu = 1 / sigma;
  const double target = std::log(delta);
  if (log_delta(mu, 0) <= target) return 0;
  // ρ + 2 sqrt(ρ log 1/δ) with ρ = µ²/2 is enough (Bun and Steinke 1605.02065, proposition 1.3).
  double low = 0;
  double high = (0.5 * mu * mu + mu * std::sqrt(-2 * target)) * (1 + 1e-9);
  if (!std::isfinite(high)) return kInfinity;
  for (int i = 0; i < 200 && high - low > 1e-14 * high; ++i) {
    const double middle = low + (high - low) / 2;
    (log_delta(mu, middle) <= target ? high : low) = middle;
  }
  return high;
}

double gaussian_sigma(double epsilon, double delta) {
  FL_CHECK(epsilon >= 0 && delta > 0 && delta < 1, "epsilon >= 0, 0 < delta < 1");
  const double target = std::log(delta);
  const auto enough = [&](double sigma) { return log_delta(1 / sigma, epsilon) <= target; };
  double high = 1;
  while (!enough(high)) high *= 4;
  double low = high / 4;
  while (enough(low)) {
    high = low;
    low /= 4;
  }
  for (int i = 0; i < 200 && high - low > 1e-14 * high; ++i) {
    const double middle = low + (high - low) / 2;
    (enough(middle) ? high : low) = middle;
  }
  return high;
}

}  // namespace fl
