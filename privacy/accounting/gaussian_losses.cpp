// The privacy losses of the Poisson-subsampled Gaussian, see privacy_loss.h.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "fl_core/base/error.h"
#include "privacy/accounting/privacy_loss.h"

namespace fl {
namespace {

constexpr double kEta = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// One outcome x of the noisy sum, in records: the probabilities of both sides of x under N(-1), N(0) and N(1).
struct Point {
  std::array<double, 3> below;
  std::array<double, 3> above;
  std::array<double, 3> error;  ///< of the smaller side, relative
};

/// The pair (P, Q) of GaussianLosses::remove; its loss grows with the outcome.
class Pair {
 public:
  explicit Pair(const GaussianLossesShape& shape)
      : q_(shape.q),
        sigma_(shape.noise_multiplier),
        variance_(sigma_ * sigma_),
        reach_(shape.reach),
        replace_(shape.adjacency == Adjacency::replace_one) {}

  /// Losses of the outcomes that are looked at.
  double lowest() const { return loss((q_ == 1 ? 1 : 0) - reach_ * sigma_); }
  double highest() const { return loss(1 + reach_ * sigma_); }
  bool symmetric() const { return q_ == 1 || replace_; }

  /// The outcome with this loss; -infinity where every outcome has a larger one.
  double outcome(double loss) const {
    if (replace_) return variance_ * (loss / 2 + std::copysign(replace_term(std::abs(loss)), loss));
    if (loss > 30) return variance_ * (loss + std::log1p((q_ - 1) * std::exp(-loss)) - std::log(q_)) + 0.5;
    const double ratio = std::expm1(loss) / q_;
    return ratio <= -1 ? -kInfinity : variance_ * std::log1p(ratio) + 0.5;
  }

  Point point(double x) const {
    Point point{};
    for (int mean = replace_ ? -1 : 0; mean <= 1; ++mean) {
      const double z = (x - mean) / sigma_ / std::numbers::sqrt2;
      const auto i = static_cast<std::size_t>(mean + 1);
      // The smaller side from erfc, so that tails keep all their digits.
      if (z < 0) {
        point.below[i] = 0.5 * std::erfc(-z);
        point.above[i] = 1 - point.below[i];
      } else {
        point.above[i] = 0.5 * std::erfc(z);
        point.below[i] = 1 - point.above[i];
      }
      // The rounding of z moves the tail by z² times as much; erfc and the difference take the rest.
      point.error[i] = kEta * (4 + 2 * std::min(z * z, reach_ * reach_));
    }
    return point;
  }

  /// (P, Q) of three parts for N(-1), N(0), N(1).
  std::array<double, 2> mixed(const std::array<double, 3>& part) const {
    const double stay = (1 - q_) * part[1];
    return {stay + q_ * part[2], replace_ ? stay + q_ * part[0] : part[1]};
  }

 private:
  double loss(double x) const {
    const double up = log_mixture((2 * x - 1) / (2 * variance_));
    return replace_ ? up - log_mixture((-2 * x - 1) / (2 * variance_)) : up;
  }

  /// ln(1 - q + q e^u)
  double log_mixture(double u) const {
    if (q_ == 1) return u;
    if (u > 30) return u + std::log(q_) + std::log1p((1 - q_) / q_ * std::exp(-u));
    return std::log1p(q_ * std::expm1(u));
  }

  /// asinh((1 - q)/(q c) · sinh(loss/2)), c = e^(-1/(2σ²)): from ln P - ln Q = loss, a quadratic in e^(x/σ²).
  double replace_term(double loss) const {
    if (q_ == 1 || loss == 0) return 0;
    const double log_sinh = loss / 2 - std::numbers::ln2 + std::log(-std::expm1(-loss));
    const double log_argument = std::log1p(-q_) - std::log(q_) + 1 / (2 * variance_) + log_sinh;
    return log_argument > 20 ? log_argument + std::numbers::ln2 : std::asinh(std::exp(log_argument));
  }

  double q_;
  double sigma_;
  double variance_;
  double reach_;
  bool replace_;
};

/// The probability of (a, b] from the sides of a and b, by the difference that keeps the digits.
double between(const Point& a, const Point& b, std::size_t i) {
  return std::max(0.0, a.above[i] < 0.5 ? a.above[i] - b.above[i] : b.below[i] - a.below[i]);
}

/// Fills both directions cell by cell.
class Builder {
 public:
  Builder(const Pair& pair, double interval, std::int64_t first, std::int64_t last, bool both)
      : pair_(pair), interval_(interval), first_(first), last_(last) {
    const auto size = static_cast<std::size_t>(last - first + 1);
    out_.remove = {interval, first, std::vector<double>(size, 0.0), 0};
    out_.add.interval = interval;
    if (both) out_.add = {interval, -last, std::vector<double>(size, 0.0), 0};
  }

  GaussianLosses run() {
    Point point = pair_.point(pair_.outcome(loss(first_)));
    bottom(point);
    for (std::int64_t i = first_; i < last_; ++i) {
      const Point next = pair_.point(pair_.outcome(loss(i + 1)));
      cell(i, point, next);
      point = next;
    }
    top(point);
    return std::move(out_);
  }

 private:
  double loss(std::int64_t i) const { return static_cast<double>(i) * interval_; }
  bool both() const { return !out_.add.mass.empty(); }
  double& remove(std::int64_t i) { return out_.remove.mass[static_cast<std::size_t>(i - first_)]; }
  double& add(std::int64_t i) { return out_.add.mass[static_cast<std::size_t>(last_ - i)]; }

  void cell(std::int64_t i, const Point& a, const Point& b) {
    std::array<double, 3> part{};
    std::array<double, 3> error{};
    for (std::size_t k = 0; k < 3; ++k) {
      part[k] = between(a, b, k);
      error[k] = std::min(b.below[k], a.above[k]) * std::max(a.error[k], b.error[k]);
    }
    const auto [p, q] = pair_.mixed(part);
    const auto [p_error, q_error] = pair_.mixed(error);
    const double up = connect_dots(p, q, loss(i), p_error, q_error, interval_);
    remove(i) += p - up;
    remove(i + 1) += up;
    if (!both()) return;
    // Seen the other way round, the cell lies between -loss(i + 1) and -loss(i).
    const double add_up = connect_dots(q, p, -loss(i + 1), q_error, p_error, interval_);
    add(i + 1) += q - add_up;
    add(i) += add_up;
  }

  /// Outcomes below the grid: moved up for `remove`; for `add` they are the top.
  void bottom(const Point& point) {
    const auto [p, q] = pair_.mixed(point.below);
    remove(first_) += p;
    if (both()) beyond(out_.add, add(first_), q, p, -loss(first_));
  }

  void top(const Point& point) {
    const auto [p, q] = pair_.mixed(point.above);
    beyond(out_.remove, remove(last_), p, q, loss(last_));
    if (both()) add(last_) += q;
  }

  /// The dots of the highest grid point and infinity: q e^loss stays there, the rest of p is infinite.
  static void beyond(PrivacyLosses& losses, double& highest, double p, double q, double loss) {
    const double finite = loss > 600 ? 0 : std::min(p, q * std::exp(loss) * (1 - kEta * (8 + std::abs(loss))));
    highest += finite;
    losses.infinity += p - finite;
  }

  const Pair& pair_;
  double interval_;
  std::int64_t first_;
  std::int64_t last_;
  GaussianLosses out_;
};

}  // namespace

double GaussianLossesShape::count() const {
  const Pair pair(*this);
  const double places = (pair.highest() - pair.lowest()) / interval + 2;
  const double farthest = std::max(std::abs(pair.highest()), std::abs(pair.lowest())) / interval;
  return farthest < 1e15 ? places : kInfinity;
}

GaussianLosses losses_of_gaussian(const GaussianLossesShape& shape) {
  FL_CHECK(shape.q > 0 && shape.q <= 1 && shape.interval > 0, "a Gaussian's privacy losses");
  FL_CHECK(shape.count() <= 1 << 24, "more privacy losses than 2^24");
  const Pair pair(shape);
  const auto first = static_cast<std::int64_t>(std::floor(pair.lowest() / shape.interval));
  const auto last = static_cast<std::int64_t>(std::ceil(pair.highest() / shape.interval));
  return Builder(pair, shape.interval, first, std::max(last, first + 1), !pair.symmetric()).run();
}

}  // namespace fl
