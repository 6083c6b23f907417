#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "aggregator/engine/checkpoint.h"
#include "aggregator/sampler/sampler.h"
#include "fl_core/config/experiment.h"
#include "fl_core/params/layout.h"
#include "privacy/mechanism/promise.h"

namespace fl {

/// What a guard is made for. References are borrowed and outlive it.
struct PrivacyGuardParts {
  const Experiment& experiment;  ///< with a privacy section
  RunFolder& folder;
  NoiseKeys& keys;
  SharedLayout layout;
  std::uint64_t population = 0;  ///< the most clients that there can be
  bool all_listed = true;        ///< the clients are those from 0 to population - 1; false: anybody may be admitted, under any number
};

/// Keeps a run's promise of differential privacy on the server: refuses an experiment that would break it, charges the
/// ledger before each round, holds the server's half of the mechanism, and draws cohorts that nobody can foresee. The engine's thread
/// alone calls it.
class PrivacyGuard {
 public:
  /// Calibrates, or takes what the run began with. Throws ConfigError with the JSON path of what does not go together.
  explicit PrivacyGuard(PrivacyGuardParts parts);

  const Promise& promise() const { return *promise_; }

  /// Charges `round`: on disk when it returns. A round that was charged and not released before a crash is not charged
  /// again, unless devices may have answered it. Throws BudgetExhausted when the round would exceed the promised ε.
  void charge(std::uint32_t round);

  /// How many of `present` clients a round asks for: q times their number where sampling is counted on.
  double expected_cohort(std::uint64_t present, std::uint64_t wanted) const;
  /// The source of the round's cohort.
  Rng sampling(std::uint32_t round) const;

  /// nullptr: updates are averaged by the strategy, every client alike.
  ServerMechanism* server() { return server_.get(); }
  /// Whether a round with this many updates is released.
  bool releases(std::uint64_t accepted) const;
  /// Fills in report.privacy once the round's mean has `norm`.
  void describe(RoundReport& report, const ReleaseFacts& facts, double norm) const;

  /// For the checkpoint, and back.
  std::string state() const;
  void restore(const std::string& state);

  /// Promise::statement() for what is spent now, with what is left.
  nlohmann::json statement() const;

 private:
  PrivacySetting derive_setting(const Sampler& sampler) const;
  void check_experiment(const Sampler& sampler) const;
  void check_fixed_cohort(const Sampler& sampler) const;

  PrivacyGuardParts parts_;
  const PrivacyOptions& options_;
  std::unique_ptr<Promise> promise_;
  std::unique_ptr<ServerMechanism> server_;
  std::uint32_t charged_round_ = 0;  ///< the newest
  std::uint32_t repeats_ = 0;        ///< charges for a round that had one already
  double spent_ = 0;
};

}  // namespace fl
