#include "privacy/accounting/accountant.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "fl_core/base/error.h"

namespace fl {
namespace {

constexpr double kLeastMultiplier = 1e-6;
constexpr double kMostMultiplier = 1e6;
/// The bracket [low, high] is narrow enough; 0.999 · high is then below low.
constexpr double kNarrow = 1.0005;
/// How far beside the estimated root is tried: two tries of either side make a bracket of 1.0003.
constexpr double kBeside = 1.00015;

/// Searches z with ε(low) > target >= ε(high) by false position in log z and log ε, where ε of a composition is nearly
/// a line, and by bisection where that does not halve the bracket: no smoothness is needed, only that the ends stay
/// what they are.
class Calibration {
 public:
  Calibration(const Accountant& accountant, const EventsOf& events, double epsilon, double delta, Adjacency adjacency)
      : accountant_(accountant), events_(events), target_(epsilon), delta_(delta), adjacency_(adjacency) {}

  double run() {
    bracket();
    if (low_ == 0) return high_;
    narrow();
    // ε(z) of a numerical accountant may have wrinkles: what is promised of the result is looked at, not concluded.
    while (!try_at(0.999 * high_)) {
      if (high_ < kLeastMultiplier) return high_;
    }
    return high_;
  }

 private:
  double epsilon_at(double z) const { return accountant_.epsilon(events_(z), delta_, adjacency_); }

  /// Makes z the end of the bracket that it is; true when it is too little noise.
  bool try_at(double z) {
    const double epsilon = epsilon_at(z);
    const bool low = !(epsilon <= target_);
    (low ? low_ : high_) = z;
    (low ? epsilon_low_ : epsilon_high_) = epsilon;
    return low;
  }

  void bracket() {
    double z = 1;
    double factor = 2;
    if (try_at(z)) {
      while (try_at(z = std::min(kMostMultiplier, z * factor))) {
        if (z >= kMostMultiplier) {
          throw ConfigError(
              "privacy.epsilon: " + nlohmann::json(target_).dump() + " at delta " + nlohmann::json(delta_).dump() +
              "; no noise multiplier up to 1e6 is enough; expected a larger epsilon or delta, or fewer rounds");
        }
        factor = std::min(1000.0, factor * 2);
      }
    } else {
      while (!try_at(z = std::max(kLeastMultiplier, z / 2))) {
        if (z <= kLeastMultiplier) return;
      }
    }
  }

  /// Where log ε over log z, a line through both ends, meets the target; the middle where an end has no logarithm.
  double estimate() const {
    const double middle = std::sqrt(low_ * high_);
    if (!(epsilon_high_ > 0) || !std::isfinite(epsilon_low_) || !(epsilon_low_ > epsilon_high_)) return middle;
    const double part = std::log(epsilon_low_ / target_) / std::log(epsilon_low_ / epsilon_high_);
    return low_ * std::pow(high_ / low_, part);
  }

  void narrow() {
    bool above = true;  // which side of the root the next try is meant to land on
    int slow = 0;
    while (high_ / low_ > kNarrow) {
      const double width = std::log(high_ / low_);
      double z = slow >= 2 ? std::sqrt(low_ * high_) : estimate() * (above ? kBeside : 1 / kBeside);
      z = std::clamp(z, low_ * std::sqrt(kBeside), high_ / std::sqrt(kBeside));
      above = try_at(z);
      slow = std::log(high_ / low_) > width / 2 ? (slow >= 2 ? 0 : slow + 1) : 0;
    }
  }

  const Accountant& accountant_;
  const EventsOf& events_;
  double target_;
  double delta_;
  Adjacency adjacency_;
  double low_ = 0;
  double high_ = 0;
  double epsilon_low_ = 0;
  double epsilon_high_ = 0;
};

}  // namespace

AccountantRegistry& accountants() {
  static AccountantRegistry registry("accountant");
  return registry;
}

double calibrate(const Accountant& accountant, const EventsOf& events, double epsilon, double delta,
                 Adjacency adjacency) {
  return Calibration(accountant, events, epsilon, delta, adjacency).run();
}

void check_events(std::span<const PrivacyEvent> events) {
  const auto check = [](const char* name, double value, double most) {
    if (value >= 0 && value <= most) return;
    const std::string expected = std::isinf(most) ? "not negative" : "from 0 to 1";
    throw ConfigError(std::string("privacy event: ") + name + " " + std::to_string(value) +
                      "; expected a number that is " + expected);
  };
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const PrivacyEvent& event : events) {
    check("sampling_rate", event.sampling_rate, 1);
    check("noise_multiplier", event.noise_multiplier, kInfinity);
    check("l2_bound", event.l2_bound, kInfinity);
    check("l1_bound", event.l1_bound, kInfinity);
    check("local_stddev", event.local_stddev, kInfinity);
  }
}

const char* adjacency_name(Adjacency adjacency) {
  return adjacency == Adjacency::replace_one ? "replace_one" : "add_or_remove_one";
}

Adjacency adjacency_of(const std::string& name) {
  FL_CHECK(name == "add_or_remove_one" || name == "replace_one", "an adjacency: " + name);
  return name == "replace_one" ? Adjacency::replace_one : Adjacency::add_or_remove_one;
}

}  // namespace fl
