#include "privacy/net/certificate_enrolment.h"

#include <string>
#include <utility>

#include "fl_core/base/error.h"

namespace fl {

PublicKey CertificateJudge::enrolled_key(std::span<const std::byte> credential) const {
  if (credential.size() > kCredentialBytes) {
    throw ProtocolError("the peer's certificate has " + std::to_string(credential.size()) + " bytes, expected at most " +
                        std::to_string(kCredentialBytes));
  }
  return peers_.check(credential).key;
}

Enrolment enrolment_from(const TlsFiles& files) {
  auto judge = std::make_shared<const CertificateJudge>(files);
  SecretKey private_key;
  std::vector<std::byte> credential = read_signing_identity(files, private_key.bytes());
  try {
    judge->enrolled_key(credential);
  } catch (const ProtocolError& error) {
    throw ConfigError("tls.certificate: " + files.certificate + ": " + error.what());
  }
  return {SigningKey(std::move(private_key)), std::move(credential), std::move(judge)};
}

}  // namespace fl
