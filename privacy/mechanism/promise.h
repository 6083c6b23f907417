#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "fl_core/config/experiment.h"
#include "fl_core/config/plan.h"
#include "privacy/accounting/accountant.h"
#include "privacy/mechanism/mechanism.h"

namespace fl {

/// A `privacy` section made whole for the run it is in: the mechanism, its noise multiplier, and what any number of rounds
/// costs. The accountant is in charge: everybody who adds noise or spends budget asks this object. Immutable; one thread at
/// a time.
class Promise {
 public:
  /// `noise_multiplier` is what the run began with, when it goes on; otherwise it is options.noise_multiplier, or calibrated so
  /// that setting.rounds rounds cost at most options.epsilon. Throws ConfigError where the promise cannot be kept.
  /// REQUIRES: options.check() passed.
  Promise(const PrivacyOptions& options, const PrivacySetting& setting, std::optional<double> noise_multiplier = std::nullopt);

  const Mechanism& mechanism() const { return *mechanism_; }
  const PrivacySetting& setting() const { return setting_; }
  double noise_multiplier() const { return noise_multiplier_; }
  double delta() const { return delta_; }
  /// The ε that must not be exceeded; nothing when the noise was given instead.
  std::optional<double> budget() const { return options_.epsilon; }
  bool is_private() const { return options_.randomness == "secure" && noise_multiplier_ > 0; }

  /// What rounds 1 … `rounds` cost one record, at most; `repeats` of them were asked for twice. Infinite without noise.
  double epsilon_after(std::uint32_t rounds, std::uint32_t repeats = 0) const;
  /// How many rounds fit into the budget; nothing without a budget.
  std::optional<std::uint32_t> rounds_that_fit() const;

  /// epsilon (null: infinite), delta, unit, adjacency, sampling, sampling_rate, accountant, mechanism, noise_multiplier, private, and
  /// why it is not private where it is not. Never prints an ε alone.
  nlohmann::json statement(double epsilon) const;
  /// The same as one sentence.
  std::string sentence(double epsilon) const;

  /// What a device must know.
  PrivacyPlan plan() const;

 private:
  std::vector<PrivacyEvent> events(double noise_multiplier, std::uint32_t rounds, std::uint32_t repeats) const;
  double epsilon_at(double noise_multiplier, std::uint32_t rounds, std::uint32_t repeats) const;

  PrivacyOptions options_;
  PrivacySetting setting_;
  double delta_;
  std::unique_ptr<Mechanism> mechanism_;
  std::unique_ptr<Accountant> accountant_;
  double noise_multiplier_ = 0;
};

/// The sentence about any ε: "epsilon 7.98 at delta 1e-05 for one client (add_or_remove_one, poisson sampling 0.05, accountant pld)".
std::string privacy_sentence(const nlohmann::json& statement);

/// The promise as a device rebuilds it from what the server says; `parameters`: of its model. Throws ConfigError.
Promise promise_of(const PrivacyPlan& plan, std::uint64_t parameters);

}  // namespace fl
