#include "tests/net_support/net/test_pki.h"

#include <openssl/ssl.h>

#include <array>
#include <ctime>
#include <fstream>
#include <utility>

#include "fl_core/net/pki_x509.h"

namespace fl::test {
namespace {

const std::array<std::string, 2> kHosts = {"127.0.0.1", "localhost"};
constexpr std::int64_t kHour_s = 3600;
constexpr ValidityOptions kOver = {-24 * kHour_s, -kHour_s};
constexpr ValidityOptions kTomorrow = {24 * kHour_s, 48 * kHour_s};

struct HostileContext {
  HostileContext(TlsRole role, const TlsFiles& honest, TlsFiles shows) : context(role, honest), shown(std::move(shows)) {}
  TlsContext context;
  TlsFiles shown;
};

/// Called in each handshake. A context keeps one certificate for each kind of key, so the honest one must go first: OpenSSL might
/// show that.
int show_instead(SSL* ssl, void* files) {
  const auto& shown = *static_cast<const TlsFiles*>(files);
  if (SSL_get_certificate(ssl) == nullptr) return 1;  // somebody wants to show none
  SSL_certs_clear(ssl);
  const bool used = SSL_use_certificate_chain_file(ssl, shown.certificate.c_str()) == 1 &&
                    SSL_use_PrivateKey_file(ssl, shown.key.c_str(), SSL_FILETYPE_PEM) == 1;
  return used ? 1 : 0;
}

}  // namespace

TestPki::TestPki(std::size_t clients) : authority_(Authority::create(folder_ / "pki")) {
  for (std::size_t i = 0; i < clients; ++i) names_.push_back("client-" + std::to_string(i));
  authority_.issue_server("server", kHosts);
  if (clients > 0) authority_.issue_clients(names_);
}

TlsFiles TestPki::files(const std::filesystem::path& certificate, const std::filesystem::path& key) const {
  return {certificate.string(), key.string(), authority_.certificate().string(), authority_.revocation_list().string()};
}

TlsFiles TestPki::server() const {
  const auto folder = authority_.folder() / "issued" / "server";
  return files(folder / "cert.pem", folder / "key.pem");
}

TlsFiles TestPki::client(std::size_t number) const {
  const auto folder = authority_.folder() / "issued" / names_.at(number);
  return files(folder / "cert.pem", folder / "key.pem");
}

TlsFiles TestPki::expired_client() { return files(authority_.issue_client("expired", kOver)); }
TlsFiles TestPki::not_yet_valid_client() { return files(authority_.issue_client("early", kTomorrow)); }
TlsFiles TestPki::expired_server() { return files(authority_.issue_server("expired-server", kHosts, kOver)); }

Authority TestPki::foreign() {
  const auto folder = folder_ / "foreign";
  return std::filesystem::exists(folder) ? Authority(folder) : Authority::create(folder);
}

TlsFiles TestPki::foreign_client() { return files(foreign().issue_client(names_.at(0))); }
TlsFiles TestPki::foreign_server() { return files(foreign().issue_server("server", kHosts)); }

TlsFiles TestPki::forge(const std::string& name, CertificateRole role, const TlsFiles* signer, KeyType key_type) {
  const pki::Key key = pki::make_key(key_type);
  pki::CertificatePlan plan;
  plan.name = name;
  plan.role = role;
  plan.serial = pki::make_serial();
  plan.not_before = std::time(nullptr) - kHour_s;
  plan.not_after = std::time(nullptr) + kHour_s;
  if (role == CertificateRole::server) plan.hosts = {kHosts.begin(), kHosts.end()};
  pki::Signer by;
  if (signer != nullptr) {
    by.certificate = pki::load_certificate(signer->certificate);
    by.key = pki::read_private_key(signer->key);
  }
  const pki::Certificate certificate = pki::make_certificate(plan, key.get(), signer != nullptr ? &by : nullptr);
  const auto folder = folder_ / ("forged-" + name + (signer != nullptr ? "-signed" : ""));
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "cert.pem") << pki::to_pem(certificate.get()) << (signer != nullptr ? pki::to_pem(by.certificate.get()) : "");
  pki::write_private_key(folder / "key.pem", key.get());
  return files(folder / "cert.pem", folder / "key.pem");
}

TlsFiles TestPki::self_signed_client() { return forge(names_.at(0), CertificateRole::client, nullptr, KeyType::ed25519); }
TlsFiles TestPki::self_signed_server() { return forge("server", CertificateRole::server, nullptr, KeyType::p256); }

TlsFiles TestPki::client_made_by_a_client() {
  const TlsFiles signer = client(0);
  return forge(names_.at(0), CertificateRole::client, &signer, KeyType::ed25519);
}

TlsFiles TestPki::p256_client() {
  const TlsFiles root = files(authority_.certificate(), authority_.folder() / "ca.key");
  return forge("client-p256", CertificateRole::client, &root, KeyType::p256);
}

TlsFiles TestPki::revoked_client(std::size_t number) {
  authority_.revoke(names_.at(number));
  return client(number);
}

TlsFiles TestPki::server_for(const std::string& host) {
  const std::array<std::string, 1> hosts = {host};
  return files(authority_.issue_server("server-for-" + host, hosts));
}

TlsFiles TestPki::revoked_server() {
  const TlsFiles revoked = files(authority_.issue_server("revoked-server", kHosts));
  authority_.revoke("revoked-server");
  return revoked;
}

std::shared_ptr<const TlsContext> hostile_context(TlsRole role, const TlsFiles& honest, const TlsFiles& shown) {
  const auto hostile = std::make_shared<const HostileContext>(role, honest, shown);
  SSL_CTX_set_cert_cb(hostile->context.native(), show_instead, const_cast<TlsFiles*>(&hostile->shown));
  return {hostile, &hostile->context};
}

std::shared_ptr<const TlsContext> tls_1_2_server(const TlsFiles& files) {
  const auto context = std::make_shared<const TlsContext>(TlsRole::server, files);
  pki::require(SSL_CTX_set_min_proto_version(context->native(), TLS1_2_VERSION) == 1 &&
                   SSL_CTX_set_max_proto_version(context->native(), TLS1_2_VERSION) == 1,
               "TLS 1.2");
  return context;
}

std::shared_ptr<const TlsContext> server_without_alpn(const TlsFiles& files) {
  const auto context = std::make_shared<const TlsContext>(TlsRole::server, files);
  SSL_CTX_set_alpn_select_cb(context->native(), nullptr, nullptr);
  return context;
}

}  // namespace fl::test
