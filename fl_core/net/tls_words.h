#pragma once

#include <openssl/x509_vfy.h>

#include <string>

#include "fl_core/net/tls_context.h"

/// What OpenSSL found wrong, in words for whoever runs the other end or this one; inside fl_net only.
namespace fl::tls {

/// "server", "client".
const char* role_name(TlsRole role);
TlsRole other(TlsRole role);

/// Why a chain was refused: "WHOSE has expired on 2026-03-01". `owner` is what the certificate has to be for.
std::string verification_words(X509_STORE_CTX* verification, const std::string& whose, TlsRole owner);

/// Why the last TLS call of this thread failed, as the end `role` sees it, during or after the handshake; empties the error
/// queue. `noted` is what a callback of the context wrote down about this connection.
std::string error_words(TlsRole role, bool established, const std::string& noted);

/// NAME of the only SAN URI "tributary:client:NAME", or "" unless there is exactly one and its name is well-formed.
std::string client_name(X509* certificate);

/// Of a verified peer in the role `peer`.
PeerIdentity identify(X509* certificate, TlsRole peer);

}  // namespace fl::tls
