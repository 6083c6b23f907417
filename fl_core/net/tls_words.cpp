#include "fl_core/net/tls_words.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <ctime>
#include <string_view>

#include "fl_core/base/error.h"
#include "fl_core/net/pki_x509.h"

namespace fl::tls {
namespace {

constexpr std::string_view kClientPrefix = "tributary:client:";

/// "2026-03-01", in UTC.
std::string date_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return "an unreadable date";
  char text[16] = "";
  std::strftime(text, sizeof text, "%Y-%m-%d", &parts);
  return text;
}

std::string expected_host(X509_STORE_CTX* verification) {
  X509_VERIFY_PARAM* wanted = X509_STORE_CTX_get0_param(verification);
  if (const char* host = X509_VERIFY_PARAM_get0_host(wanted, 0)) return host;
  char* address = X509_VERIFY_PARAM_get1_ip_asc(wanted);
  const std::string text = address == nullptr ? "" : address;
  OPENSSL_free(address);
  return text;
}

std::string mismatch_words(X509_STORE_CTX* verification, const std::string& whose) {
  std::string names;
  try {
    for (const std::string& host : pki::describe(X509_STORE_CTX_get_current_cert(verification), whose).hosts) {
      names += (names.empty() ? "" : ", ") + host;
    }
  } catch (const ConfigError&) {  // of a role that has no hosts
  }
  return whose + " is not for '" + expected_host(verification) + "': it is for " + (names.empty() ? "no host" : names);
}

std::string list_words(X509_STORE_CTX* verification) {
  const X509_CRL* list = X509_STORE_CTX_get0_current_crl(verification);
  return "the revocation list " + (list == nullptr ? std::string("has expired") : "has expired on " + date_of(X509_CRL_get0_nextUpdate(list))) +
         ", so nobody can be let in; the authority has to write a new one";
}

/// TLS alerts are one byte; OpenSSL reports a received one as this plus its number.
constexpr int kAlertReasons = SSL_AD_REASON_OFFSET;

std::string alert_words(TlsRole role, int alert, bool established) {
  const std::string peer = std::string("the ") + role_name(other(role));
  const std::string refused = peer + " refused our certificate: ";
  switch (alert) {
    case SSL_AD_BAD_CERTIFICATE: return refused + (role == TlsRole::server ? "it is not for the name the client looked for" : "bad certificate");
    case SSL_AD_UNSUPPORTED_CERTIFICATE: return refused + "it is not for a " + role_name(role);
    case SSL_AD_CERTIFICATE_REVOKED: return refused + "certificate revoked";
    case SSL_AD_CERTIFICATE_EXPIRED: return refused + "certificate expired";
    case SSL_AD_CERTIFICATE_UNKNOWN: return refused + "certificate not acceptable";
    case SSL_AD_UNKNOWN_CA: return refused + "it comes from another authority";
    case SSL_AD_ACCESS_DENIED: return refused + "access denied";
    case SSL_AD_CERTIFICATE_REQUIRED: return peer + " refused us: it demands a certificate";
    case SSL_AD_NO_APPLICATION_PROTOCOL: return peer + " does not speak " + kAlpn;
    case SSL_AD_PROTOCOL_VERSION:
      if (!established) return peer + " does not speak TLS 1.3";
      break;
    default: break;
  }
  return peer + " ended the connection with the TLS alert '" + SSL_alert_desc_string_long(alert) + "'";
}

}  // namespace

const char* role_name(TlsRole role) { return role == TlsRole::server ? "server" : "client"; }

TlsRole other(TlsRole role) { return role == TlsRole::server ? TlsRole::client : TlsRole::server; }

std::string verification_words(X509_STORE_CTX* verification, const std::string& whose, TlsRole owner) {
  const int error = X509_STORE_CTX_get_error(verification);
  const X509* certificate = X509_STORE_CTX_get_current_cert(verification);
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED: return whose + " has expired on " + date_of(X509_get0_notAfter(certificate));
    case X509_V_ERR_CERT_NOT_YET_VALID: return whose + " is valid only from " + date_of(X509_get0_notBefore(certificate)) + " on; is a clock wrong?";
    case X509_V_ERR_CERT_REVOKED: return whose + " is revoked";
    case X509_V_ERR_INVALID_PURPOSE: return whose + " is not for a " + role_name(owner) + " (extended key usage)";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: return mismatch_words(verification, whose);
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT: return whose + " is self-signed, not from our authority";
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE: return whose + " comes from another authority";
    case X509_V_ERR_CERT_CHAIN_TOO_LONG: return whose + " is not issued by the root itself";
    case X509_V_ERR_CRL_HAS_EXPIRED: return list_words(verification);
    case X509_V_ERR_UNABLE_TO_GET_CRL: return "there is no revocation list of the authority of " + whose;
    default: return whose + " is refused: " + X509_verify_cert_error_string(error);
  }
}

std::string error_words(TlsRole role, bool established, const std::string& noted) {
  const unsigned long error = ERR_peek_last_error();
  ERR_clear_error();
  if (!noted.empty()) return noted;
  const std::string peer = std::string("the ") + role_name(other(role));
  if (error == 0 || ERR_GET_LIB(error) != ERR_LIB_SSL) {
    const char* reason = error == 0 ? nullptr : ERR_reason_error_string(error);
    return "TLS failed: " + std::string(reason == nullptr ? "unknown cause" : reason);
  }
  const int reason = ERR_GET_REASON(error);
  if (reason >= kAlertReasons) return alert_words(role, reason - kAlertReasons, established);
  switch (reason) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return peer + " showed no certificate";
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_NO_PROTOCOLS_AVAILABLE:
    case SSL_R_WRONG_SSL_VERSION: return peer + " does not speak TLS 1.3";
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_BAD_PROTOCOL_VERSION_NUMBER:
    case SSL_R_UNEXPECTED_MESSAGE: return "what " + peer + " sent is not TLS";
    case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC: return "bytes from " + peer + " were changed on their way";
    default: {
      const char* text = ERR_reason_error_string(error);
      return "TLS failed: " + std::string(text == nullptr ? "error " + std::to_string(reason) : text);
    }
  }
}

std::string client_name(X509* certificate) {
  const pki::Owned<GENERAL_NAMES> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  std::string found;
  int count = 0;
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    int type = 0;
    const auto* value = static_cast<const ASN1_STRING*>(GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names.get(), i), &type));
    if (type != GEN_URI) continue;
    const std::string uri(reinterpret_cast<const char*>(ASN1_STRING_get0_data(value)), static_cast<std::size_t>(ASN1_STRING_length(value)));
    if (uri.compare(0, kClientPrefix.size(), kClientPrefix) != 0) continue;
    found = uri.substr(kClientPrefix.size());
    ++count;
  }
  ERR_clear_error();
  if (count != 1) return "";
  try {
    check_identity_name(found);
  } catch (const ConfigError&) {
    return "";
  }
  return found;
}

PeerIdentity identify(X509* certificate, TlsRole peer) {
  CertificateInfo info = pki::describe(certificate, std::string("the ") + role_name(peer) + "'s certificate");
  PeerIdentity identity;
  identity.name = peer == TlsRole::client ? client_name(certificate) : std::move(info.name);
  identity.serial = std::move(info.serial);
  identity.fingerprint = std::move(info.fingerprint);
  identity.not_after = info.not_after;
  return identity;
}

}  // namespace fl::tls
