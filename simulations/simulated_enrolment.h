#pragma once

#include <memory>

#include "privacy/secagg/enrolment.h"

namespace fl {

/// Identities of virtual clients: everybody is enrolled, and a credential is the key itself. For simulations only.
class EverybodyIsEnrolled final : public CredentialJudge {
 public:
  PublicKey enrolled_key(std::span<const std::byte> credential) const override;
};

/// A new identity.
std::shared_ptr<const Enrolment> simulated_enrolment(std::shared_ptr<const CredentialJudge> judge);

}  // namespace fl
