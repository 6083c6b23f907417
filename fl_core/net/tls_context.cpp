#include "fl_core/net/tls_context.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <set>
#include <string_view>

#include "fl_core/base/error.h"
#include "fl_core/net/pki_x509.h"
#include "fl_core/net/tls_trust.h"
#include "fl_core/net/tls_words.h"

namespace fl {
namespace {

using Serials = std::set<std::string>;

constexpr const char* kSuites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
constexpr const char* kGroups = "X25519:P-256";
/// Ours have one certificate of about 600 bytes; this is what a stranger may make us keep.
constexpr long kPeerCertificatesBytes = 16 * 1024;

std::int64_t number_of(X509_CRL* list, const std::string& path) {
  const pki::Owned<ASN1_INTEGER> number(static_cast<ASN1_INTEGER*>(X509_CRL_get_ext_d2i(list, NID_crl_number, nullptr, nullptr)));
  std::int64_t value = 0;
  const bool fits = number && ASN1_INTEGER_get_int64(&value, number.get()) == 1 && value >= 0;
  pki::clear_errors();
  if (!fits) throw ConfigError("tls.revocations: " + path + ": has no number (CRLNumber); expected crl.pem of 'fl pki'");
  return value;
}

std::shared_ptr<const Serials> serials_of(X509_CRL* list) {
  auto serials = std::make_shared<Serials>();
  STACK_OF(X509_REVOKED)* revoked = X509_CRL_get_REVOKED(list);
  for (int i = 0; i < sk_X509_REVOKED_num(revoked); ++i) {
    const ASN1_INTEGER* number = X509_REVOKED_get0_serialNumber(sk_X509_REVOKED_value(revoked, i));
    const pki::Owned<BIGNUM> value(pki::require_made(ASN1_INTEGER_to_BN(number, nullptr), "ASN1_INTEGER_to_BN"));
    char* digits = pki::require_made(BN_bn2hex(value.get()), "BN_bn2hex");
    serials->insert(digits);
    OPENSSL_free(digits);
  }
  return serials;
}

/// What a peer would say to our own certificate, said before anybody connects.
void check_own(const tls::Trust& trust, X509* certificate, TlsRole role, const std::string& path) {
  const std::string source = "tls.certificate: " + path;
  const CertificateInfo info = pki::describe(certificate, source);
  const auto wanted = role == TlsRole::server ? CertificateRole::server : CertificateRole::client;
  if (info.role != wanted) {
    throw ConfigError(source + ": is the certificate of a " + fl::role_name(info.role) + ", expected one of a " + tls::role_name(role) +
                      "; 'fl pki issue " + tls::role_name(role) + "' makes it");
  }
  const tls::Verification verification = trust.verify(certificate, role);
  if (X509_STORE_CTX_get_error(verification.get()) != X509_V_OK) {
    const bool replaceable = X509_STORE_CTX_get_error(verification.get()) == X509_V_ERR_CERT_HAS_EXPIRED;
    throw ConfigError(tls::verification_words(verification.get(), source, role) +
                      (replaceable ? "; 'fl pki renew " + info.name + "' makes a new one" : ""));
  }
  if (role == TlsRole::client && tls::client_name(certificate).empty()) {
    throw ConfigError(source + ": names no client; expected exactly one alternative name (URI) tributary:client:NAME, as 'fl pki' writes it");
  }
}

/// Where the stream wants to read what a callback found out; null for connections that are no FramedStream.
void note(SSL* ssl, const std::string& words) {
  if (auto* noted = static_cast<std::string*>(SSL_get_app_data(ssl))) *noted = words;
}

int on_verify(int good, X509_STORE_CTX* verification) {
  auto* ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(verification, SSL_get_ex_data_X509_STORE_CTX_idx()));
  const TlsRole peer = SSL_is_server(ssl) == 1 ? TlsRole::client : TlsRole::server;
  const std::string whose = std::string("the ") + tls::role_name(peer) + "'s certificate";
  if (good != 1) {
    note(ssl, tls::verification_words(verification, whose, peer));
    return 0;
  }
  const bool leaf = X509_STORE_CTX_get_error_depth(verification) == 0;
  if (!leaf || peer == TlsRole::server || !tls::client_name(X509_STORE_CTX_get_current_cert(verification)).empty()) return 1;
  X509_STORE_CTX_set_error(verification, X509_V_ERR_HOSTNAME_MISMATCH);  // the peer gets the alert bad_certificate
  note(ssl, whose + " names no client (tributary:client:NAME)");
  return 0;
}

/// Length and name, as ALPN puts it on the wire.
std::string alpn_wire() { return static_cast<char>(std::string_view(kAlpn).size()) + std::string(kAlpn); }

int on_alpn(SSL* ssl, const unsigned char** chosen, unsigned char* chosen_size, const unsigned char* offered, unsigned int size, void*) {
  const std::string_view wanted(kAlpn);
  for (unsigned int at = 0; at < size; at += 1U + offered[at]) {
    if (std::string_view(reinterpret_cast<const char*>(offered) + at + 1, offered[at]) != wanted) continue;
    *chosen = offered + at + 1;
    *chosen_size = offered[at];
    return SSL_TLSEXT_ERR_OK;
  }
  note(ssl, std::string("the client does not speak ") + kAlpn);
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/// OpenSSL asks on_alpn only when the client offers anything at all.
int on_client_hello(SSL* ssl, int* alert, void*) {
  const unsigned char* extension = nullptr;
  std::size_t size = 0;
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &extension, &size) == 1) return SSL_CLIENT_HELLO_SUCCESS;
  // A peer without TLS 1.3 is told so, whatever else it lacks.
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_supported_versions, &extension, &size) != 1) return SSL_CLIENT_HELLO_SUCCESS;
  note(ssl, std::string("the client names no application protocol, expected ") + kAlpn);
  *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
  return SSL_CLIENT_HELLO_ERROR;
}

void set_protocol(SSL_CTX* context, TlsRole role) {
  pki::require(SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 && SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
                   SSL_CTX_set_ciphersuites(context, kSuites) == 1 && SSL_CTX_set1_groups_list(context, kGroups) == 1,
               "TLS 1.3");
  SSL_CTX_set_security_level(context, tls::kSecurityLevel);
  // No resumption of any kind: it would outlive a revocation, and early data could be replayed.
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_clear_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  pki::require(SSL_CTX_set_num_tickets(context, 0) == 1 && SSL_CTX_set_max_early_data(context, 0) == 1 &&
                   SSL_CTX_set_recv_max_early_data(context, 0) == 1,
               "session tickets");
  // Without NO_AUTO_CHAIN the root would be sent along; the peer has it.
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
  SSL_CTX_set_max_cert_list(context, kPeerCertificatesBytes);
  if (role == TlsRole::server) {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_verify);
    SSL_CTX_set_alpn_select_cb(context, on_alpn, nullptr);
    SSL_CTX_set_client_hello_cb(context, on_client_hello, nullptr);
  } else {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, on_verify);
    const std::string alpn = alpn_wire();
    pki::require(SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(alpn.data()), static_cast<unsigned int>(alpn.size())) == 0,
                 "SSL_CTX_set_alpn_protos");
  }
}

}  // namespace

void TlsFiles::fields(Fields& f) {
  f.text("certificate", certificate, "PEM file of the own certificate");
  f.text("key", key, "PEM file of its private key, readable by its owner only");
  f.text("authority", authority, "PEM file of the one root that peers must come from");
  f.text("revocations", revocations, "PEM file of the signed revocation list; servers must have one");
}

void TlsFiles::resolve(const std::filesystem::path& folder) {
  for (std::string* path : {&certificate, &key, &authority, &revocations}) {
    if (!path->empty()) *path = (folder / *path).lexically_normal().string();  // an absolute path replaces the folder
  }
}

TlsContext::TlsContext(TlsRole role, const TlsFiles& files) : role_(role) {
  const tls::Trust trust(files, role == TlsRole::server || !files.revocations.empty());
  auto serials = std::make_shared<const Serials>();
  if (trust.list() != nullptr) {
    revocation_number_ = number_of(trust.list(), files.revocations);
    serials = serials_of(trust.list());
  }
  revocations_ = serials;

  const tls::Identity own = tls::load_identity(files);
  check_own(trust, own.certificate.get(), role, files.certificate);
  not_after_ = pki::describe(own.certificate.get(), files.certificate).not_after;

  context_.reset(pki::require_made(SSL_CTX_new(role == TlsRole::server ? TLS_server_method() : TLS_client_method()), "SSL_CTX_new"));
  set_protocol(context_.get(), role);
  trust.set_rules(SSL_CTX_get0_param(context_.get()), tls::other(role));
  SSL_CTX_set1_cert_store(context_.get(), trust.store());
  pki::require(SSL_CTX_use_certificate(context_.get(), own.certificate.get()) == 1 && SSL_CTX_use_PrivateKey(context_.get(), own.key.get()) == 1,
               "SSL_CTX_use_certificate");
}

void TlsContext::Free::operator()(ssl_ctx_st* context) const { SSL_CTX_free(context); }

bool TlsContext::revoked(const std::string& serial) const { return static_cast<const Serials*>(revocations_.get())->contains(serial); }

}  // namespace fl
