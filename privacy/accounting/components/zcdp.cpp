#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "privacy/accounting/accountant.h"
#include "privacy/accounting/rdp.h"

namespace fl {
namespace {

/// Zero-concentrated differential privacy (Bun and Steinke 1605.02065): one number ρ an event, Rényi divergence <= ρα
/// at every order α, which adds up. Converted like rdp, over all α > 1 in place of a list.
class ZcdpAccountant final : public Accountant {
 public:
  explicit ZcdpAccountant(const NoOptions&) {}

  double epsilon(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency) const override {
    const double rho = composed(events, adjacency);
    if (rho == 0) return 0;
    if (std::isinf(rho)) return rho;
    return best(
        [&](double order, double divergence) {
          return rdp_epsilon({&order, 1}, {&divergence, 1}, delta);
        },
        rho);
  }

  double delta(std::span<const PrivacyEvent> events, double epsilon, Adjacency adjacency) const override {
    const double rho = composed(events, adjacency);
    if (rho == 0) return 0;
    if (std::isinf(rho)) return 1;
    return best(
        [&](double order, double divergence) {
          return rdp_delta({&order, 1}, {&divergence, 1}, epsilon);
        },
        rho);
  }

 private:
  static double composed(std::span<const PrivacyEvent> events, Adjacency adjacency) {
    check_events(events);
    double rho = 0;
    for (const PrivacyEvent& event : events) rho += static_cast<double>(event.count) * one(event, adjacency);
    return rho;
  }

  static double one(const PrivacyEvent& event, Adjacency adjacency) {
    if (event.count == 0) return 0;
    if (event.kind == PrivacyEvent::Kind::skellam) {
      throw ConfigError("accountant zcdp: Skellam noise; expected the accountant rdp, which can judge it");
    }
    const double factor = adjacency == Adjacency::replace_one ? 2 : 1;
    if (event.kind == PrivacyEvent::Kind::discrete_gaussian) return discrete_gaussian_rho(event, factor);
    if (event.sampling_rate == 0) return 0;
    if (event.sampling_rate < 1) {
      throw ConfigError("accountant zcdp: a sampling rate of " + std::to_string(event.sampling_rate) +
                        "; expected the accountant pld or rdp, which can judge sampling, or privacy.sampling \"none\"");
    }
    const double inverse = factor / event.noise_multiplier;
    return inverse * inverse / 2;
  }

  /// The best of `at(order, divergence)`: the least over a grid in log(α − 1), and then between that point's neighbours
  /// by golden section. Any order gives a bound, so that what is missed costs tightness only.
  template <class At>
  static double best(At at, double rho) {
    const auto value = [&](double log_excess) {
      const double order = 1 + std::exp(log_excess);
      return at(order, rho * order);
    };
    constexpr double kFrom = -14;
    constexpr double kTo = 28;
    constexpr double kStep = 0.25;
    double least = value(kFrom);
    double place = kFrom;
    for (double x = kFrom + kStep; x <= kTo; x += kStep) {
      const double here = value(x);
      if (here < least) {
        least = here;
        place = x;
      }
    }
    double low = place - kStep;
    double high = place + kStep;
    constexpr double kGolden = 0.6180339887498949;
    for (int i = 0; i < 60; ++i) {
      const double left = high - kGolden * (high - low);
      const double right = low + kGolden * (high - low);
      const double at_left = value(left);
      const double at_right = value(right);
      least = std::min({least, at_left, at_right});
      (at_left <= at_right ? high : low) = at_left <= at_right ? right : left;
    }
    return least;
  }
};

FL_REGISTER(accountants(), "zcdp", ZcdpAccountant, NoOptions,
            "zero-concentrated differential privacy: for Gaussian noise without sampling; one number that adds up");

}  // namespace
}  // namespace fl
