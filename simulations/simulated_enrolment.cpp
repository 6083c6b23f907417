#include "simulations/simulated_enrolment.h"

#include <algorithm>
#include <string>

#include "fl_core/base/error.h"

namespace fl {

PublicKey EverybodyIsEnrolled::enrolled_key(std::span<const std::byte> credential) const {
  PublicKey key{};
  if (credential.size() != key.size()) throw ProtocolError("a credential of " + std::to_string(credential.size()) + " bytes");
  std::copy(credential.begin(), credential.end(), key.begin());
  return key;
}

std::shared_ptr<const Enrolment> simulated_enrolment(std::shared_ptr<const CredentialJudge> judge) {
  SigningKey key = SigningKey::generate();
  const PublicKey& known = key.public_key();
  std::vector<std::byte> credential(known.begin(), known.end());
  return std::make_shared<const Enrolment>(Enrolment{std::move(key), std::move(credential), std::move(judge)});
}

}  // namespace fl
