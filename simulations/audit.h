#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "simulations/audit_bound.h"
#include "simulations/simulation.h"

namespace fl {

struct AuditOptions {
  std::size_t trials = 1000;  ///< with the canary, and as many without
  std::size_t workers = 1;
  std::optional<std::uint64_t> seed;         ///< all noise follows from it; otherwise randomness is the experiment's
  std::optional<std::string> privacy_noise;  ///< of a run that is audited: what its PrivacyGuard began with
  std::function<void(const nlohmann::json& claim)> on_claim;             ///< AuditResult::claim, before the first trial
  std::function<void(std::size_t done, std::size_t all)> on_trial;       ///< one thread at a time
  std::function<bool()> should_stop;                                     ///< called from several threads at a time
};

struct AuditResult {
  nlohmann::json claim;   ///< Promise::statement() for all rounds, and `rounds`
  double claimed = 0;     ///< its ε
  EpsilonBound bound;     ///< what the trials show
  double most = 0;        ///< the largest ε that so many trials can show
  std::size_t trials = 0;

  bool holds() const { return bound.epsilon <= claimed; }
};

/// Confidence of an audit's lower bound.
inline constexpr double kAuditConfidence = 0.95;

/// Attacks the experiment's promise of client-level privacy with the worst client there can be, and compares what the attack
/// proves with what is claimed. The engine, the sampler, the guard and the mechanism are those of a run, with the run's noise multiplier; what
/// they work on is replaced: nobody trains, the canary's update is far beyond the clip norm in one fixed direction in each round that asks
/// it, the few others' are zero, and the server's learning rate is 1, so that a model shows its round's release and nothing else. So it audits the
/// mechanism in its place, not the training, and data, model and trainer of the experiment do not matter.
///
/// Half of the trials have the canary. The others have none (add_or_remove_one; where the devices add the noise it answers zero, since there that it
/// answers is no secret) or its opposite (replace_one). A trial's score is the canary's direction in all releases, weighted by likelihood where
/// sampling is counted on.
///
/// Runs live in a folder in memory where the system has one (/dev/shm), else under the system's temporary folder. Throws ConfigError for an
/// experiment without a promise, without noise, or with example-level privacy; Interrupted.
AuditResult audit(const Prepared& prepared, const AuditOptions& options);

}  // namespace fl
