#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "aggregator/engine/secure_collector.h"
#include "fl_core/config/plan.h"
#include "privacy/mechanism/promise.h"

namespace fl {

/// Everything that an experiment's secure_aggregation section comes to in a run.
struct SecureSetup {
  SecureAggregationPlan plan;  ///< for the devices
  SecureVector vector;
  SecAggPlan protocol;
};

/// REQUIRES: the experiment has the section. `promise`: of an experiment with a privacy section, else null. `max_updates`: of a round.
/// Throws ConfigError, with the JSON path, where the privacy mechanism would have to see single updates, where no round could succeed, and
/// where sums cannot be proved to fit.
SecureSetup secure_setup_of(const Experiment& experiment, const Promise* promise, std::uint64_t max_updates, std::uint64_t parameters);

std::unique_ptr<SecureCollector> make_collector(const Experiment& experiment, const SecureSetup& setup, const std::string& run,
                                                std::shared_ptr<const CredentialJudge> judge);

}  // namespace fl
