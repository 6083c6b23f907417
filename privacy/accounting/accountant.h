#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "fl_core/config/registry.h"
#include "privacy/accounting/event.h"

namespace fl {

/// Composes events to one promise (ε, δ). Every number is an upper bound: what is numerically unsure is rounded up.
/// Immutable after construction; any thread.
class Accountant {
 public:
  virtual ~Accountant() = default;
  /// The smallest ε that this accountant can prove for δ; 0 for no events, infinity where nothing is proven (no noise).
  /// Throws ConfigError "accountant …" for events outside its scope (zcdp with subsampling; rdp with subsampling and
  /// replace_one), naming one that can. REQUIRES: 0 < delta < 1, 0 <= sampling_rate <= 1, noise_multiplier >= 0.
  virtual double epsilon(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency) const = 0;
  /// The smallest δ for ε, in [0, 1]. REQUIRES: epsilon >= 0.
  virtual double delta(std::span<const PrivacyEvent> events, double epsilon, Adjacency adjacency) const = 0;
};

using AccountantRegistry = Registry<Accountant>;
/// Kind "accountant": rdp, pld, zcdp, gaussian.
AccountantRegistry& accountants();

/// The events of a run as a function of its noise multiplier (smaller noise never gives a smaller ε).
using EventsOf = std::function<std::vector<PrivacyEvent>(double noise_multiplier)>;

/// The smallest noise multiplier, to 0.05 %, whose ε does not exceed `epsilon`: ε(result) <= epsilon < ε(0.999 ·
/// result). Throws ConfigError when no multiplier up to 1e6 is enough.
double calibrate(const Accountant& accountant, const EventsOf& events, double epsilon, double delta,
                 Adjacency adjacency);

/// What every accountant asks of its input: throws ConfigError "privacy event: …" for a sampling rate outside 0 to 1,
/// and for a noise multiplier, a standard deviation or a bound that is negative or not a number.
void check_events(std::span<const PrivacyEvent> events);

/// "add_or_remove_one", "replace_one".
const char* adjacency_name(Adjacency adjacency);
/// REQUIRES: one of the two names.
Adjacency adjacency_of(const std::string& name);

}  // namespace fl
