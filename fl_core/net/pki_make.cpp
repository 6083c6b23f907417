#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include <array>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/base/hex.h"
#include "fl_core/net/pki_x509.h"

namespace fl::pki {
namespace {

Owned<BIO> memory() { return Owned<BIO>(require_made(BIO_new(BIO_s_mem()), "BIO_new")); }

/// Valid as long as the BIO, whose memory OpenSSL wipes when it is freed.
std::span<const std::byte> contents_of(BIO* bio) {
  const char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::as_bytes(std::span(data, static_cast<std::size_t>(size)));
}

std::string text_of(BIO* bio) {
  const auto bytes = contents_of(bio);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Owned<ASN1_INTEGER> integer_from_hex(const std::string& hex) {
  BIGNUM* raw = nullptr;
  require(BN_hex2bn(&raw, hex.c_str()) == static_cast<int>(hex.size()) && !hex.empty(), "BN_hex2bn");
  const Owned<BIGNUM> number(raw);
  return Owned<ASN1_INTEGER>(require_made(BN_to_ASN1_INTEGER(number.get(), nullptr), "BN_to_ASN1_INTEGER"));
}

Owned<ASN1_TIME> time_of(std::int64_t seconds) {
  return Owned<ASN1_TIME>(require_made(ASN1_TIME_set(nullptr, static_cast<time_t>(seconds)), "ASN1_TIME_set"));
}

Owned<X509_NAME> subject_named(const std::string& name) {
  Owned<X509_NAME> subject(require_made(X509_NAME_new(), "X509_NAME_new"));
  require(X509_NAME_add_entry_by_NID(subject.get(), NID_commonName, MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.data()),
                                     static_cast<int>(name.size()), -1, 0) == 1,
          "X509_NAME_add_entry_by_NID");
  return subject;
}

Owned<X509_EXTENSION> extension(X509V3_CTX* context, int nid, const char* value) {
  return Owned<X509_EXTENSION>(require_made(X509V3_EXT_conf_nid(nullptr, context, nid, value), "X509V3_EXT_conf_nid"));
}

/// The alternative names: what peers check, as the common name is only for people.
void add_alternative_names(X509* certificate, const CertificatePlan& plan) {
  const Owned<GENERAL_NAMES> names(require_made(GENERAL_NAMES_new(), "GENERAL_NAMES_new"));
  const auto add = [&](int type, ASN1_STRING* value) {
    GENERAL_NAME* name = require_made(GENERAL_NAME_new(), "GENERAL_NAME_new");
    GENERAL_NAME_set0_value(name, type, value);
    require(sk_GENERAL_NAME_push(names.get(), name) > 0, "sk_GENERAL_NAME_push");
  };
  const auto text = [](const std::string& value) {
    ASN1_IA5STRING* string = require_made(ASN1_IA5STRING_new(), "ASN1_IA5STRING_new");
    require(ASN1_STRING_set(string, value.data(), static_cast<int>(value.size())) == 1, "ASN1_STRING_set");
    return string;
  };
  if (plan.role == CertificateRole::client) add(GEN_URI, text("tributary:client:" + plan.name));
  for (const std::string& host : plan.hosts) {
    ASN1_OCTET_STRING* address = a2i_IPADDRESS(host.c_str());
    ERR_clear_error();
    if (address != nullptr) {
      add(GEN_IPADD, address);
    } else {
      add(GEN_DNS, text(host));
    }
  }
  require(X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), 0, X509V3_ADD_DEFAULT) == 1, "X509_add1_ext_i2d");
}

void add_extensions(X509* certificate, X509* issuer, const CertificatePlan& plan) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const auto add = [&](int nid, const char* value) {
    require(X509_add_ext(certificate, extension(&context, nid, value).get(), -1) == 1, "X509_add_ext");
  };
  add(NID_subject_key_identifier, "hash");
  if (plan.role == CertificateRole::authority) {
    add(NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
    add(NID_key_usage, "critical,keyCertSign,cRLSign");
    return;
  }
  add(NID_authority_key_identifier, "keyid:always");
  add(NID_basic_constraints, "critical,CA:FALSE");
  add(NID_key_usage, "critical,digitalSignature");
  add(NID_ext_key_usage, plan.role == CertificateRole::server ? "critical,serverAuth" : "critical,clientAuth");
  add_alternative_names(certificate, plan);
}

void set_validity(X509* certificate, const CertificatePlan& plan) {
  require(X509_set1_notBefore(certificate, time_of(plan.not_before).get()) == 1, "X509_set1_notBefore");
  require(X509_set1_notAfter(certificate, time_of(plan.not_after).get()) == 1, "X509_set1_notAfter");
}

template <class Write, class Object>
std::string pem_text(Write write, Object* object) {
  const Owned<BIO> bio = memory();
  require(write(bio.get(), object) == 1, "PEM_write_bio");
  return text_of(bio.get());
}

}  // namespace

void require(bool ok, const char* what) {
  if (ok) return;
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_get_error(), text.data(), text.size());
  ERR_clear_error();
  FL_CHECK(false, std::string(what) + ": " + text.data());
}

void clear_errors() { ERR_clear_error(); }

std::string to_hex(std::span<const unsigned char> bytes) { return fl::to_hex(std::as_bytes(bytes)); }

Key make_key(KeyType type) {
  FL_CHECK(type != KeyType::other, "no such key is made");
  return Key(type == KeyType::ed25519 ? require_made(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"), "EVP_PKEY_Q_keygen")
                                      : require_made(EVP_EC_gen("P-256"), "EVP_EC_gen"));
}

const EVP_MD* digest_for(EVP_PKEY* key) { return EVP_PKEY_is_a(key, "ED25519") == 1 ? nullptr : EVP_sha256(); }

std::string make_serial() {
  std::array<unsigned char, 16> bytes{};
  require(RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) == 1, "RAND_bytes");
  // Top bits 01: positive, and as long as any other.
  bytes[0] = static_cast<unsigned char>((bytes[0] & 0x3FU) | 0x40U);
  std::string hex = to_hex(bytes);
  for (char& c : hex) c = c >= 'a' ? static_cast<char>(c - 'a' + 'A') : c;
  return hex;
}

Certificate make_certificate(const CertificatePlan& plan, EVP_PKEY* key, const Signer* signer) {
  Certificate certificate(require_made(X509_new(), "X509_new"));
  require(X509_set_version(certificate.get(), X509_VERSION_3) == 1, "X509_set_version");
  require(X509_set_serialNumber(certificate.get(), integer_from_hex(plan.serial).get()) == 1, "X509_set_serialNumber");
  set_validity(certificate.get(), plan);
  const auto subject = subject_named(plan.name);
  X509* issuer = signer == nullptr ? certificate.get() : signer->certificate.get();
  require(X509_set_subject_name(certificate.get(), subject.get()) == 1, "X509_set_subject_name");
  require(X509_set_issuer_name(certificate.get(), X509_get_subject_name(issuer)) == 1, "X509_set_issuer_name");
  require(X509_set_pubkey(certificate.get(), key) == 1, "X509_set_pubkey");
  add_extensions(certificate.get(), issuer, plan);
  EVP_PKEY* signing = signer == nullptr ? key : signer->key.get();
  require(X509_sign(certificate.get(), signing, digest_for(signing)) > 0, "X509_sign");
  return certificate;
}

RevocationList make_revocation_list(const Signer& signer, std::int64_t number, std::int64_t this_update, std::int64_t next_update,
                                    const std::vector<std::pair<std::string, std::int64_t>>& revoked) {
  RevocationList list(require_made(X509_CRL_new(), "X509_CRL_new"));
  require(X509_CRL_set_version(list.get(), X509_CRL_VERSION_2) == 1, "X509_CRL_set_version");
  require(X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(signer.certificate.get())) == 1, "X509_CRL_set_issuer_name");
  require(X509_CRL_set1_lastUpdate(list.get(), time_of(this_update).get()) == 1, "X509_CRL_set1_lastUpdate");
  require(X509_CRL_set1_nextUpdate(list.get(), time_of(next_update).get()) == 1, "X509_CRL_set1_nextUpdate");
  for (const auto& [serial, when] : revoked) {
    Owned<X509_REVOKED> one(require_made(X509_REVOKED_new(), "X509_REVOKED_new"));
    require(X509_REVOKED_set_serialNumber(one.get(), integer_from_hex(serial).get()) == 1, "X509_REVOKED_set_serialNumber");
    require(X509_REVOKED_set_revocationDate(one.get(), time_of(when).get()) == 1, "X509_REVOKED_set_revocationDate");
    require(X509_CRL_add0_revoked(list.get(), one.get()) == 1, "X509_CRL_add0_revoked");
    one.release();  // the list owns it now
  }
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, signer.certificate.get(), nullptr, nullptr, list.get(), 0);
  const auto key_identifier = extension(&context, NID_authority_key_identifier, "keyid:always");
  require(X509_CRL_add_ext(list.get(), key_identifier.get(), -1) == 1, "X509_CRL_add_ext");
  const Owned<ASN1_INTEGER> counter(require_made(ASN1_INTEGER_new(), "ASN1_INTEGER_new"));
  require(ASN1_INTEGER_set_int64(counter.get(), number) == 1, "ASN1_INTEGER_set_int64");
  require(X509_CRL_add1_ext_i2d(list.get(), NID_crl_number, counter.get(), 0, X509V3_ADD_DEFAULT) == 1, "X509_CRL_add1_ext_i2d");
  require(X509_CRL_sort(list.get()) == 1, "X509_CRL_sort");
  require(X509_CRL_sign(list.get(), signer.key.get(), EVP_sha256()) > 0, "X509_CRL_sign");
  return list;
}

Request make_request(const std::string& name, EVP_PKEY* key, const std::string& proof) {
  Request request(require_made(X509_REQ_new(), "X509_REQ_new"));
  require(X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) == 1, "X509_REQ_set_version");
  require(X509_REQ_set_subject_name(request.get(), subject_named(name).get()) == 1, "X509_REQ_set_subject_name");
  require(X509_REQ_set_pubkey(request.get(), key) == 1, "X509_REQ_set_pubkey");
  require(X509_REQ_add1_attr_by_NID(request.get(), NID_pkcs9_challengePassword, MBSTRING_ASC,
                                    reinterpret_cast<const unsigned char*>(proof.data()), static_cast<int>(proof.size())) == 1,
          "X509_REQ_add1_attr_by_NID");
  require(X509_REQ_sign(request.get(), key, digest_for(key)) > 0, "X509_REQ_sign");
  return request;
}

std::string public_key_hex(EVP_PKEY* key) {
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(key, &der);
  require(size > 0, "i2d_PUBKEY");
  std::string hex = to_hex({der, static_cast<std::size_t>(size)});
  OPENSSL_free(der);
  return hex;
}

std::string proof_of(const std::string& token, const std::string& public_key) {
  long size = 0;
  unsigned char* der = OPENSSL_hexstr2buf(public_key.c_str(), &size);
  require(der != nullptr, "OPENSSL_hexstr2buf");
  std::array<unsigned char, EVP_MAX_MD_SIZE> code{};
  unsigned int length = 0;
  const bool made = HMAC(EVP_sha256(), token.data(), static_cast<int>(token.size()), der, static_cast<std::size_t>(size), code.data(),
                         &length) != nullptr;
  OPENSSL_free(der);
  require(made, "HMAC");
  return to_hex({code.data(), length});
}

bool same_secret(const std::string& a, const std::string& b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::vector<std::byte> to_der(X509* certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate, &der);
  require(size > 0, "i2d_X509");
  const auto bytes = std::as_bytes(std::span(der, static_cast<std::size_t>(size)));
  std::vector<std::byte> copy(bytes.begin(), bytes.end());
  OPENSSL_free(der);
  return copy;
}

std::string to_pem(X509* certificate) { return pem_text(PEM_write_bio_X509, certificate); }
std::string to_pem(X509_REQ* request) { return pem_text(PEM_write_bio_X509_REQ, request); }
std::string to_pem(X509_CRL* list) { return pem_text(PEM_write_bio_X509_CRL, list); }

void write_private_key(const std::filesystem::path& path, EVP_PKEY* key) {
  const Owned<BIO> bio = memory();
  require(PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1, "PEM_write_bio_PKCS8PrivateKey");
  write_file_atomically(path, contents_of(bio.get()), FileAccess::owner);
}

}  // namespace fl::pki
