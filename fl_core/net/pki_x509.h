#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fl_core/net/pki.h"

/// Keys, certificates, requests and revocation lists in OpenSSL; inside fl_net only. Functions that read files throw ConfigError
/// for contents that are not what is expected, and leave OpenSSL's error queue empty (TLS on the same thread reads it).
namespace fl::pki {

struct Free {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(X509_REQ* request) const { X509_REQ_free(request); }
  void operator()(X509_CRL* list) const { X509_CRL_free(list); }
  void operator()(X509_REVOKED* revoked) const { X509_REVOKED_free(revoked); }
  void operator()(X509_NAME* name) const { X509_NAME_free(name); }
  void operator()(X509_EXTENSION* extension) const { X509_EXTENSION_free(extension); }
  void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
  void operator()(EXTENDED_KEY_USAGE* uses) const { EXTENDED_KEY_USAGE_free(uses); }
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(BIGNUM* number) const { BN_free(number); }
  void operator()(ASN1_STRING* text) const { ASN1_STRING_free(text); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;
using Key = Owned<EVP_PKEY>;
using Certificate = Owned<X509>;
using Request = Owned<X509_REQ>;
using RevocationList = Owned<X509_CRL>;

/// For calls that fail only when memory is short or the code is wrong.
void require(bool ok, const char* what);
template <class T>
T* require_made(T* made, const char* what) {
  require(made != nullptr, what);
  return made;
}
std::string to_hex(std::span<const unsigned char> bytes);
/// Empties OpenSSL's error queue of this thread, after a call that may fail.
void clear_errors();

/// Who signs.
struct Signer {
  Certificate certificate;
  Key key;
};

struct CertificatePlan {
  std::string name;
  CertificateRole role = CertificateRole::client;
  std::string serial;  ///< hexadecimal
  std::int64_t not_before = 0;
  std::int64_t not_after = 0;
  std::vector<std::string> hosts;  ///< servers only
};

/// A new key. REQUIRES: not KeyType::other.
Key make_key(KeyType type);
/// What this key signs certificates and requests with: null for Ed25519, which takes no digest, else SHA-256.
const EVP_MD* digest_for(EVP_PKEY* key);
/// A positive number of 126 random bits, always 32 hexadecimal digits.
std::string make_serial();

/// `signer` null: signed by its own key, which must be `key`.
Certificate make_certificate(const CertificatePlan& plan, EVP_PKEY* key, const Signer* signer);
/// `revoked`: serials in hexadecimal and seconds since 1970.
RevocationList make_revocation_list(const Signer& signer, std::int64_t number, std::int64_t this_update, std::int64_t next_update,
                                    const std::vector<std::pair<std::string, std::int64_t>>& revoked);
/// CN = name; `proof` becomes the challenge password.
Request make_request(const std::string& name, EVP_PKEY* key, const std::string& proof);

/// HMAC-SHA256(token, public key in DER) in hexadecimal.
std::string proof_of(const std::string& token, const std::string& public_key_hex);
/// In constant time for equal lengths.
bool same_secret(const std::string& a, const std::string& b);

/// SubjectPublicKeyInfo in DER, as hexadecimal.
std::string public_key_hex(EVP_PKEY* key);
/// P-256 is with a named curve and an uncompressed point only; strict peers refuse other forms of the same key. Null is `other`.
KeyType key_type(EVP_PKEY* key);
/// The same from public_key_hex().
KeyType key_type(const std::string& public_key_hex);
/// `source` names the file in the error.
Key public_key_from_hex(const std::string& hex, const std::string& source);

std::vector<std::byte> to_der(X509* certificate);
std::string to_pem(X509* certificate);
std::string to_pem(X509_REQ* request);
std::string to_pem(X509_CRL* list);
/// PKCS #8 in PEM, mode 0600.
void write_private_key(const std::filesystem::path& path, EVP_PKEY* key);

/// Refuses a key that others may read.
Key read_private_key(const std::filesystem::path& path);
Certificate load_certificate(const std::filesystem::path& path);
CertificateInfo describe(X509* certificate, const std::string& source);

/// What a signing request says; its signature is good and its key is Ed25519 or P-256.
struct RequestContents {
  std::string name;
  std::string proof;  ///< "" without challenge password
  std::string public_key;
  KeyType key_type = KeyType::other;
  Key key;
};
RequestContents load_request(const std::filesystem::path& path);

}  // namespace fl::pki
