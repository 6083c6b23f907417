#include "aggregator/engine/secure_setup.h"

#include <utility>

#include "fl_core/params/exact_sum.h"
#include "privacy/secagg/primitives.h"

namespace fl {

SecureSetup secure_setup_of(const Experiment& experiment, const Promise* promise, std::uint64_t max_updates, std::uint64_t parameters) {
  SecureAggregationPlan plan;
  plan.section = experiment.secure_aggregation.value();
  plan.max_cohort = static_cast<std::int64_t>(max_updates);
  plan.bound_bits = experiment.round.update_bound_bits;
  const std::uint32_t weight = experiment.round.weighting == "uniform" ? ExactSum::kMaxWeight : 0;
  const SecureVector vector = secure_vector_of(plan, promise, weight, parameters);
  const SecAggPlan protocol = secagg_plan(plan, vector, promise);
  check_cohort(protocol, static_cast<std::uint64_t>(experiment.round.cohort));
  return {std::move(plan), vector, protocol};
}

std::unique_ptr<SecureCollector> make_collector(const Experiment& experiment, const SecureSetup& setup, const std::string& run,
                                                std::shared_ptr<const CredentialJudge> judge) {
  primitives::self_test();
  return std::make_unique<SecureCollector>(SecureCollectorParts{setup.vector, setup.protocol, run, std::move(judge), experiment.secure_aggregation->step_timeout_s});
}

}  // namespace fl
