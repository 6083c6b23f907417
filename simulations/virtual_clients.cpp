#include "simulations/virtual_clients.h"

#include <utility>

#include "privacy/noise/seeded/seeded_noise_keys.h"
#include "simulations/simulated_enrolment.h"

namespace fl {
namespace {

/// Virtual clients have no owners who would insist on anything.
SecAggPolicy any_policy() {
  SecAggPolicy policy;
  policy.security_bits = 1;
  policy.accept_curious = true;
  return policy;
}

}  // namespace

std::unique_ptr<NoiseKeys> noise_keys_of(const Experiment& experiment) {
  if (experiment.privacy->randomness == "seeded") return std::make_unique<SeededNoiseKeys>(static_cast<std::uint64_t>(experiment.seed));
  return std::make_unique<SecureNoiseKeys>();
}

void keep_promise(InProcess& in_process, const Experiment& experiment, const PrivacyPlan& plan, std::uint64_t parameters, NoiseKeys& keys) {
  const std::uint64_t steps = trainers().create(experiment.trainer, "trainer")->private_steps();
  const bool summed = experiment.secure_aggregation.has_value();
  in_process.protect([plan, steps, summed, parameters, &keys] { return std::make_unique<DevicePrivacy>(plan, parameters, steps, keys, summed); });
}

void aggregate_securely(InProcess& in_process, const Experiment& experiment, const SecureSetup& setup, std::shared_ptr<const CredentialJudge> judge,
                        NoiseKeys& masking_keys) {
  const auto seed = static_cast<std::uint64_t>(experiment.seed);
  const auto make = [setup, seed, judge = std::move(judge), &masking_keys](ClientId client) {
    return std::make_unique<SecureSession>(
        SecureSessionParts{client, kSimulatedRun, setup.vector, setup.protocol, any_policy(), [judge] { return simulated_enrolment(judge); }, masking_keys, seed, {}});
  };
  in_process.aggregate_securely(make, kSecAggHeaderBytes + (setup.protocol.length * setup.protocol.bits + 7) / 8);
}

}  // namespace fl
