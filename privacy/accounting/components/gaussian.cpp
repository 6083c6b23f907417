#include <cmath>
#include <limits>
#include <string>

#include "privacy/accounting/accountant.h"
#include "privacy/accounting/analytic_gaussian.h"

namespace fl {
namespace {

/// Composed Gaussian mechanisms are one Gaussian mechanism: exact, for noise that counts on no sampling.
class GaussianAccountant final : public Accountant {
 public:
  explicit GaussianAccountant(const NoOptions&) {}

  double epsilon(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency) const override {
    const double sigma = composed_sigma(events, adjacency);
    if (delta == 0) return std::isinf(sigma) ? 0 : std::numeric_limits<double>::infinity();
    return gaussian_epsilon(sigma, delta);
  }
  double delta(std::span<const PrivacyEvent> events, double epsilon, Adjacency adjacency) const override {
    return gaussian_delta(composed_sigma(events, adjacency), epsilon);
  }

 private:
  /// 1/σ² = Σ 1/σ_i²; infinity for no events.
  static double composed_sigma(std::span<const PrivacyEvent> events, Adjacency adjacency) {
    check_events(events);
    double precision = 0;
    for (const PrivacyEvent& event : events) {
      if (event.kind != PrivacyEvent::Kind::gaussian) {
        throw ConfigError(
            "accountant gaussian: integer noise of many clients; expected the accountant rdp, which can judge it");
      }
      if (event.sampling_rate == 0 || event.count == 0) continue;
      if (event.sampling_rate < 1) {
        throw ConfigError("accountant gaussian: a sampling rate of " + std::to_string(event.sampling_rate) +
                          "; expected the accountant pld, which can judge sampling, or privacy.sampling \"none\"");
      }
      precision += static_cast<double>(event.count) / event.noise_multiplier / event.noise_multiplier;
    }
    const double sigma = 1 / std::sqrt(precision);
    return adjacency == Adjacency::replace_one ? sigma / 2 : sigma;
  }
};

FL_REGISTER(accountants(), "gaussian", GaussianAccountant, NoOptions,
            "the exact curve of Gaussian noise without sampling");

}  // namespace
}  // namespace fl
