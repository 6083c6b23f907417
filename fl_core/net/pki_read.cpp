#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/stat.h>

#include <array>
#include <cstdlib>
#include <ctime>
#include <string_view>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/base/sha256.h"
#include "fl_core/net/pki_x509.h"

namespace fl {
namespace pki {
namespace {

constexpr const char* kExpectedCertificate = "a certificate: ca.pem or cert.pem of 'fl pki'";
constexpr const char* kExpectedRequest = "the request.pem that 'fl pki request' wrote on the device";
constexpr const char* kExpectedKey = "the private key that 'fl pki' wrote, without a password";

/// How SubjectPublicKeyInfo in DER begins, in hexadecimal, and how long it is: RFC 8410 for Ed25519, whose point of 32 bytes follows;
/// RFC 5480 for P-256 with a named curve and an uncompressed point of 64.
constexpr std::string_view kEd25519Start = "302a300506032b6570032100";
constexpr std::size_t kEd25519Digits = 24 + 64;
constexpr std::string_view kP256Start = "3059301306072a8648ce3d020106082a8648ce3d03010703420004";
constexpr std::size_t kP256Digits = 54 + 128;

/// Never asks on the terminal: a file with a password is refused.
int no_password(char*, int, int, void*) { return -1; }

/// Reads one PEM object of a file. `expected` completes "…; expected".
template <class Object, class Read>
Object read_pem(const std::filesystem::path& path, Read read, const std::string& expected, std::uint64_t limit_bytes) {
  std::error_code ignored;  // what cannot be seen is reported by the reading below
  const auto kind = std::filesystem::status(path, ignored).type();
  if (kind == std::filesystem::file_type::not_found) throw ConfigError(path.string() + ": no such file; expected " + expected);
  if (kind == std::filesystem::file_type::directory) throw ConfigError(path.string() + ": is a folder; expected " + expected);
  std::string text = read_text_file(path, limit_bytes);
  {
    const Owned<BIO> bio(require_made(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), "BIO_new_mem_buf"));
    Object object(read(bio.get(), nullptr, no_password, nullptr));
    clear_errors();
    OPENSSL_cleanse(text.data(), text.size());
    if (object) return object;
  }
  throw ConfigError(path.string() + ": holds nothing of the kind in PEM, or it is damaged; expected " + expected);
}

constexpr std::uint64_t kPemLimitBytes = 64 * 1024;
/// About a million revoked certificates.
constexpr std::uint64_t kRevocationListLimitBytes = 64U << 20U;

std::int64_t seconds_of(const ASN1_TIME* time, const std::string& source) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) throw ConfigError(source + ": has a date that cannot be read; expected a certificate of 'fl pki'");
  return static_cast<std::int64_t>(::timegm(&parts));
}

/// The only common name, or "" when there is none, several, or one with a NUL inside.
std::string common_name(const X509_NAME* subject) {
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0) return "";
  unsigned char* raw = nullptr;
  const int size = ASN1_STRING_to_UTF8(&raw, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  clear_errors();
  if (size < 0) return "";
  std::string name(reinterpret_cast<const char*>(raw), static_cast<std::size_t>(size));
  OPENSSL_free(raw);
  return name.find('\0') == std::string::npos ? name : "";
}

std::string address_text(std::span<const unsigned char> bytes) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (bytes.size() != 4 && bytes.size() != 16) return "?";
  const char* made = ::inet_ntop(bytes.size() == 4 ? AF_INET : AF_INET6, bytes.data(), text.data(), text.size());
  return made == nullptr ? "?" : made;
}

std::vector<std::string> hosts_of(X509* certificate) {
  std::vector<std::string> hosts;
  const Owned<GENERAL_NAMES> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    int type = 0;
    const auto* value = static_cast<const ASN1_STRING*>(GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names.get(), i), &type));
    const unsigned char* data = type == GEN_DNS || type == GEN_IPADD ? ASN1_STRING_get0_data(value) : nullptr;
    if (data == nullptr) continue;
    const auto size = static_cast<std::size_t>(ASN1_STRING_length(value));
    if (type == GEN_DNS) hosts.emplace_back(reinterpret_cast<const char*>(data), size);
    if (type == GEN_IPADD) hosts.push_back(address_text({data, size}));
  }
  return hosts;
}

CertificateRole role_of(X509* certificate, const std::string& source) {
  if ((X509_get_extension_flags(certificate) & EXFLAG_CA) != 0) return CertificateRole::authority;
  // All bits are set when the extension is absent.
  const std::uint32_t uses = X509_get_extended_key_usage(certificate);
  const bool server = (uses & XKU_SSL_SERVER) != 0;
  const bool client = (uses & XKU_SSL_CLIENT) != 0;
  if (server == client) {
    throw ConfigError(source + ": is for " + (server ? "servers and clients at once" : "neither servers nor clients") +
                      "; expected a certificate with exactly one of the extended key usages serverAuth and clientAuth");
  }
  return server ? CertificateRole::server : CertificateRole::client;
}

std::string challenge_password(X509_REQ* request) {
  const int at = X509_REQ_get_attr_by_NID(request, NID_pkcs9_challengePassword, -1);
  const X509_ATTRIBUTE* attribute = at < 0 ? nullptr : X509_REQ_get_attr(request, at);
  const ASN1_TYPE* value = attribute == nullptr ? nullptr : X509_ATTRIBUTE_get0_type(const_cast<X509_ATTRIBUTE*>(attribute), 0);
  if (value == nullptr) return "";
  const int type = ASN1_TYPE_get(value);
  if (type != V_ASN1_PRINTABLESTRING && type != V_ASN1_UTF8STRING && type != V_ASN1_IA5STRING) return "";
  const ASN1_STRING* text = value->value.asn1_string;
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)), static_cast<std::size_t>(ASN1_STRING_length(text))};
}

}  // namespace

KeyType key_type(const std::string& public_key_hex) {
  if (public_key_hex.size() == kEd25519Digits && public_key_hex.starts_with(kEd25519Start)) return KeyType::ed25519;
  if (public_key_hex.size() == kP256Digits && public_key_hex.starts_with(kP256Start)) return KeyType::p256;
  return KeyType::other;
}

KeyType key_type(EVP_PKEY* key) {
  const bool known = key != nullptr && (EVP_PKEY_is_a(key, "ED25519") == 1 || EVP_PKEY_is_a(key, "EC") == 1);
  return known ? key_type(public_key_hex(key)) : KeyType::other;
}

Key public_key_from_hex(const std::string& hex, const std::string& source) {
  long size = 0;
  unsigned char* der = OPENSSL_hexstr2buf(hex.c_str(), &size);
  const unsigned char* at = der;
  Key key(der == nullptr ? nullptr : d2i_PUBKEY(nullptr, &at, size));
  OPENSSL_free(der);
  clear_errors();
  if (!key) throw ConfigError(source + ": a public key in it is damaged; restore it from a backup");
  return key;
}

namespace {

/// systemd hands a key to a service as a file in a folder that nobody else can enter; from version 257 on its group bits are the
/// mask of an access list.
bool is_service_credential(const std::filesystem::path& path) {
  const char* folder = std::getenv("CREDENTIALS_DIRECTORY");
  return folder != nullptr && path.parent_path() == folder;
}

}  // namespace

Key read_private_key(const std::filesystem::path& path) {
  struct stat info {};
  const unsigned others = is_service_credential(path) ? 07U : 077U;
  if (::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & others) != 0) {
    throw ConfigError(path.string() + ": others may read this private key; 'chmod 600 " + path.string() +
                      "' closes it, and if others had access, make a new one");
  }
  return read_pem<Key>(path, PEM_read_bio_PrivateKey, kExpectedKey, kPemLimitBytes);
}

Certificate load_certificate(const std::filesystem::path& path) {
  return read_pem<Certificate>(path, PEM_read_bio_X509, kExpectedCertificate, kPemLimitBytes);
}

CertificateInfo describe(X509* certificate, const std::string& source) {
  CertificateInfo info;
  info.name = common_name(X509_get_subject_name(certificate));
  info.role = role_of(certificate, source);
  info.key_type = key_type(X509_get0_pubkey(certificate));
  const Owned<BIGNUM> serial(require_made(ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr), "ASN1_INTEGER_to_BN"));
  char* digits = require_made(BN_bn2hex(serial.get()), "BN_bn2hex");
  info.serial = digits;
  OPENSSL_free(digits);
  info.fingerprint = sha256_hex(to_der(certificate));
  info.not_before = seconds_of(X509_get0_notBefore(certificate), source);
  info.not_after = seconds_of(X509_get0_notAfter(certificate), source);
  if (info.role == CertificateRole::server) info.hosts = hosts_of(certificate);
  clear_errors();
  return info;
}

RequestContents load_request(const std::filesystem::path& path) {
  const Request request = read_pem<Request>(path, PEM_read_bio_X509_REQ, kExpectedRequest, kPemLimitBytes);
  RequestContents contents;
  contents.key.reset(X509_REQ_get_pubkey(request.get()));
  contents.key_type = key_type(contents.key.get());
  const bool known = contents.key_type != KeyType::other;
  const bool good = known && X509_REQ_verify(request.get(), contents.key.get()) == 1;
  clear_errors();
  if (!known) throw ConfigError(path.string() + ": asks for a key that is neither Ed25519 nor EC P-256; expected " + kExpectedRequest);
  if (!good) throw ConfigError(path.string() + ": its signature is wrong, so it was changed on the way; copy it again from the device");
  contents.name = common_name(X509_REQ_get_subject_name(request.get()));
  check_identity_name(contents.name, path.string() + ": its common name");
  contents.proof = challenge_password(request.get());
  contents.public_key = public_key_hex(contents.key.get());
  clear_errors();
  return contents;
}

}  // namespace pki

CertificateInfo read_certificate(const std::filesystem::path& path) {
  return pki::describe(pki::load_certificate(path).get(), path.string());
}

std::int64_t crl_number(const std::filesystem::path& path) {
  constexpr const char* kExpected = "a revocation list: crl.pem of 'fl pki'";
  const auto list = pki::read_pem<pki::RevocationList>(path, PEM_read_bio_X509_CRL, kExpected, pki::kRevocationListLimitBytes);
  const pki::Owned<ASN1_INTEGER> number(
      static_cast<ASN1_INTEGER*>(X509_CRL_get_ext_d2i(list.get(), NID_crl_number, nullptr, nullptr)));
  std::int64_t value = 0;
  const bool fits = number && ASN1_INTEGER_get_int64(&value, number.get()) == 1 && value >= 0;
  pki::clear_errors();
  if (!fits) throw ConfigError(path.string() + ": has no number (CRLNumber) that fits; expected " + kExpected);
  return value;
}

}  // namespace fl
