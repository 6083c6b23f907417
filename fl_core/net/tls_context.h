#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "fl_core/config/fields.h"

struct ssl_ctx_st;

namespace fl {

/// The application protocol both ends must name (ALPN).
inline constexpr const char* kAlpn = "tributary/1";

/// Where an end finds what it proves itself with. Relative paths are made absolute by whoever read the configuration.
struct TlsFiles {
  std::string certificate;   ///< PEM, own certificate
  std::string key;           ///< PEM, its private key
  std::string authority;     ///< PEM, the one root that peers must come from
  std::string revocations;   ///< PEM, signed revocation list; servers must have one, "" for clients without

  void fields(Fields& f);
  /// Prefixes relative paths with `folder`.
  void resolve(const std::filesystem::path& folder);
};

enum class TlsRole : std::uint8_t { server, client };

/// OpenSSL's configuration of one end: TLS 1.3 only, peer verified (server: and required) with strict X.509 checks, purpose
/// (EKU) and revocation list, ALPN kAlpn or a fatal alert, no tickets, no early data, no renegotiation, RELEASE_BUFFERS.
/// Immutable: a changed certificate or revocation list is a new context. Thread-safe to share.
class TlsContext {
 public:
  /// Throws ConfigError or IoError naming the file and what to do: unreadable, no PEM, key of another certificate, expired,
  /// wrong role (EKU), another authority, key readable by others.
  TlsContext(TlsRole role, const TlsFiles& files);

  TlsRole role() const { return role_; }
  ssl_ctx_st* native() const { return context_.get(); }
  /// Of the own certificate, seconds since 1970.
  std::int64_t not_after() const { return not_after_; }
  /// Number of the revocation list; -1 without one.
  std::int64_t revocation_number() const { return revocation_number_; }
  /// Whether the list holds this serial (upper-case hex as in PeerIdentity).
  bool revoked(const std::string& serial) const;

 private:
  struct Free {
    void operator()(ssl_ctx_st* context) const;
  };
  TlsRole role_;
  std::unique_ptr<ssl_ctx_st, Free> context_;
  std::int64_t not_after_ = 0;
  std::int64_t revocation_number_ = -1;
  std::shared_ptr<const void> revocations_;
};

/// Who the verified peer is.
struct PeerIdentity {
  std::string name;         ///< for clients from the SAN URI "tributary:client:NAME"; for servers the CN
  std::string serial;       ///< hex
  std::string fingerprint;  ///< SHA-256 of the certificate, 64 hex digits
  std::int64_t not_after = 0;
};

}  // namespace fl
