#pragma once

#include "fl_core/net/certified_peers.h"
#include "privacy/secagg/enrolment.h"

/// Secure aggregation among TLS identities: a client signs with the key of its certificate, and its credential is that
/// certificate in DER. It lives here because client and aggregator both need it, and neither sees the other.
namespace fl {

/// Enrolled is whom the root of the TLS files certified as a client with an Ed25519 key, while the certificate is valid and not in
/// the revocation list. So whoever holds that root's key decides who is enrolled, and must not be the aggregator.
/// Immutable: a new list is a new judge.
class CertificateJudge final : public CredentialJudge {
 public:
  /// As CertifiedPeers.
  explicit CertificateJudge(const TlsFiles& files) : peers_(files) {}

  PublicKey enrolled_key(std::span<const std::byte> credential) const override;

 private:
  CertifiedPeers peers_;
};

/// A client's enrolment from the files of its TLS identity, as they are now: its key, its certificate, and the judge of its peers.
/// ConfigError that names the file when they cannot be used, when the key is not Ed25519, or when its own judge would refuse the
/// certificate; IoError when the system refuses to read them.
Enrolment enrolment_from(const TlsFiles& files);

}  // namespace fl
