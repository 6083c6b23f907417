#include "privacy/accounting/rdp.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>

#include "fl_core/base/error.h"

namespace fl {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
/// Terms that are e^-50 of the largest one change nothing.
constexpr double kNothing = 50;
/// Added to the log of every sum: more than its rounding errors, so that it is never low.
constexpr double kSafety = 1e-9;
/// Below this noise the quadrature would need too many points; the chord between integer orders is an upper bound as
/// well.
constexpr double kLeastQuadratureNoise = 1e-3;

/// log Σ e^x of a stream.
class LogSum {
 public:
  void add(double x) {
    if (x == -kInfinity) return;
    if (x > most_) {
      sum_ = sum_ * std::exp(most_ - x) + 1;
      most_ = x;
    } else {
      sum_ += std::exp(x - most_);
    }
  }
  double most() const { return most_; }
  double log() const { return most_ + std::log(sum_); }

 private:
  double most_ = -kInfinity;
  double sum_ = 0;
};

/// log(1 + e^x)
double softplus(double x) { return x > 40 ? x : std::log1p(std::exp(x)); }

double log_expm1(double x) { return x > 40 ? x : std::log(std::expm1(x)); }

double log_binomial(double n, double k) { return std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1); }

/// log(A − 1) at an integer order, A = Σ_k binom(α,k) (1−q)^{α−k} q^k e^{k(k−1)/(2σ²)}. The same sum without the
/// exponential is 1, so A − 1 is the sum with expm1 in its place, and has positive terms only. Where a term is nothing,
/// it skips as far as no term can have become something: one step of k multiplies by at most 3 α/k · q/(1−q) ·
/// e^{α/σ²}.
double integer_log_excess(double q, double sigma, double order) {
  const double log_q = std::log(q);
  const double log_rest = std::log1p(-q);
  const auto term = [&](double k, double binomial) {
    return binomial + k * log_q + (order - k) * log_rest + log_expm1(k * (k - 1) / (2 * sigma * sigma));
  };
  LogSum sum;
  sum.add(term(order, 0));
  const double nothing = kNothing + std::log(order);
  double binomial = std::log(order) + std::log((order - 1) / 2);
  for (double k = 2; k < order;) {
    const double here = term(k, binomial);
    sum.add(here);
    const double missing = sum.most() - nothing - here;
    const double steepest = std::log(3 * order / k) + log_q - log_rest + order / (sigma * sigma);
    if (missing > 0 && missing > (order - k) * steepest) break;
    const double skip = missing > 0 ? std::floor(missing / steepest) : 0;
    if (skip >= 2) {
      k += skip;
      binomial = log_binomial(order, k);
    } else {
      binomial += std::log((order - k) / (k + 1));
      ++k;
    }
  }
  return sum.log();
}

/// log((1+y)^α − 1 − αy) at 1 + y = 1 − q + q e^x: not negative for α > 1 (Bernoulli), and with mean A − 1, because the
/// mean of y is 0.
double log_excess_at(double q, double x, double order) {
  if (x > 500) {
    const double log_ratio = x + std::log(q) + std::log1p((1 - q) / q * std::exp(-x));
    return order * log_ratio + std::log1p(-order * std::exp(-(order - 1) * log_ratio));
  }
  const double y = q * std::expm1(x);
  if (std::abs(y) * order > 0.25) {
    const double power = order * std::log1p(y);
    if (power < 600) return std::log(std::expm1(power) - order * y);
    return power + std::log1p(-(1 + order * y) * std::exp(-power));
  }
  double term = order * (order - 1) / 2 * y * y;
  double sum = term;
  for (double k = 2; std::abs(term) > 1e-18 * std::abs(sum); ++k) {
    term *= (order - k) / (k + 1) * y;
    sum += term;
  }
  return std::log(sum);
}

/// log(A − 1) at any order by the trapezoidal rule in u = z/σ, which converges exponentially for a function that is
/// analytic in a strip around the real line: here of half-width πσ, where 1 − q + q e^x has its zero. As a function of
/// u the integrand is, up to constant factors, φ(u) times 1, y² and y^α in three intervals in turn: nearly nothing
/// beyond some widths of these pieces' peaks and of their border.
double quadrature_log_excess(double q, double sigma, double order) {
  constexpr double kReach = 12;
  const double strip = std::min(3 * sigma, 6.0);
  const double step = 2 * std::numbers::pi * strip / (strip * strip / 2 + 40);
  const double border = sigma * (std::log1p(-q) - std::log(q)) + 1 / (2 * sigma);
  std::array<double, 4> peaks{0, 2 / sigma, order / sigma, border};
  std::sort(peaks.begin(), peaks.end());
  LogSum sum;
  double done = -kInfinity;  // in steps
  for (const double peak : peaks) {
    const double from = std::max(done + 1, std::floor((peak - kReach) / step));
    const double to = std::ceil((peak + kReach) / step);
    for (double i = from; i <= to; ++i) {
      const double u = i * step;
      sum.add(log_excess_at(q, (u - 1 / (2 * sigma)) / sigma, order) - u * u / 2);
    }
    done = std::max(done, to);
  }
  return sum.log() + std::log(step) - 0.5 * std::log(2 * std::numbers::pi);
}

/// (α − 1) times a divergence is convex in α and 0 at 1: the chord between integer orders is above it.
template <class Divergence>
double chord(double order, Divergence divergence) {
  const double below = std::floor(order);
  if (below == order) return divergence(order);
  const double at_below = below > 1 ? (below - 1) * divergence(below) : 0;
  const double at_above = below * divergence(below + 1);
  return (at_below + (order - below) * (at_above - at_below)) / (order - 1);
}

}  // namespace

double subsampled_gaussian_rdp(double sampling_rate, double noise_multiplier, double order) {
  FL_CHECK(order > 1, "order > 1");
  if (sampling_rate == 0) return 0;
  if (noise_multiplier == 0) return kInfinity;
  if (std::isinf(noise_multiplier)) return 0;
  const double sigma = noise_multiplier;
  if (sampling_rate == 1) return order / (2 * sigma * sigma);
  // Sampling never makes it worse: also where a chord or rounding would say so.
  const double unsampled = order / (2 * sigma * sigma);
  if (order != std::floor(order) && sigma < kLeastQuadratureNoise) {
    return std::min(unsampled, chord(order, [&](double integer) {
                      return subsampled_gaussian_rdp(sampling_rate, sigma, integer);
                    }));
  }
  const double log_excess = order == std::floor(order) ? integer_log_excess(sampling_rate, sigma, order)
                                                       : quadrature_log_excess(sampling_rate, sigma, order);
  return std::min(unsampled, softplus(log_excess + kSafety + 1e-14 * std::abs(log_excess)) / (order - 1));
}

double discrete_gaussian_gap(const PrivacyEvent& event) {
  const double rate = 2 * std::numbers::pi * std::numbers::pi * event.local_stddev * event.local_stddev;
  // k/(k+1) >= 1/2: nothing is left once half the exponent is.
  if (event.clients < 2) return 0;
  if (rate / 2 > 800) return 0;
  const double most = 1e6;
  const auto clients = static_cast<double>(event.clients);
  double sum = 0;
  for (double k = 1; k < std::min(clients, most); ++k) sum += std::exp(-rate * k / (k + 1));
  // The rest is below its limit's first term: k/(k+1) >= 1 − 1/most.
  if (clients > most) sum += (clients - most) * std::exp(-rate * (1 - 1 / most));
  return 10 * sum;
}

double discrete_gaussian_rho(const PrivacyEvent& event, double factor) {
  if (event.l2_bound == 0) return 0;
  // The theorem on the sum of several asks for a local variance of at least 1/4.
  if (event.local_stddev < (event.clients > 1 ? 0.5 : std::numeric_limits<double>::min())) return kInfinity;
  const double tau = discrete_gaussian_gap(event);
  const double stddev = std::sqrt(static_cast<double>(event.clients)) * event.local_stddev;
  const auto dimension = static_cast<double>(event.dimension);
  const double l2 = factor * event.l2_bound / stddev;
  const double l1 = factor * event.l1_bound / stddev;
  const double far = l2 + std::sqrt(dimension) * tau;
  return std::min(l2 * l2 + 2 * l1 * tau + tau * tau * dimension, far * far) / 2;
}

double discrete_gaussian_rdp(const PrivacyEvent& event, double order) {
  FL_CHECK(order > 1, "order > 1");
  const double rho = discrete_gaussian_rho(event, 1);
  if (rho == 0 || std::isinf(rho)) return rho;
  const double l2 = event.l2_bound / event.local_stddev;
  return std::min(order * l2 * l2 / (2 * static_cast<double>(event.clients)) +
                      discrete_gaussian_gap(event) * static_cast<double>(event.dimension),
                  order * rho);
}

double skellam_rdp(const PrivacyEvent& event, double order) {
  FL_CHECK(order > 1, "order > 1");
  if (event.l2_bound == 0) return 0;
  if (event.local_stddev == 0) return kInfinity;
  const double variance = static_cast<double>(event.clients) * event.local_stddev * event.local_stddev;
  const double squared = event.l2_bound * event.l2_bound;
  return chord(order, [&](double integer) {
    const double gap = std::min(((2 * integer - 1) * squared + 6 * event.l1_bound) / (4 * variance * variance),
                                3 * event.l1_bound / (2 * variance));
    return integer * squared / (2 * variance) + gap;
  });
}

double event_rdp(const PrivacyEvent& event, double order, Adjacency adjacency) {
  if (event.count == 0) return 0;
  const auto count = static_cast<double>(event.count);
  const double factor = adjacency == Adjacency::replace_one ? 2 : 1;
  if (event.kind == PrivacyEvent::Kind::gaussian) {
    if (factor == 2 && event.sampling_rate > 0 && event.sampling_rate < 1) {
      throw ConfigError("accountant rdp: replace_one with a sampling rate of " + std::to_string(event.sampling_rate) +
                        "; expected the accountant pld, which can judge both together");
    }
    return count * subsampled_gaussian_rdp(event.sampling_rate, event.noise_multiplier / factor, order);
  }
  PrivacyEvent moved = event;
  moved.l2_bound *= factor;
  moved.l1_bound *= factor;
  return count *
         (event.kind == PrivacyEvent::Kind::skellam ? skellam_rdp(moved, order) : discrete_gaussian_rdp(moved, order));
}

const std::vector<double>& rdp_orders() {
  static const std::vector<double> orders = [] {
    std::vector<double> made;
    for (int tenths = 11; tenths < 110; ++tenths) made.push_back(tenths / 10.0);
    for (int order = 11; order < 64; ++order) made.push_back(order);
    for (int quarters = 24; quarters <= 68; ++quarters) made.push_back(std::round(std::exp2(quarters / 4.0)));
    return made;
  }();
  return orders;
}

double rdp_epsilon(std::span<const double> orders, std::span<const double> rdp, double delta) {
  FL_CHECK(orders.size() == rdp.size(), "one divergence an order");
  double epsilon = kInfinity;
  for (std::size_t i = 0; i < orders.size(); ++i) {
    const double order = orders[i];
    if (rdp[i] == 0 || delta * delta + std::expm1(-rdp[i]) > 0) return 0;
    if (order > 1.01)
      epsilon = std::min(epsilon, rdp[i] + std::log1p(-1 / order) - std::log(delta * order) / (order - 1));
  }
  return std::max(0.0, epsilon);
}

double rdp_delta(std::span<const double> orders, std::span<const double> rdp, double epsilon) {
  FL_CHECK(orders.size() == rdp.size(), "one divergence an order");
  double log_delta = 0;
  for (std::size_t i = 0; i < orders.size(); ++i) {
    const double order = orders[i];
    log_delta = std::min(log_delta, 0.5 * std::log(-std::expm1(-rdp[i])));
    if (order > 1.01)
      log_delta = std::min(log_delta, (order - 1) * (rdp[i] - epsilon + std::log1p(-1 / order)) - std::log(order));
  }
  return std::exp(log_delta);
}

}  // namespace fl
