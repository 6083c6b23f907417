#include "fl_core/net/tls_trust.h"

#include <openssl/pem.h>

#include <string>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"

namespace fl::tls {
namespace {

constexpr std::uint64_t kPemLimitBytes = 64 * 1024;
constexpr std::uint64_t kRevocationListLimitBytes = 64U << 20U;

void require_file(const std::string& path, const char* key) {
  if (path.empty()) throw ConfigError(std::string("tls.") + key + ": is missing; expected the path of a PEM file that 'fl pki' wrote");
  std::error_code ignored;  // what cannot be seen is reported by the reading
  const auto kind = std::filesystem::status(path, ignored).type();
  if (kind == std::filesystem::file_type::not_found) throw ConfigError(std::string("tls.") + key + ": " + path + ": no such file");
}

std::string read_pem_file(const std::string& path, const char* key, std::uint64_t limit_bytes) {
  require_file(path, key);
  return read_text_file(path, limit_bytes);
}

/// All objects of one kind in a PEM file.
template <class Object, class Read>
std::vector<pki::Owned<Object>> read_all(const std::string& text, Read read) {
  const pki::Owned<BIO> bio(pki::require_made(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), "BIO_new_mem_buf"));
  std::vector<pki::Owned<Object>> objects;
  while (Object* object = read(bio.get(), nullptr, nullptr, nullptr)) objects.emplace_back(object);
  pki::clear_errors();
  return objects;
}

pki::Certificate load_authority(const std::string& path) {
  auto roots = read_all<X509>(read_pem_file(path, "authority", kPemLimitBytes), PEM_read_bio_X509);
  if (roots.size() != 1) {
    throw ConfigError("tls.authority: " + path + ": holds " + std::to_string(roots.size()) +
                      " certificates, expected exactly one, the root that peers come from (ca.pem of 'fl pki')");
  }
  X509* root = roots[0].get();
  const bool good = X509_check_ca(root) == 1 && X509_self_signed(root, 1) == 1;
  pki::clear_errors();
  if (!good) throw ConfigError("tls.authority: " + path + ": is not the certificate of an authority; expected ca.pem of 'fl pki'");
  return std::move(roots[0]);
}

pki::RevocationList load_revocations(const std::string& path, X509* root) {
  auto lists = read_all<X509_CRL>(read_pem_file(path, "revocations", kRevocationListLimitBytes), PEM_read_bio_X509_CRL);
  if (lists.size() != 1) {
    throw ConfigError("tls.revocations: " + path + ": holds " + std::to_string(lists.size()) +
                      " revocation lists, expected exactly one (crl.pem of 'fl pki')");
  }
  const bool ours = X509_CRL_verify(lists[0].get(), X509_get0_pubkey(root)) == 1;
  pki::clear_errors();
  if (!ours) throw ConfigError("tls.revocations: " + path + ": is not signed by the authority in tls.authority; expected its crl.pem");
  return std::move(lists[0]);
}

}  // namespace

Trust::Trust(const TlsFiles& files, bool with_list) : store_(pki::require_made(X509_STORE_new(), "X509_STORE_new")) {
  const pki::Certificate root = load_authority(files.authority);
  pki::require(X509_STORE_add_cert(store_.get(), root.get()) == 1, "X509_STORE_add_cert");
  if (!with_list) return;
  list_ = load_revocations(files.revocations, root.get());
  pki::require(X509_STORE_add_crl(store_.get(), list_.get()) == 1, "X509_STORE_add_crl");
}

void Trust::set_rules(X509_VERIFY_PARAM* rules, TlsRole owner) const {
  pki::require(X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_X509_STRICT | (list_ ? X509_V_FLAG_CRL_CHECK : 0UL)) == 1 &&
                   X509_VERIFY_PARAM_set_purpose(rules, owner == TlsRole::server ? X509_PURPOSE_SSL_SERVER : X509_PURPOSE_SSL_CLIENT) == 1,
               "X509_VERIFY_PARAM");
  X509_VERIFY_PARAM_set_depth(rules, 0);  // of certificates between the peer's and the root
  X509_VERIFY_PARAM_set_auth_level(rules, kSecurityLevel);
}

Verification Trust::verify(X509* certificate, TlsRole owner) const {
  Verification verification(pki::require_made(X509_STORE_CTX_new(), "X509_STORE_CTX_new"));
  pki::require(X509_STORE_CTX_init(verification.get(), store_.get(), certificate, nullptr) == 1, "X509_STORE_CTX_init");
  set_rules(X509_STORE_CTX_get0_param(verification.get()), owner);
  const bool good = X509_verify_cert(verification.get()) == 1;
  pki::clear_errors();
  // A failure without a reason, as of memory, must not read as success.
  if (!good && X509_STORE_CTX_get_error(verification.get()) == X509_V_OK) X509_STORE_CTX_set_error(verification.get(), X509_V_ERR_UNSPECIFIED);
  return verification;
}

Identity load_identity(const TlsFiles& files) {
  require_file(files.certificate, "certificate");
  require_file(files.key, "key");
  Identity identity{pki::load_certificate(files.certificate), pki::read_private_key(files.key)};
  const bool fits = X509_check_private_key(identity.certificate.get(), identity.key.get()) == 1;
  pki::clear_errors();
  if (!fits) throw ConfigError("tls.key: " + files.key + ": is the key of another certificate than " + files.certificate);
  return identity;
}

}  // namespace fl::tls
