#include "privacy/accounting/privacy_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "fl_core/base/error.h"

namespace fl {
namespace {

constexpr double kEta = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

double connect_dots(double p, double q, double low, double p_error, double q_error, double interval) {
  // Beyond, q is no longer a normal number. All of p may go up: that costs one interval of a loss of more than 600.
  if (low > 600) return p;
  const double factor = std::exp(low);
  const double error = p_error + (q_error + 2 * kEta * std::abs(low) * q) * factor;
  return std::clamp((p - q * factor + error) / -std::expm1(-interval), 0.0, p);
}

DeltaCurve::DeltaCurve(const Grid& grid, std::vector<double> masses, double elsewhere, double error)
    : grid_(grid), values_(std::move(masses)), elsewhere_(elsewhere) {
  FL_CHECK(!values_.empty(), "a curve of no masses");
  // With a(i) = Σ_{j>=i} m(j) e^(-tilt (x_j - x_i)) and c(i) the same with the factor 1 - e^(x_i - x_j): sums of
  // positive terms only, so that no digit is lost however small δ is.
  const double decay = std::exp(-grid.tilt * grid.interval);
  const double gap = -std::expm1(-grid.interval);
  const double rounding = 1 + 4 * kEta * static_cast<double>(values_.size() + 8);
  double tail = 0;
  double value = 0;
  for (std::size_t i = values_.size(); i-- > 0;) {
    value = decay * (gap * tail + (1 - gap) * value);
    tail = values_[i] + decay * tail;
    values_[i] = std::max(0.0, value * rounding + error);
  }
  bottom_mass_ = tail;
}

double DeltaCurve::at(std::int64_t i) const {
  const double value = values_[static_cast<std::size_t>(i)];
  if (value <= 0) return elsewhere_;
  return elsewhere_ + std::exp(std::log(value) + grid_.log_scale - grid_.tilt * loss(i));
}

double DeltaCurve::delta(double epsilon) const {
  const auto top = static_cast<std::int64_t>(values_.size()) - 1;
  if (epsilon >= loss(top)) return std::min(1.0, at(top));
  if (epsilon < loss(0)) {
    // Below every loss all of them count: Σ m (1 - e^(ε - x)) = Σ m - e^(ε - x_0) (Σ m - c(0)).
    const double scale = std::exp(grid_.log_scale);
    const double finite = scale * (bottom_mass_ - std::exp(epsilon - loss(0)) * (bottom_mass_ - values_[0]));
    return std::min(1.0, elsewhere_ + finite);
  }
  const auto below = std::clamp(static_cast<std::int64_t>(std::floor(epsilon / grid_.interval)) - grid_.first,
                                std::int64_t{0}, top - 1);
  // Linear in e^ε between two grid points.
  const double to_next = std::expm1(std::max(0.0, loss(below + 1) - epsilon));
  const double part = std::clamp(to_next / (to_next - std::expm1(loss(below) - epsilon)), 0.0, 1.0);
  return std::min(1.0, at(below + 1) + part * (at(below) - at(below + 1)));
}

double DeltaCurve::epsilon(double delta) const {
  auto high = static_cast<std::int64_t>(values_.size()) - 1;
  if (at(high) > delta) return kInfinity;
  if (loss(high) <= 0) return 0;
  std::int64_t low = std::max<std::int64_t>(0, -grid_.first);
  if (at(low) <= delta) {
    if (low > 0 || loss(0) <= 0) return 0;
    if (grid_.tilt > 0) return loss(0);
    if (this->delta(0) <= delta) return 0;
    // Solved for e^ε below the lowest loss, see delta().
    const double scale = std::exp(grid_.log_scale);
    const double ratio = (scale * bottom_mass_ + elsewhere_ - delta) / (scale * (bottom_mass_ - values_[0]));
    return std::clamp(loss(0) + std::log(ratio), 0.0, loss(0));
  }
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (at(middle) > delta ? low : high) = middle;
  }
  const double part = (delta - at(high)) / (at(low) - at(high));
  return std::max(0.0, loss(high) + std::log1p(part * std::expm1(-grid_.interval)));
}

double PrivacyLosses::delta(double epsilon) const {
  if (mass.empty()) return std::min(1.0, infinity);
  return DeltaCurve({interval, first, 0, 0}, mass, infinity, 0).delta(epsilon);
}

double PrivacyLosses::epsilon(double delta) const {
  if (mass.empty()) return infinity > delta ? kInfinity : 0;
  return DeltaCurve({interval, first, 0, 0}, mass, infinity, 0).epsilon(delta);
}

PrivacyLosses PrivacyLosses::composed_with(const PrivacyLosses& other) const {
  if (interval != other.interval) {
    throw ConfigError("privacy losses with the intervals " + std::to_string(interval) + " and " +
                      std::to_string(other.interval) + " cannot be composed: discretise both with the same interval");
  }
  PrivacyLosses sum{interval, first + other.first, {}, infinity + other.infinity - infinity * other.infinity};
  if (mass.empty() || other.mass.empty()) return sum;
  sum.mass.assign(mass.size() + other.mass.size() - 1, 0.0);
  for (std::size_t i = 0; i < mass.size(); ++i) {
    for (std::size_t j = 0; j < other.mass.size(); ++j) sum.mass[i + j] += mass[i] * other.mass[j];
  }
  return sum;
}

PrivacyLosses losses_of_outcomes(std::span<const double> upper, std::span<const double> lower, double interval) {
  FL_CHECK(upper.size() == lower.size() && interval > 0, "outcomes of a mechanism");
  PrivacyLosses losses{interval, 0, {}, 0};
  const auto cell_of = [&](std::size_t i) {
    return static_cast<std::int64_t>(std::floor((std::log(upper[i]) - std::log(lower[i])) / interval));
  };
  std::int64_t lowest = std::numeric_limits<std::int64_t>::max();
  std::int64_t highest = std::numeric_limits<std::int64_t>::min();
  for (std::size_t i = 0; i < upper.size(); ++i) {
    if (upper[i] > 0 && !(lower[i] > 0)) losses.infinity += upper[i];
    if (!(upper[i] > 0) || !(lower[i] > 0)) continue;
    lowest = std::min(lowest, cell_of(i));
    highest = std::max(highest, cell_of(i));
  }
  if (lowest > highest) return losses;
  losses.first = lowest;
  losses.mass.assign(static_cast<std::size_t>(highest - lowest + 2), 0.0);
  for (std::size_t i = 0; i < upper.size(); ++i) {
    if (!(upper[i] > 0) || !(lower[i] > 0)) continue;
    const std::int64_t cell = cell_of(i);
    const double low = static_cast<double>(cell) * interval;
    const double up = connect_dots(upper[i], lower[i], low, 2 * kEta * upper[i], 2 * kEta * lower[i], interval);
    losses.mass[static_cast<std::size_t>(cell - lowest)] += upper[i] - up;
    losses.mass[static_cast<std::size_t>(cell - lowest + 1)] += up;
  }
  return losses;
}

}  // namespace fl
