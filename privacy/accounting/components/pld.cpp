#include "privacy/accounting/pld.h"

#include <mutex>

#include "privacy/accounting/accountant.h"

namespace fl {
namespace {

struct PldOptions {
  double interval = 1e-4;

  void fields(Fields& f) {
    f.number("interval", interval, {1e-7, 1},
             "grid of the privacy losses; a finer one gives a slightly smaller epsilon, later");
  }
};

/// The composer keeps what it computed, so answers to one run's questions share it; a lock makes it safe for any
/// thread.
class Pld final : public Accountant {
 public:
  explicit Pld(const PldOptions& options) : composer_(options.interval) {}

  double epsilon(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency) const override {
    const std::lock_guard lock(mutex_);
    return composer_.epsilon(events, delta, adjacency);
  }

  double delta(std::span<const PrivacyEvent> events, double epsilon, Adjacency adjacency) const override {
    const std::lock_guard lock(mutex_);
    return composer_.delta(events, epsilon, adjacency);
  }

 private:
  mutable std::mutex mutex_;
  mutable PldComposer composer_;
};

FL_REGISTER(accountants(), "pld", Pld, PldOptions,
            "privacy loss distributions, connected dots, composed by FFT: the tightest bound");

}  // namespace
}  // namespace fl
