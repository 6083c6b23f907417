#include "privacy/accounting/loss_power.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "fl_core/base/error.h"

namespace fl {
namespace {

constexpr double kEta = std::numeric_limits<double>::epsilon();
/// Logarithms of what windows may leave out, relative to the δ that is looked for: mass above them, which is added to
/// δ, and what of the tilted distribution may reappear in them.
const double kLogAbove = std::log(1e-12);
const double kLogAliased = std::log(1e-11);
/// Chernoff's bound on δ may be so much too large (in logarithms) before a window that was chosen by it is chosen anew.
const double kLogLoose = std::log(1e3);
/// Logarithm of the rounding, relative to the δ that is looked for, that a smaller tilt may bring for a smaller window.
const double kLogRounding = std::log(1e-8);
/// So much more of it is better than no window that fits.
const double kLogMoreRounding = std::log(1e3);
/// A composition of more bases does not let them keep their transforms.
constexpr std::size_t kKeptSpectra = 4;
/// Frequencies below this logarithm are left out.
constexpr double kLogNothing = -60;
/// Steps from one tilt to the next smaller one: a factor √2.
constexpr int kTiltSteps = 2;

/// The place of the minimum of a function on low … high that falls, then rises.
template <class Function>
int place_of_minimum(int low, int high, const Function& function) {
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (function(middle) <= function(middle + 1)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

std::size_t place_of(std::int64_t loss, std::size_t size) {
  const auto n = static_cast<std::int64_t>(size);
  const std::int64_t place = loss % n;
  return static_cast<std::size_t>(place < 0 ? place + n : place);
}

double norm(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return std::sqrt(sum);
}

}  // namespace

RealFft& FftCache::of_size(std::size_t size) {
  constexpr std::size_t kKept = 3;
  for (auto plan = plans_.begin(); plan != plans_.end(); ++plan) {
    if (plan->size() != size) continue;
    plans_.splice(plans_.begin(), plans_, plan);
    return plans_.front();
  }
  if (plans_.size() == kKept) plans_.pop_back();
  return plans_.emplace_front(size);
}

LossBase::LossBase(PrivacyLosses losses) : losses_(std::move(losses)), log_moments_(2 * kOrders + 1) {
  FL_CHECK(!losses_.mass.empty(), "privacy losses without a finite one");
}

double LossBase::order(int i) {
  if (i == 0) return 0;
  return std::copysign(std::exp2((std::abs(i) - 45) / 4.0), i);
}

double LossBase::log_moment(int i) {
  std::optional<double>& known = log_moments_[static_cast<std::size_t>(i + kOrders)];
  if (!known) known = horner(order(i));
  return *known;
}

/// The moment as a polynomial in e^(-|order| · interval), in eight chains that do not wait for each other.
double LossBase::horner(double order) const {
  constexpr std::size_t kChains = 8;
  const std::size_t blocks = losses_.mass.size() / kChains;
  const double slope = std::abs(order) * losses_.interval;
  const double ratio = std::exp(-slope);
  const double step = std::exp(-slope * kChains);
  const double* mass = losses_.mass.data();
  const std::size_t odd = losses_.mass.size() % kChains;
  std::array<double, kChains> chain{};
  double sum = 0;
  if (order >= 0) {  // Σ mass[j] ratio^(size - 1 - j)
    for (std::size_t j = 0; j < odd; ++j) sum = sum * ratio + mass[j];
    for (std::size_t b = 0; b < blocks; ++b) {
      for (std::size_t k = 0; k < kChains; ++k) chain[k] = chain[k] * step + mass[odd + b * kChains + k];
    }
  } else {  // Σ mass[j] ratio^j
    for (std::size_t j = odd; j-- > 0;) sum = sum * ratio + mass[blocks * kChains + j];
    for (std::size_t b = blocks; b-- > 0;) {
      for (std::size_t k = 0; k < kChains; ++k) chain[k] = chain[k] * step + mass[b * kChains + kChains - 1 - k];
    }
  }
  sum *= std::exp(-slope * static_cast<double>(blocks * kChains));
  double weight = 1;
  for (std::size_t k = kChains; k-- > 0; weight *= ratio) sum += chain[k] * weight;
  const auto end = static_cast<double>(order >= 0 ? losses_.last() : losses_.first);
  return order * end * losses_.interval + std::log(sum);
}

const LossBase::Spectrum& LossBase::spectrum(int order, RealFft& fft) {
  constexpr std::size_t kKeptPlaces = std::size_t{1} << 20;
  const std::size_t size = fft.size();
  for (auto it = spectra_.begin(); it != spectra_.end(); ++it) {
    if (it->order != order || it->size != size) continue;
    spectra_.splice(spectra_.begin(), spectra_, it);
    return spectra_.front();
  }
  while (!spectra_.empty() && (spectra_.size() + 1) * size > kKeptPlaces) spectra_.pop_back();
  while (spectra_.size() >= 4) spectra_.pop_back();

  std::vector<double> folded(size, 0.0);
  const double slope = LossBase::order(order) * losses_.interval;
  const double scale = log_moment(order);
  std::size_t place = place_of(losses_.first, size);
  for (std::size_t j = 0; j < losses_.mass.size(); ++j) {
    const auto loss = static_cast<double>(losses_.first + static_cast<std::int64_t>(j));
    folded[place] += losses_.mass[j] * std::exp(slope * loss - scale);
    if (++place == size) place = 0;
  }
  std::vector<std::complex<double>> transformed(size / 2 + 1);
  fft.forward(folded, transformed);

  Spectrum& made = spectra_.emplace_front();
  made.order = order;
  made.size = size;
  made.log_absolute.resize(transformed.size());
  made.phase.resize(transformed.size());
  made.error.resize(transformed.size());
  // The bound on the norm of all errors, spread evenly.
  const double error = fft.relative_error() * norm(folded);
  for (std::size_t k = 0; k < transformed.size(); ++k) {
    const double absolute = std::max(std::abs(transformed[k]), error);
    made.log_absolute[k] = std::log(absolute);
    made.phase[k] = std::atan2(transformed[k].imag(), transformed[k].real());
    // Of the transform, and of the logarithm and the angle.
    made.error[k] = error / absolute + 2 * kEta * (6 - made.log_absolute[k]);
  }
  return made;
}

LossComposition::LossComposition(std::vector<LossPower> powers, FftCache& ffts)
    : powers_(std::move(powers)), ffts_(ffts) {
  FL_CHECK(!powers_.empty(), "a composition of nothing");
  interval_ = powers_.front().base->losses().interval;
  double log_finite = 0;
  for (const LossPower& power : powers_) {
    const PrivacyLosses& losses = power.base->losses();
    const auto count = static_cast<double>(power.count);
    FL_CHECK(losses.interval == interval_, "privacy losses of different intervals");
    log_finite += count * std::log1p(-losses.infinity);
    lowest_ += count * static_cast<double>(losses.first) * interval_;
    highest_ += count * static_cast<double>(losses.last()) * interval_;
  }
  infinity_ = -std::expm1(log_finite);
}

double LossComposition::log_moment(int order) const {
  double sum = 0;
  for (const LossPower& power : powers_) sum += static_cast<double>(power.count) * power.base->log_moment(order);
  return sum;
}

/// The loss that is exceeded with at most the probability e^log_mass, by Chernoff's bound with this order.
double LossComposition::chernoff_loss(int order, double log_mass) const {
  return (log_moment(order) - log_mass) / LossBase::order(order);
}

/// What the distribution tilted by `order` weighs at `loss`, where it is 1: a bound on P(loss or more), in logarithms.
double LossComposition::log_weight(int order, double loss) const {
  return log_moment(order) - LossBase::order(order) * loss;
}

int LossComposition::order_at(double loss) const {
  return place_of_minimum(0, LossBase::kOrders, [&](int i) { return log_weight(i, loss); });
}

int LossComposition::best_order(double log_mass) const {
  return place_of_minimum(1, LossBase::kOrders, [&](int i) { return chernoff_loss(i, log_mass); });
}

/// The loss below (sign -1) or above (sign 1) which at most e^log_mass of the distribution tilted by `order` lies:
/// P(tilted loss >= x) <= e^(moment(i) - moment(order) - (λ_i - λ_order) x) for i > order, and likewise below.
double LossComposition::tilted_loss(int order, int sign, double log_mass) const {
  const double moment = log_moment(order);
  const auto bound = [&](int i) {
    return (log_moment(i) - moment - log_mass) / std::abs(LossBase::order(i) - LossBase::order(order));
  };
  if (sign > 0) return bound(place_of_minimum(std::min(order + 1, LossBase::kOrders), LossBase::kOrders, bound));
  return -bound(place_of_minimum(-LossBase::kOrders, order - 1, bound));
}

LossComposition::Window LossComposition::window(int order, const Aim& aim) const {
  // What the tilted distribution weighs at the answer, over δ there: 1 for the best tilt, more for others.
  const double surplus = std::max(0.0, log_weight(order, aim.loss) - aim.log_mass);
  Window window{order, 0, 0, 0, surplus};
  window.low = std::max(tilted_loss(order, -1, kLogAliased - surplus), lowest_);
  if (order == 0) window.low = std::min(window.low, aim.loss);
  const double log_above = aim.log_mass + kLogAbove;
  window.high = chernoff_loss(best_order(log_above), log_above);
  // What lies above a window of width w reappears w lower, and e^(λ w) times too heavy. That is safe, but should not
  // reach where the answer is, so that tilted losses up to answer + w have to be nearly all.
  if (order > 0) {
    const double answer = std::max(window.low, (window.low + aim.loss) / 2);
    window.high = std::max(window.high, window.low + tilted_loss(order, 1, kLogAliased - surplus) - answer);
  }
  window.high = std::min(window.high, highest_);
  window.outside = window.high >= highest_ ? 0 : std::exp(log_above);
  return window;
}

/// The tilt up to `order` with the smallest window. Smaller tilts suit heavy tails, but lose digits to rounding.
LossComposition::Window LossComposition::best_window(int order, const Aim& aim) const {
  double count = 0;
  for (const LossPower& power : powers_) count += static_cast<double>(power.count);
  const double allowed = kLogRounding - std::log(count * 64 * kEta);
  Window best = window(order, aim);
  while (order > 0) {
    order = std::max(0, order - kTiltSteps);
    const Window next = window(order, aim);
    const bool fits = best.high - best.low < interval_ * static_cast<double>(kMaxWindow - 32);
    if (next.surplus > allowed + (fits ? 0 : kLogMoreRounding)) break;
    if (next.high - next.low < 0.9 * (best.high - best.low)) best = next;
  }
  return best;
}

/// The product of all tilted transforms to their powers; returns a bound on the l2 error of its inverse transform.
double LossComposition::fill(int order, RealFft& fft, std::vector<std::complex<double>>& product) const {
  const std::size_t bins = product.size();
  std::vector<double> log_absolute(bins, 0.0);
  std::vector<double> phase(bins, 0.0);
  std::vector<double> error(bins, 0.0);
  for (const LossPower& power : powers_) {
    const LossBase::Spectrum& spectrum = power.base->spectrum(order, fft);
    const auto count = static_cast<double>(power.count);
    for (std::size_t k = 0; k < bins; ++k) {
      log_absolute[k] += count * spectrum.log_absolute[k];
      if (log_absolute[k] < kLogNothing) continue;
      phase[k] += count * spectrum.phase[k];
      error[k] += count * spectrum.error[k];
    }
    if (powers_.size() > kKeptSpectra) power.base->forget_spectra();
  }
  double squares = 0;
  double error_squares = static_cast<double>(bins) * std::exp(2 * kLogNothing);
  for (std::size_t k = 0; k < bins; ++k) {
    product[k] = 0;
    if (log_absolute[k] < kLogNothing) continue;
    const double absolute = std::exp(log_absolute[k]);
    product[k] = {absolute * std::cos(phase[k]), absolute * std::sin(phase[k])};
    squares += absolute * absolute;
    error_squares += absolute * absolute * error[k] * error[k];
  }
  const double both_halves = 2 / static_cast<double>(fft.size());
  return std::sqrt(both_halves * error_squares) + fft.relative_error() * std::sqrt(both_halves * squares);
}

std::optional<DeltaCurve> LossComposition::curve(const Window& window) {
  if (powers_.size() == 1 && powers_.front().count == 1) {
    const PrivacyLosses& losses = powers_.front().base->losses();
    places_ = static_cast<double>(losses.mass.size());
    return DeltaCurve({interval_, losses.first, 0, 0}, losses.mass, infinity_, 0);
  }
  places_ = std::ceil(std::max(0.0, window.high - window.low) / interval_) + 16;
  if (!(places_ <= static_cast<double>(kMaxWindow))) return std::nullopt;
  const std::size_t size = RealFft::fast_size(static_cast<std::size_t>(places_));
  const auto first = static_cast<std::int64_t>(std::floor(window.low / interval_));
  RealFft& fft = ffts_.of_size(size);
  std::vector<std::complex<double>> product(size / 2 + 1);
  const double error = fill(window.order, fft, product);
  std::vector<double> values(size);
  fft.inverse(product, values);
  const auto start = static_cast<std::ptrdiff_t>(place_of(first, size));
  std::rotate(values.begin(), values.begin() + start, values.end());

  const double tilt = LossBase::order(window.order);
  double rounding = 0;  // of the tilted masses, to the power
  for (const LossPower& power : powers_) {
    const PrivacyLosses& losses = power.base->losses();
    const auto far = static_cast<double>(std::max(std::abs(losses.first), std::abs(losses.last())));
    rounding += static_cast<double>(power.count) * kEta * (4 + tilt * far * interval_);
  }
  // Cauchy and Schwarz: Σ error · weight with weights of at most e^(-tilt (x - ε)).
  const double weights =
      std::min(std::sqrt(static_cast<double>(size)), 1 / std::sqrt(-std::expm1(-2 * tilt * interval_)));
  return DeltaCurve({interval_, first, tilt, log_moment(window.order) + rounding}, std::move(values),
                    infinity_ + window.outside, error * weights);
}

std::optional<double> LossComposition::epsilon(double delta, double at_least) {
  if (!(delta > infinity_)) return std::numeric_limits<double>::infinity();
  Aim aim{std::log(delta - infinity_), 0};
  const int order = best_order(aim.log_mass);
  aim.loss = chernoff_loss(order, aim.log_mass);
  if (aim.loss <= at_least) return at_least;
  Window window = best_window(order, aim);
  std::optional<double> found = epsilon_near(delta, window, aim);
  // Heavy tails: Chernoff's bound pointed too high, and what reappears in the window matters at the answer.
  if (found && log_weight(window.order, *found) - aim.log_mass > window.surplus + kLogLoose) {
    aim.loss = *found;
    window = best_window(order_at(aim.loss), aim);
    const std::optional<double> again = epsilon_near(delta, window, aim);
    if (again) found = std::min(*found, *again);
  }
  if (found) found = std::max(*found, at_least);
  return found;
}

/// Goes on to smaller tilts while the answer lies below the window.
std::optional<double> LossComposition::epsilon_near(double delta, Window& window, Aim aim) {
  while (true) {
    const std::optional<DeltaCurve> curve = this->curve(window);
    if (!curve) return std::nullopt;
    const double epsilon = curve->epsilon(delta);
    if (window.order == 0 || epsilon > curve->lowest() || curve->lowest() <= 0) return epsilon;
    const int next = std::max(0, window.order - kTiltSteps);
    aim.loss = next == 0 ? 0 : epsilon;
    window = this->window(next, aim);
  }
}

std::optional<double> LossComposition::delta(double epsilon, double at_least) {
  constexpr double kLogTiny = -600;
  if (epsilon >= highest_) return std::max(infinity_, at_least);
  Aim aim{std::min(0.0, log_weight(order_at(epsilon), epsilon)), epsilon};
  const double bound = infinity_ + std::exp(std::max(aim.log_mass, kLogTiny));
  if (bound <= at_least) return at_least;
  if (aim.log_mass < kLogTiny) return bound;
  std::optional<double> found = delta_near(epsilon, aim);
  if (found && std::log(*found) < aim.log_mass - kLogLoose) {
    aim.log_mass = std::log(*found);
    const std::optional<double> again = delta_near(epsilon, aim);
    if (again) found = std::min(*found, *again);
  }
  if (found) found = std::max(*found, at_least);
  return found;
}

std::optional<double> LossComposition::delta_near(double epsilon, const Aim& aim) {
  Window window = best_window(order_at(epsilon), aim);
  while (true) {
    const std::optional<DeltaCurve> curve = this->curve(window);
    if (!curve) return std::nullopt;
    if (window.order == 0 || epsilon >= curve->lowest()) return curve->delta(epsilon);
    window = this->window(std::max(0, window.order - kTiltSteps), aim);
  }
}

}  // namespace fl
