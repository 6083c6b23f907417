#include "privacy/secagg/client.h"

namespace fl {
namespace {

/// What a step begins with.
const char* input_of(SecAggStep step) {
  switch (step) {
    case SecAggStep::advertise:
      return "the start";
    case SecAggStep::share:
      return "the roster";
    case SecAggStep::input:
      return "the inbox";
    case SecAggStep::consistency:
      return "the survivors";
    case SecAggStep::unmask:
      return "the confirmations";
    case SecAggStep::done:
      return "nothing more";
    case SecAggStep::aborted:
      return "nothing more";
  }
  return "nothing";
}

}  // namespace

SecAggClient::SecAggClient(ClientId self, const SecAggRound& round, const SecAggPlan& plan, const SecAggPolicy& policy,
                           const SigningKey& identity, const PeerDirectory& directory, const NoiseKey& randomness)
    : self_(self),
      round_(round),
      plan_(plan),
      identity_(&identity),
      directory_(&directory),
      bits_(std::in_place, randomness) {
  check_plan(plan);
  check_policy(plan, policy);
}

void SecAggClient::abandon(const std::string& reason) {
  if (step_ != SecAggStep::aborted)
    reason_ = "secure aggregation, round " + std::to_string(round_.round) + ": " + reason;
  step_ = SecAggStep::aborted;
  wipe();
}

void SecAggClient::begin(SecAggStep due) {
  if (step_ == due) return;
  if (step_ == SecAggStep::aborted) throw ProtocolError(reason_);
  abandon(std::string(input_of(due)) + " came where " + input_of(step_) + " should have");
  throw ProtocolError(reason_);
}

void SecAggClient::wipe() {
  bits_.reset();
  sealing_.reset();
  mask_.reset();
  seed_ = SecretKey();
  peers_.clear();
}

SecretKey draw_secret(RandomBits& bits) {
  SecretKey secret;
  const auto bytes = secret.bytes();
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    const std::uint64_t word = bits.next_u64();
    for (std::size_t j = 0; j < 8; ++j) bytes[i + j] = static_cast<std::byte>(word >> (8 * j));
  }
  return secret;
}

}  // namespace fl
