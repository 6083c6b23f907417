#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "fl_core/net/pki.h"
#include "fl_core/net/tls_context.h"
#include "tests/support/test_support.h"

namespace fl::test {

/// An authority with a server ("server", for 127.0.0.1 and localhost) and clients "client-0", "client-1", …, in a folder of its
/// own; and identities that nobody may accept.
class TestPki {
 public:
  explicit TestPki(std::size_t clients);

  Authority& authority() { return authority_; }
  const std::vector<std::string>& names() const { return names_; }
  TlsFiles server() const;
  TlsFiles client(std::size_t number) const;
  std::filesystem::path folder() const { return folder_.path(); }

  /// A client "client-p256" with a P-256 key, as fl pki once made them: good for TLS, not for secure aggregation.
  TlsFiles p256_client();

  // What no server may accept from a client. Everything is right but one thing.
  TlsFiles expired_client();
  TlsFiles not_yet_valid_client();
  /// From an authority of the same name that nobody knows.
  TlsFiles foreign_client();
  TlsFiles self_signed_client();
  /// Signed by client 0, whose certificate is none of an authority.
  TlsFiles client_made_by_a_client();
  /// Revokes client `number` in the list that the server reads.
  TlsFiles revoked_client(std::size_t number);

  // What no client may accept from a server.
  TlsFiles server_for(const std::string& host);
  TlsFiles expired_server();
  TlsFiles foreign_server();
  TlsFiles self_signed_server();
  TlsFiles revoked_server();

 private:
  TlsFiles files(const std::filesystem::path& certificate, const std::filesystem::path& key) const;
  TlsFiles files(const IssuedFiles& issued) const { return files(issued.certificate, issued.key); }
  TlsFiles forge(const std::string& name, CertificateRole role, const TlsFiles* signer, KeyType key_type);
  Authority foreign();

  TemporaryFolder folder_;
  Authority authority_;
  std::vector<std::string> names_;
};

/// The context of an end that shows whatever it likes: TlsContext itself refuses an identity that no peer would accept. The
/// peer is verified as `honest` says.
std::shared_ptr<const TlsContext> hostile_context(TlsRole role, const TlsFiles& honest, const TlsFiles& shown);
/// A server's context that speaks TLS 1.2 and nothing else, or that names no application protocol.
std::shared_ptr<const TlsContext> tls_1_2_server(const TlsFiles& files);
std::shared_ptr<const TlsContext> server_without_alpn(const TlsFiles& files);

}  // namespace fl::test
