#include "privacy/accounting/rdp.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "privacy/accounting/accountant.h"

namespace fl {
namespace {

/// Rényi differential privacy: the divergences of all events added up at each of many orders, the best order wins.
/// Needs little time, but claims more ε than is spent.
class RdpAccountant final : public Accountant {
 public:
  explicit RdpAccountant(const NoOptions&) {}

  double epsilon(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency) const override {
    double best = std::numeric_limits<double>::infinity();
    // The divergence grows with the order: none that is above the best ε so far (less log(1 − 1/α)) can win.
    const std::vector<double> rdp = divergences(events, adjacency, [&](double order, double divergence) {
      best = std::min(best, rdp_epsilon({&order, 1}, {&divergence, 1}, delta));
      return divergence + std::log1p(-1 / order) <= best + delta;
    });
    return rdp_epsilon(std::span(rdp_orders()).first(rdp.size()), rdp, delta);
  }

  double delta(std::span<const PrivacyEvent> events, double epsilon, Adjacency adjacency) const override {
    // From here on (α − 1)(r − ε) exceeds log α, and no δ below 1 comes of it.
    const std::vector<double> rdp = divergences(
        events, adjacency, [&](double order, double divergence) { return order < 2 || divergence <= epsilon + 2; });
    return rdp_delta(std::span(rdp_orders()).first(rdp.size()), rdp, epsilon);
  }

 private:
  /// The sums at ascending orders, as long as go_on(order, sum).
  template <class GoOn>
  static std::vector<double> divergences(std::span<const PrivacyEvent> events, Adjacency adjacency, GoOn go_on) {
    check_events(events);
    const std::vector<PrivacyEvent> unlike = merged(events);
    std::vector<double> sums;
    for (const double order : rdp_orders()) {
      double sum = 0;
      for (const PrivacyEvent& event : unlike) sum += event_rdp(event, order, adjacency);
      sums.push_back(sum);
      if (!go_on(order, sum)) break;
    }
    return sums;
  }

  /// Equal events are one with their counts added: a divergence costs the same for any count. Sorted, so that no order
  /// of composition changes a bit.
  static std::vector<PrivacyEvent> merged(std::span<const PrivacyEvent> events) {
    const auto key = [](const PrivacyEvent& event) {
      return std::tie(event.kind, event.sampling_rate, event.noise_multiplier, event.l2_bound, event.l1_bound,
                      event.scale, event.local_stddev, event.clients, event.dimension);
    };
    std::vector<PrivacyEvent> sorted(events.begin(), events.end());
    std::sort(sorted.begin(), sorted.end(),
              [&](const PrivacyEvent& a, const PrivacyEvent& b) { return key(a) < key(b); });
    std::vector<PrivacyEvent> unlike;
    for (const PrivacyEvent& event : sorted) {
      if (!unlike.empty() && key(unlike.back()) == key(event)) {
        unlike.back().count += event.count;
      } else {
        unlike.push_back(event);
      }
    }
    return unlike;
  }
};

FL_REGISTER(accountants(), "rdp", RdpAccountant, NoOptions,
            "Rényi differential privacy: fast, for every mechanism, sampling under add_or_remove_one; claims some "
            "percent more than pld");

}  // namespace
}  // namespace fl
