#pragma once

#include <memory>

#include "aggregator/engine/secure_setup.h"
#include "fl_core/config/plan.h"
#include "privacy/noise/noise_keys.h"
#include "simulations/in_process.h"

namespace fl {

/// What virtual clients need of an experiment's promises, in whichever process they train.

/// Where the noise of an experiment with a promise comes from.
std::unique_ptr<NoiseKeys> noise_keys_of(const Experiment& experiment);

/// Every client of the transport keeps the promise of `plan`. `keys` is borrowed.
void keep_promise(InProcess& in_process, const Experiment& experiment, const PrivacyPlan& plan, std::uint64_t parameters, NoiseKeys& keys);

/// Identity of a simulated run to its clients, which are gone when the program is.
inline constexpr const char* kSimulatedRun = "simulation";

/// Every client of the transport takes part in secure aggregation. `masking_keys` is borrowed.
void aggregate_securely(InProcess& in_process, const Experiment& experiment, const SecureSetup& setup, std::shared_ptr<const CredentialJudge> judge,
                        NoiseKeys& masking_keys);

}  // namespace fl
