#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fl_core/net/tls_context.h"

namespace fl {

/// A public key of Ed25519, or the private key that it belongs to (RFC 8032).
inline constexpr std::size_t kEd25519Bytes = 32;

/// A client that our authority certified.
struct CertifiedPeer {
  std::string name;
  std::array<std::byte, kEd25519Bytes> key{};  ///< its Ed25519 public key
};

/// Judges the certificates of clients with which nobody shakes hands: those that arrive in a message. The rules are those
/// of a TLS handshake and the whole profile of FORMAT.md §1; beside them, the key has to be Ed25519. Immutable: a changed
/// authority or list is a new object. Any thread.
class CertifiedPeers {
 public:
  /// Reads the authority's certificate and, where `files` names one, its revocation list; the other files are not looked at.
  /// ConfigError or IoError as of TlsContext.
  explicit CertifiedPeers(const TlsFiles& files);
  ~CertifiedPeers();

  /// Who has this certificate, as of now. `der` is hostile: one certificate in DER and nothing else. ProtocolError says what is
  /// wrong: malformed, of another authority, expired, not yet valid, revoked, not for a client, without a client's name, another kind
  /// of key. Costs one or, with a list, two verifications of ECDSA, some 0.2 ms, and a hash of the list.
  CertifiedPeer check(std::span<const std::byte> der) const;

 private:
  struct State;
  std::unique_ptr<const State> state_;
};

/// An end's own Ed25519 identity: returns its certificate (tls.certificate) in DER and writes the private key (tls.key) into
/// `private_key`, which the caller wipes. No other copy is left. ConfigError or IoError as of TlsContext for files that cannot be
/// used, and ConfigError for another kind of key.
std::vector<std::byte> read_signing_identity(const TlsFiles& files, std::span<std::byte, kEd25519Bytes> private_key);

}  // namespace fl
