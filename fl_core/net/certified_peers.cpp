#include "fl_core/net/certified_peers.h"

#include <openssl/x509v3.h>

#include <algorithm>

#include "fl_core/base/error.h"
#include "fl_core/net/tls_trust.h"
#include "fl_core/net/tls_words.h"

namespace fl {
namespace {

/// Null unless it is one certificate from the first byte to the last. What the authority's signature covers it has encoded
/// itself; what lies around is encoded again, so that the certificate has no second form.
pki::Certificate parse(std::span<const std::byte> der) {
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  pki::Certificate certificate(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  pki::clear_errors();
  if (!certificate || !std::ranges::equal(pki::to_der(certificate.get()), der)) return nullptr;
  return certificate;
}

bool critical(X509* certificate, int nid) {
  const int at = X509_get_ext_by_NID(certificate, nid, -1);
  return at >= 0 && X509_EXTENSION_get_critical(X509_get_ext(certificate, at)) == 1;
}

bool only_for_clients(X509* certificate) {
  const pki::Owned<EXTENDED_KEY_USAGE> uses(
      static_cast<EXTENDED_KEY_USAGE*>(X509_get_ext_d2i(certificate, NID_ext_key_usage, nullptr, nullptr)));
  pki::clear_errors();
  return uses && sk_ASN1_OBJECT_num(uses.get()) == 1 && OBJ_obj2nid(sk_ASN1_OBJECT_value(uses.get(), 0)) == NID_client_auth;
}

/// What the certificate of a client lacks, as FORMAT.md §1 has it; "" when nothing.
std::string profile_fault(X509* certificate) {
  const std::uint32_t flags = X509_get_extension_flags(certificate);
  if (X509_get_version(certificate) != X509_VERSION_3) return "version 3";
  if ((flags & EXFLAG_BCONS) == 0 || (flags & EXFLAG_CA) != 0 || !critical(certificate, NID_basic_constraints)) {
    return "BasicConstraints CA:FALSE, critical";
  }
  if (X509_get_key_usage(certificate) != KU_DIGITAL_SIGNATURE || !critical(certificate, NID_key_usage)) {
    return "KeyUsage digitalSignature and nothing else, critical";
  }
  if (!only_for_clients(certificate) || !critical(certificate, NID_ext_key_usage)) {
    return "ExtendedKeyUsage clientAuth and nothing else, critical";
  }
  if (X509_get0_subject_key_id(certificate) == nullptr || X509_get0_authority_key_id(certificate) == nullptr) {
    return "SubjectKeyIdentifier and AuthorityKeyIdentifier";
  }
  if (tls::client_name(certificate).empty()) return "exactly one alternative name (URI) tributary:client:NAME";
  return "";
}

/// "the certificate of 'alice'"; before it is verified, the name is only what it says.
std::string certificate_of(const std::string& name) { return name.empty() ? "the peer's certificate" : "the certificate of '" + name + "'"; }

std::string key_words(KeyType type, const std::string& name) {
  return std::string(type == KeyType::p256 ? "a P-256 key" : "a key of another kind") + ", expected an Ed25519 key, which secure aggregation needs; 'fl pki renew " +
         (name.empty() ? "NAME" : name) + "' on the authority makes it, or says how";
}

}  // namespace

struct CertifiedPeers::State {
  tls::Trust trust;
};

CertifiedPeers::CertifiedPeers(const TlsFiles& files) : state_(new State{tls::Trust(files, !files.revocations.empty())}) {}
CertifiedPeers::~CertifiedPeers() = default;

CertifiedPeer CertifiedPeers::check(std::span<const std::byte> der) const {
  const pki::Certificate certificate = parse(der);
  if (!certificate) throw ProtocolError("the peer's certificate of " + std::to_string(der.size()) + " bytes is malformed, expected one certificate in DER");
  CertifiedPeer peer{tls::client_name(certificate.get()), {}};
  const std::string whose = certificate_of(peer.name);
  const tls::Verification verification = state_->trust.verify(certificate.get(), TlsRole::client);
  if (X509_STORE_CTX_get_error(verification.get()) != X509_V_OK) {
    throw ProtocolError(tls::verification_words(verification.get(), whose, TlsRole::client));
  }
  const std::string fault = profile_fault(certificate.get());
  pki::clear_errors();
  if (!fault.empty()) throw ProtocolError(whose + " is not as clients have it, expected " + fault);
  EVP_PKEY* key = X509_get0_pubkey(certificate.get());
  const KeyType type = pki::key_type(key);
  if (type != KeyType::ed25519) throw ProtocolError(whose + " has " + key_words(type, peer.name));
  std::size_t size = peer.key.size();
  pki::require(EVP_PKEY_get_raw_public_key(key, reinterpret_cast<unsigned char*>(peer.key.data()), &size) == 1 && size == peer.key.size(),
               "EVP_PKEY_get_raw_public_key");
  return peer;
}

std::vector<std::byte> read_signing_identity(const TlsFiles& files, std::span<std::byte, kEd25519Bytes> private_key) {
  const tls::Identity own = tls::load_identity(files);
  const KeyType type = pki::key_type(own.key.get());
  if (type != KeyType::ed25519) throw ConfigError("tls.key: " + files.key + ": is " + key_words(type, tls::client_name(own.certificate.get())));
  std::size_t size = private_key.size();
  pki::require(EVP_PKEY_get_raw_private_key(own.key.get(), reinterpret_cast<unsigned char*>(private_key.data()), &size) == 1 &&
                   size == private_key.size(),
               "EVP_PKEY_get_raw_private_key");
  return pki::to_der(own.certificate.get());
}

}  // namespace fl
