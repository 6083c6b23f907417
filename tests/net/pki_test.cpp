#include "fl_core/net/pki.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/base/sha256.h"
#include "fl_core/net/pki_x509.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using test::TemporaryFolder;
using testing::AllOf;
using testing::ContainsRegex;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;
using Status = IssuedCertificate::Status;

constexpr std::uint64_t kAnySize = 1U << 20U;
constexpr ValidityOptions kExpired{-7200, -60};

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(X509_CRL* list) const { X509_CRL_free(list); }
  void operator()(X509_REQ* request) const { X509_REQ_free(request); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(X509_STORE* store) const { X509_STORE_free(store); }
  void operator()(X509_STORE_CTX* context) const { X509_STORE_CTX_free(context); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

template <class T, class Read>
Owned<T> load(const std::filesystem::path& path, Read read) {
  const std::string text = read_text_file(path, kAnySize);
  const Owned<BIO> bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  Owned<T> object(read(bio.get(), nullptr, nullptr, nullptr));
  EXPECT_NE(object, nullptr) << path;
  return object;
}
Owned<X509> certificate_of(const std::filesystem::path& path) { return load<X509>(path, PEM_read_bio_X509); }
Owned<EVP_PKEY> key_of(const std::filesystem::path& path) { return load<EVP_PKEY>(path, PEM_read_bio_PrivateKey); }

/// What a strict peer of this authority says about a certificate: "ok" or OpenSSL's reason.
std::string verdict(const Authority& authority, const std::filesystem::path& certificate, int purpose, const std::string& host = "") {
  const Owned<X509_STORE> store(X509_STORE_new());
  const auto root = certificate_of(authority.certificate());
  const auto list = load<X509_CRL>(authority.revocation_list(), PEM_read_bio_X509_CRL);
  const auto leaf = certificate_of(certificate);
  X509_STORE_add_cert(store.get(), root.get());
  X509_STORE_add_crl(store.get(), list.get());
  const Owned<X509_STORE_CTX> context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), leaf.get(), nullptr);
  X509_VERIFY_PARAM* rules = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_X509_STRICT | X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL | X509_V_FLAG_CHECK_SS_SIGNATURE);
  X509_VERIFY_PARAM_set_purpose(rules, purpose);
  X509_VERIFY_PARAM_set_auth_level(rules, 2);
  if (!host.empty() && X509_VERIFY_PARAM_set1_ip_asc(rules, host.c_str()) != 1) X509_VERIFY_PARAM_set1_host(rules, host.c_str(), 0);
  const bool good = X509_verify_cert(context.get()) == 1;
  ERR_clear_error();
  return good ? "ok" : X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get()));
}
std::string as_client(const Authority& authority, const std::filesystem::path& certificate) {
  return verdict(authority, certificate, X509_PURPOSE_SSL_CLIENT);
}
std::string as_server(const Authority& authority, const std::filesystem::path& certificate, const std::string& host = "") {
  return verdict(authority, certificate, X509_PURPOSE_SSL_SERVER, host);
}

/// One extension as OpenSSL prints it, "critical " before it where it is; "" without it.
std::string extension(const std::filesystem::path& file, int nid) {
  const auto certificate = certificate_of(file);
  const int at = X509_get_ext_by_NID(certificate.get(), nid, -1);
  if (at < 0) return "";
  X509_EXTENSION* found = X509_get_ext(certificate.get(), at);
  const Owned<BIO> bio(BIO_new(BIO_s_mem()));
  X509V3_EXT_print(bio.get(), found, 0, 0);
  const char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return (X509_EXTENSION_get_critical(found) != 0 ? "critical " : "") + std::string(data, static_cast<std::size_t>(size));
}

bool same_key(const std::filesystem::path& certificate, EVP_PKEY* key) {
  const auto loaded = certificate_of(certificate);
  return EVP_PKEY_eq(X509_get0_pubkey(loaded.get()), key) == 1;
}

mode_t mode_of(const std::filesystem::path& path) {
  struct stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 07777U;
}

std::string text_of(const std::filesystem::path& path) { return read_text_file(path, kAnySize); }
void put(const std::filesystem::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

/// An authority in a fresh folder, and a device that asks it.
class Pki : public testing::Test {
 protected:
  IssuedFiles server(const std::string& name = "aggregator", ValidityOptions validity = {}) {
    const std::vector<std::string> hosts = {"localhost", "fl.example.org", "127.0.0.1", "::1"};
    return authority.issue_server(name, hosts, validity);
  }
  std::filesystem::path request(const std::string& name, const std::string& token, const std::string& device = "device") {
    return make_request(name, token, folder / device).request;
  }
  std::string refusal(const std::string& name, const std::filesystem::path& file) {
    const std::string before = text_of(authority.folder() / "index.json");
    const std::string error = error_of([&] { authority.issue_client_from_request(name, file); });
    EXPECT_EQ(text_of(authority.folder() / "index.json"), before) << "a refused request changes nothing";
    EXPECT_EQ(error.find('\n'), std::string::npos);
    return error;
  }
  std::vector<Status> statuses() const {
    std::vector<Status> all;
    for (const IssuedCertificate& one : authority.list().certificates) all.push_back(one.status);
    return all;
  }

  TemporaryFolder folder;
  Authority authority = Authority::create(folder / "pki");
};

TEST_F(Pki, IssuesWhatStrictPeersAccept) {
  const IssuedFiles aggregator = server();
  const IssuedFiles alice = authority.issue_client("alice");
  EXPECT_EQ(as_server(authority, aggregator.certificate), "ok");
  EXPECT_EQ(as_client(authority, alice.certificate), "ok");
  EXPECT_TRUE(same_key(alice.certificate, key_of(alice.key).get()));
  EXPECT_TRUE(same_key(aggregator.certificate, key_of(aggregator.key).get()));
}

TEST_F(Pki, ChecksHostsOfServers) {
  const IssuedFiles aggregator = server();
  for (const char* host : {"localhost", "fl.example.org", "127.0.0.1", "::1"}) {
    EXPECT_EQ(as_server(authority, aggregator.certificate, host), "ok") << host;
  }
  EXPECT_EQ(as_server(authority, aggregator.certificate, "example.org"), "hostname mismatch");
  EXPECT_EQ(as_server(authority, aggregator.certificate, "aggregator"), "hostname mismatch") << "the common name is no host";
  EXPECT_EQ(as_server(authority, aggregator.certificate, "127.0.0.2"), "IP address mismatch");
}

TEST_F(Pki, GivesEachCertificateOnePurpose) {
  EXPECT_THAT(as_client(authority, server().certificate), HasSubstr("purpose"));
  EXPECT_THAT(as_server(authority, authority.issue_client("alice").certificate), HasSubstr("purpose"));
}

TEST_F(Pki, RefusesAnotherAuthority) {
  const Authority other = Authority::create(folder / "other");
  const IssuedFiles alice = authority.issue_client("alice");
  EXPECT_THAT(as_client(other, alice.certificate), HasSubstr("issuer"));
  EXPECT_EQ(as_client(authority, alice.certificate), "ok");
}

TEST_F(Pki, RefusesExpiredAndFutureCertificates) {
  EXPECT_EQ(as_client(authority, authority.issue_client("late", kExpired).certificate), "certificate has expired");
  EXPECT_EQ(as_client(authority, authority.issue_client("early", {3600, 7200}).certificate), "certificate is not yet valid");
}

TEST_F(Pki, WritesTheExtensionsThatStrictChecksNeed) {
  const auto root = authority.certificate();
  EXPECT_EQ(extension(root, NID_basic_constraints), "critical CA:TRUE, pathlen:0");
  EXPECT_EQ(extension(root, NID_key_usage), "critical Certificate Sign, CRL Sign");
  EXPECT_NE(extension(root, NID_subject_key_identifier), "");
  const auto alice = authority.issue_client("alice").certificate;
  EXPECT_EQ(extension(alice, NID_basic_constraints), "critical CA:FALSE");
  EXPECT_EQ(extension(alice, NID_key_usage), "critical Digital Signature");
  EXPECT_EQ(extension(alice, NID_ext_key_usage), "critical TLS Web Client Authentication");
  EXPECT_EQ(extension(alice, NID_subject_alt_name), "URI:tributary:client:alice");
  EXPECT_NE(extension(alice, NID_subject_key_identifier), "");
  EXPECT_THAT(extension(alice, NID_authority_key_identifier), HasSubstr(extension(root, NID_subject_key_identifier)));
  const auto aggregator = server().certificate;
  EXPECT_EQ(extension(aggregator, NID_ext_key_usage), "critical TLS Web Server Authentication");
  EXPECT_EQ(extension(aggregator, NID_subject_alt_name),
            "DNS:localhost, DNS:fl.example.org, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1");
  const auto certificate = certificate_of(alice);
  EXPECT_EQ(X509_get_signature_nid(certificate.get()), NID_ecdsa_with_SHA256);
}

TEST_F(Pki, GivesClientsEd25519AndEverybodyElseP256) {
  const IssuedFiles alice = authority.issue_client("alice");
  const RequestFiles device = make_request("bob", authority.make_token("bob", 3600), folder / "device");
  const IssuedFiles bob = authority.issue_client_from_request("bob", device.request);
  for (const auto& [certificate, key] : {std::pair(alice.certificate, alice.key), std::pair(bob.certificate, device.key)}) {
    EXPECT_EQ(read_certificate(certificate).key_type, KeyType::ed25519);
    EXPECT_EQ(EVP_PKEY_is_a(key_of(key).get(), "ED25519"), 1);
  }
  EXPECT_TRUE(alice.new_key);
  EXPECT_FALSE(bob.new_key);
  EXPECT_EQ(server().info.key_type, KeyType::p256);
  EXPECT_EQ(read_certificate(authority.certificate()).key_type, KeyType::p256);
  const AuthorityListing listing = authority.list();
  EXPECT_THAT((std::vector{listing.certificates[0].key_type, listing.certificates[1].key_type, listing.certificates[2].key_type}),
              ElementsAre(KeyType::ed25519, KeyType::ed25519, KeyType::p256));
}

TEST_F(Pki, TellsKindsOfKeysApart) {
  const auto type_of = [](EVP_PKEY* key) { return pki::key_type(Owned<EVP_PKEY>(key).get()); };
  EXPECT_EQ(type_of(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")), KeyType::ed25519);
  EXPECT_EQ(type_of(EVP_EC_gen("P-256")), KeyType::p256);
  EXPECT_EQ(type_of(EVP_EC_gen("P-384")), KeyType::other);
  EXPECT_EQ(type_of(EVP_EC_gen("secp256k1")), KeyType::other);
  EXPECT_EQ(type_of(EVP_PKEY_Q_keygen(nullptr, nullptr, "X25519")), KeyType::other);
  EXPECT_EQ(type_of(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED448")), KeyType::other);
  EXPECT_EQ(type_of(EVP_RSA_gen(2048)), KeyType::other);
  EXPECT_EQ(type_of(nullptr), KeyType::other);
  // Of the same length, with another identifier: byte 8 of Ed25519's, byte 22 of P-256's.
  for (const auto& [type, digit] : {std::pair(KeyType::ed25519, 16U), std::pair(KeyType::p256, 44U)}) {
    std::string hex = pki::public_key_hex(pki::make_key(type).get());
    ASSERT_EQ(pki::key_type(hex), type);
    EXPECT_EQ(pki::key_type(hex + "00"), KeyType::other);
    hex[digit] = hex[digit] == '0' ? '1' : '0';
    EXPECT_EQ(pki::key_type(hex), KeyType::other);
  }
  const Owned<EVP_PKEY> compressed(EVP_EC_gen("P-256"));
  ASSERT_EQ(EVP_PKEY_set_utf8_string_param(compressed.get(), OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, "compressed"), 1);
  EXPECT_EQ(pki::key_type(compressed.get()), KeyType::other) << "strict peers refuse it";
}

TEST_F(Pki, ReadsCertificatesBack) {
  const IssuedFiles aggregator = server();
  const CertificateInfo info = read_certificate(aggregator.certificate);
  EXPECT_EQ(info.name, "aggregator");
  EXPECT_EQ(info.role, CertificateRole::server);
  EXPECT_THAT(info.hosts, ElementsAre("localhost", "fl.example.org", "127.0.0.1", "::1"));
  EXPECT_THAT(info.serial, MatchesRegex("[4-7][0-9A-F]{31}"));
  EXPECT_EQ(info.not_after - info.not_before, 365 * 86'400 + 3600) << "a year, dated back by an hour";
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate_of(aggregator.certificate).get(), &der);
  EXPECT_EQ(info.fingerprint, sha256_hex(std::as_bytes(std::span(der, static_cast<std::size_t>(size)))));
  OPENSSL_free(der);
  EXPECT_EQ(read_certificate(authority.certificate()).role, CertificateRole::authority);
  EXPECT_EQ(read_certificate(authority.issue_client("alice").certificate).role, CertificateRole::client);
}

TEST_F(Pki, CountsDaysDown) {
  // 86 400 s are a day: one second short of two days is one whole day; one second late is a day that has begun.
  EXPECT_EQ(days_left(172'799, 0), 1);
  EXPECT_EQ(days_left(172'800, 0), 2);
  EXPECT_EQ(days_left(10, 10), 0);
  EXPECT_EQ(days_left(9, 10), -1);
  EXPECT_EQ(days_left(10, 86'410), -1);
  EXPECT_EQ(days_left(10, 86'411), -2);
}

TEST_F(Pki, GivesNoTwoCertificatesOneSerialOrKey) {
  const IssuedFiles a = authority.issue_client("a");
  const IssuedFiles b = authority.issue_client("b");
  EXPECT_NE(a.info.serial, b.info.serial);
  EXPECT_FALSE(same_key(a.certificate, key_of(b.key).get()));
}

TEST_F(Pki, RevokesEveryValidCertificateOfAName) {
  const IssuedFiles bob = authority.issue_client("bob");
  const IssuedFiles first = authority.issue_client("alice");
  std::filesystem::copy_file(first.certificate, folder / "old.pem");
  const IssuedFiles second = authority.renew("alice");
  EXPECT_EQ(crl_number(authority.revocation_list()), 1);
  const Revocation revocation = authority.revoke("alice");
  EXPECT_THAT(revocation.serials, ElementsAre(first.info.serial, second.info.serial));
  EXPECT_EQ(revocation.crl_number, 2);
  EXPECT_EQ(crl_number(authority.revocation_list()), 2);
  EXPECT_EQ(as_client(authority, folder / "old.pem"), "certificate revoked");
  EXPECT_EQ(as_client(authority, second.certificate), "certificate revoked");
  EXPECT_EQ(as_client(authority, bob.certificate), "ok");
  EXPECT_THAT(statuses(), ElementsAre(Status::valid, Status::revoked, Status::revoked));
  EXPECT_EQ(authority.revoke("bob").crl_number, 3);
  EXPECT_EQ(as_client(authority, second.certificate), "certificate revoked") << "a list never forgets";
  EXPECT_THAT(error_of([&] { authority.revoke("alice"); }), HasSubstr("'alice' has no valid certificate"));
  EXPECT_THAT(error_of([&] { authority.renew("alice"); }), AllOf(HasSubstr("'alice' was revoked"), HasSubstr("issue client alice")));
  EXPECT_EQ(crl_number(authority.revocation_list()), 3);
}

TEST_F(Pki, RevokesOneCertificateBySerial) {
  const IssuedFiles first = authority.issue_client("alice");
  std::filesystem::copy_file(first.certificate, folder / "old.pem");
  const IssuedFiles second = authority.renew("alice");
  std::string lower = first.info.serial;
  for (char& c : lower) c = static_cast<char>(std::tolower(c));
  EXPECT_THAT(authority.revoke(lower).serials, ElementsAre(first.info.serial));
  EXPECT_EQ(as_client(authority, folder / "old.pem"), "certificate revoked");
  EXPECT_EQ(as_client(authority, second.certificate), "ok");
  // The one that is left can be renewed, also when the newest is the revoked one.
  const IssuedFiles third = authority.renew("alice");
  authority.revoke(third.info.serial);
  EXPECT_EQ(as_client(authority, authority.renew("alice").certificate), "ok");
}

TEST_F(Pki, IssuesANewKeyAfterRevocation) {
  const IssuedFiles first = authority.issue_client("alice");
  EXPECT_THAT(error_of([&] { authority.issue_client("alice"); }), AllOf(HasSubstr("already has a valid certificate"), HasSubstr("renew alice")));
  const auto old_key = key_of(first.key);
  authority.revoke("alice");
  const IssuedFiles second = authority.issue_client("alice");
  EXPECT_EQ(as_client(authority, second.certificate), "ok");
  EXPECT_FALSE(same_key(second.certificate, old_key.get()));
  EXPECT_THAT(statuses(), ElementsAre(Status::revoked, Status::valid));
}

TEST_F(Pki, RenewsForTheSameKeyWhileTheOldCertificateStaysValid) {
  const IssuedFiles old = server("aggregator", {-3600, 10 * kSecondsPerDay});
  std::filesystem::copy_file(old.certificate, folder / "old.pem");
  EXPECT_THAT(statuses(), ElementsAre(Status::expires_soon));
  const IssuedFiles renewed = authority.renew("aggregator");
  EXPECT_EQ(renewed.certificate, old.certificate) << "in place";
  EXPECT_NE(renewed.info.serial, old.info.serial);
  EXPECT_EQ(renewed.info.hosts, old.info.hosts);
  EXPECT_TRUE(same_key(renewed.certificate, key_of(old.key).get()));
  EXPECT_EQ(as_server(authority, renewed.certificate, "127.0.0.1"), "ok");
  EXPECT_EQ(as_server(authority, folder / "old.pem", "127.0.0.1"), "ok");
  EXPECT_THAT(statuses(), ElementsAre(Status::replaced, Status::valid));
  EXPECT_THAT(error_of([&] { authority.renew("agregator"); }), HasSubstr("did you mean 'aggregator'?"));
}

TEST_F(Pki, RenewsWhatHasExpired) {
  authority.issue_client("alice", kExpired);
  EXPECT_THAT(statuses(), ElementsAre(Status::expired));
  EXPECT_EQ(as_client(authority, authority.renew("alice").certificate), "ok");
}

TEST_F(Pki, WarnsFromThirtyDaysOn) {
  authority.issue_client("soon", {0, 30 * kSecondsPerDay - 1});
  authority.issue_client("later", {0, 30 * kSecondsPerDay + 3600});
  EXPECT_THAT(statuses(), ElementsAre(Status::expires_soon, Status::valid));
}

TEST_F(Pki, IssuesForAKeyThatNeverLeavesTheDevice) {
  const std::string token = authority.make_token("alice", 3600);
  const RequestFiles device = make_request("alice", token, folder / "device");
  const IssuedFiles issued = authority.issue_client_from_request("alice", device.request);
  EXPECT_EQ(issued.key, "");
  EXPECT_EQ(as_client(authority, issued.certificate), "ok");
  EXPECT_TRUE(same_key(issued.certificate, key_of(device.key).get()));
  EXPECT_EQ(text_of(device.request).find(token), std::string::npos);
  EXPECT_EQ(text_of(authority.folder() / "index.json").find(token), std::string::npos) << "a used token is forgotten";
  EXPECT_TRUE(same_key(authority.renew("alice").certificate, key_of(device.key).get()));
}

TEST_F(Pki, UsesATokenOnce) {
  const std::string token = authority.make_token("alice", 3600);
  const auto first = request("alice", token);
  authority.issue_client_from_request("alice", first);
  EXPECT_THAT(refusal("alice", first), HasSubstr("already has a valid certificate"));
  authority.revoke("alice");
  EXPECT_THAT(refusal("alice", first), AllOf(HasSubstr("was used already"), HasSubstr("fl pki token alice")));
  EXPECT_THAT(refusal("alice", request("alice", token, "thief")), HasSubstr("was used already"));
  // The device may not bring back a key that was revoked, but a new one.
  const std::string next = authority.make_token("alice", 3600);
  EXPECT_THAT(refusal("alice", request("alice", next)), AllOf(HasSubstr("key that was revoked"), HasSubstr("remove key.pem")));
  EXPECT_EQ(as_client(authority, authority.issue_client_from_request("alice", request("alice", next, "device2")).certificate), "ok");
}

TEST_F(Pki, RefusesExpiredWithdrawnAndForeignTokens) {
  EXPECT_THAT(refusal("alice", request("alice", std::string(32, '0'))), HasSubstr("there is no token for 'alice'"));
  EXPECT_THAT(refusal("alice", request("alice", authority.make_token("alice", -1))), HasSubstr("has expired"));
  const auto replaced = request("alice", authority.make_token("alice", 3600));
  const std::string token = authority.make_token("alice", 3600);
  EXPECT_THAT(refusal("alice", replaced), HasSubstr("last token of 'alice'"));
  EXPECT_THAT(refusal("alice", request("alice", authority.make_token("bob", 3600))), HasSubstr("last token of 'alice'"));
  // The control: the same device and key with the right token.
  EXPECT_EQ(as_client(authority, authority.issue_client_from_request("alice", request("alice", token)).certificate), "ok");
  // A key made on the authority withdraws the token that was pending.
  const std::string pending = authority.make_token("carol", 3600);
  authority.issue_client("carol", kExpired);
  EXPECT_THAT(refusal("carol", request("carol", pending, "thief")), HasSubstr("there is no token for 'carol'"));
}

/// A request as an attacker would write it: any key, any name, any proof.
std::string forged_request(const std::string& name, EVP_PKEY* key, const std::string& proof, EVP_PKEY* signer) {
  const Owned<X509_REQ> made(X509_REQ_new());
  X509_NAME* subject = X509_REQ_get_subject_name(made.get());
  X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(name.data()),
                             static_cast<int>(name.size()), -1, 0);
  X509_REQ_set_pubkey(made.get(), key);
  if (!proof.empty()) {
    X509_REQ_add1_attr_by_NID(made.get(), NID_pkcs9_challengePassword, MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(proof.data()),
                              static_cast<int>(proof.size()));
  }
  EXPECT_GT(X509_REQ_sign(made.get(), signer, pki::digest_for(signer)), 0);
  const Owned<BIO> bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509_REQ(bio.get(), made.get());
  const char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

std::string proof_in(const std::filesystem::path& file) {
  const auto request = load<X509_REQ>(file, PEM_read_bio_X509_REQ);
  X509_ATTRIBUTE* attribute = X509_REQ_get_attr(request.get(), X509_REQ_get_attr_by_NID(request.get(), NID_pkcs9_challengePassword, -1));
  const ASN1_STRING* text = X509_ATTRIBUTE_get0_type(attribute, 0)->value.asn1_string;
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)), static_cast<std::size_t>(ASN1_STRING_length(text))};
}

TEST_F(Pki, RefusesASwappedKey) {
  const std::string token = authority.make_token("alice", 3600);
  const RequestFiles device = make_request("alice", token, folder / "device");
  const std::string proof = proof_in(device.request);
  const auto honest = key_of(device.key);
  const Owned<EVP_PKEY> thief(EVP_EC_gen("P-256"));
  const auto file = folder / "forged.pem";
  put(file, forged_request("alice", thief.get(), proof, thief.get()));
  EXPECT_THAT(refusal("alice", file), HasSubstr("its key was exchanged on the way"));
  put(file, forged_request("alice", honest.get(), proof, thief.get()));
  EXPECT_THAT(refusal("alice", file), HasSubstr("its signature is wrong"));
  put(file, forged_request("alice", thief.get(), "", thief.get()));
  EXPECT_THAT(refusal("alice", file), HasSubstr("carries no proof of a token"));
  put(file, forged_request("mallory", honest.get(), proof, honest.get()));
  EXPECT_THAT(refusal("alice", file), HasSubstr("asks for the name 'mallory', expected 'alice'"));
  // The control: the same parts, put together rightly.
  put(file, forged_request("alice", honest.get(), proof, honest.get()));
  EXPECT_EQ(as_client(authority, authority.issue_client_from_request("alice", file).certificate), "ok");
}

TEST_F(Pki, RefusesAKeyOfAnotherName) {
  const std::string token = authority.make_token("alice", 3600);
  authority.issue_client_from_request("alice", request("alice", token));
  EXPECT_THAT(refusal("bob", request("bob", authority.make_token("bob", 3600))), HasSubstr("belongs to 'alice'"));
}

/// A client as earlier programs enrolled it: a P-256 key that the device made.
Owned<EVP_PKEY> enrol_p256(Authority& authority, const std::string& name, const std::filesystem::path& folder) {
  Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  const std::string proof = pki::proof_of(authority.make_token(name, 3600), pki::public_key_hex(key.get()));
  const auto file = folder / (name + ".request.pem");
  put(file, forged_request(name, key.get(), proof, key.get()));
  EXPECT_EQ(authority.issue_client_from_request(name, file).info.key_type, KeyType::p256);
  return key;
}

TEST_F(Pki, RenewsAP256KeyThatWasMadeHereWithAnEd25519Key) {
  const auto old_key = enrol_p256(authority, "alice", folder.path());
  const auto place = authority.folder() / "issued" / "alice";
  pki::write_private_key(place / "key.pem", old_key.get());
  std::filesystem::copy_file(place / "cert.pem", folder / "old.pem");
  const IssuedFiles renewed = authority.renew("alice");
  EXPECT_TRUE(renewed.new_key);
  EXPECT_EQ(renewed.info.key_type, KeyType::ed25519);
  EXPECT_TRUE(same_key(renewed.certificate, key_of(renewed.key).get()));
  EXPECT_EQ(mode_of(renewed.key), 0600U);
  EXPECT_EQ(as_client(authority, renewed.certificate), "ok");
  EXPECT_EQ(as_client(authority, folder / "old.pem"), "ok") << "until the device has the new pair";
  EXPECT_THAT(statuses(), ElementsAre(Status::replaced, Status::valid));
  // From then on the key stays.
  const IssuedFiles again = authority.renew("alice");
  EXPECT_FALSE(again.new_key);
  EXPECT_TRUE(same_key(again.certificate, key_of(renewed.key).get()));
}

TEST_F(Pki, RenewsAP256KeyThatOnlyTheDeviceHas) {
  const auto old_key = enrol_p256(authority, "alice", folder.path());
  const IssuedFiles renewed = authority.renew("alice");
  EXPECT_FALSE(renewed.new_key);
  EXPECT_EQ(renewed.key, "");
  EXPECT_EQ(renewed.info.key_type, KeyType::p256);
  EXPECT_TRUE(same_key(renewed.certificate, old_key.get()));
}

TEST_F(Pki, LetsADeviceMoveToEd25519WhileItsP256CertificateIsValid) {
  const auto old_key = enrol_p256(authority, "alice", folder.path());
  std::filesystem::copy_file(authority.folder() / "issued" / "alice" / "cert.pem", folder / "old.pem");
  const std::string token = authority.make_token("alice", 3600);
  // Only to Ed25519: another P-256 key would let two devices be alice.
  const Owned<EVP_PKEY> other(EVP_EC_gen("P-256"));
  const auto file = folder / "other.pem";
  put(file, forged_request("alice", other.get(), pki::proof_of(token, pki::public_key_hex(other.get())), other.get()));
  EXPECT_THAT(refusal("alice", file), HasSubstr("already has a valid certificate"));
  const IssuedFiles moved = authority.issue_client_from_request("alice", request("alice", token));
  EXPECT_EQ(moved.info.key_type, KeyType::ed25519);
  EXPECT_EQ(as_client(authority, moved.certificate), "ok");
  EXPECT_EQ(as_client(authority, folder / "old.pem"), "ok");
  // It has moved; nobody moves twice.
  EXPECT_THAT(error_of([&] { authority.make_token("alice", 3600); }), HasSubstr("already has a valid certificate"));
  EXPECT_THAT(authority.revoke("alice").serials, testing::SizeIs(2));
}

TEST_F(Pki, MakesNoRequestForAP256Key) {
  make_folder(folder / "device");
  pki::write_private_key(folder / "device" / "key.pem", Owned<EVP_PKEY>(EVP_EC_gen("P-256")).get());
  EXPECT_THAT(error_of([&] { request("alice", std::string(32, '0')); }), AllOf(HasSubstr("key.pem: is no Ed25519 key"), HasSubstr("another --output")));
  EXPECT_FALSE(std::filesystem::exists(folder / "device" / "request.pem"));
}

TEST_F(Pki, RefusesOtherKindsOfKeysAndHostileNames) {
  authority.make_token("alice", 3600);
  const auto file = folder / "forged.pem";
  const Owned<EVP_PKEY> p384(EVP_EC_gen("P-384"));
  const Owned<EVP_PKEY> rsa(EVP_RSA_gen(2048));
  for (EVP_PKEY* key : {p384.get(), rsa.get()}) {
    put(file, forged_request("alice", key, "x", key));
    EXPECT_THAT(refusal("alice", file), HasSubstr("neither Ed25519 nor EC P-256"));
  }
  const Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  for (const std::string& name : {std::string("../alice"), std::string("al\0ice", 6), std::string("al\nice"), std::string()}) {
    put(file, forged_request(name, key.get(), "x", key.get()));
    EXPECT_THAT(refusal("alice", file).substr(0, 300), HasSubstr("expected 1 to 64 letters")) << name;
  }
}

TEST_F(Pki, RefusesGarbageInOneLine) {
  const std::string good = text_of(request("alice", authority.make_token("alice", 3600)));
  const auto file = folder / "garbage.pem";
  const auto begins = good.find('\n') + 1;
  const std::string encrypted = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
  for (const std::string& text : {std::string(), std::string("\0\xff\n", 3), good.substr(0, good.size() / 2), encrypted,
                                  good.substr(0, begins) + good.substr(begins + 64), text_of(authority.certificate()),
                                  std::string("-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n")}) {
    put(file, text);
    EXPECT_THAT(refusal("alice", file), AllOf(HasSubstr("garbage.pem: holds nothing of the kind"), HasSubstr("fl pki request")));
  }
  put(file, good + std::string(1U << 20U, 'A'));
  EXPECT_THAT(refusal("alice", file), HasSubstr("the limit is 65536"));
  EXPECT_THAT(refusal("alice", folder / "nothing.pem"), HasSubstr("no such file"));
  EXPECT_THAT(refusal("alice", folder.path()), HasSubstr("is a folder"));
  EXPECT_EQ(ERR_peek_error(), 0U) << "TLS on this thread would take it for its own";
  EXPECT_THAT(error_of([&] { read_certificate(folder / "garbage.pem"); }), HasSubstr("the limit is 65536"));
  put(file, good);
  EXPECT_THAT(error_of([&] { read_certificate(file); }), HasSubstr("expected a certificate"));
  EXPECT_THAT(error_of([&] { crl_number(file); }), HasSubstr("expected a revocation list"));
  EXPECT_EQ(ERR_peek_error(), 0U);
}

TEST_F(Pki, SurvivesEveryChangedByteOfARequest) {
  const std::string good = text_of(request("alice", authority.make_token("alice", 3600)));
  const auto file = folder / "mutant.pem";
  const std::string before = text_of(authority.folder() / "index.json");
  const auto body = good.find('\n') + 1;
  // Base64 letters only, so that the DER parser and not the PEM reader sees the change.
  for (std::size_t i = body; i < good.find("-----END"); ++i) {
    if (good[i] == '\n' || good[i] == '=') continue;
    std::string mutant = good;
    mutant[i] = mutant[i] == 'A' ? 'g' : 'A';  // the highest of six bits: the lowest may be padding
    put(file, mutant);
    EXPECT_NE(error_of([&] { authority.issue_client_from_request("alice", file); }), "") << i;
  }
  EXPECT_EQ(text_of(authority.folder() / "index.json"), before);
}

TEST_F(Pki, KeepsPrivateFilesPrivate) {
  const mode_t mask = ::umask(0);
  const Authority open = Authority::create(folder / "open");
  Authority changed = open;
  const IssuedFiles alice = changed.issue_client("alice");
  // What a crash left behind, readable by all, is not written into.
  put(folder / "open" / "index.json.partial", "old");
  ::chmod((folder / "open" / "index.json.partial").c_str(), 0666);
  const RequestFiles device = make_request("bob", changed.make_token("bob", 60), folder / "device");
  ::umask(mask);
  for (const auto& path : {folder / "open" / "ca.key", folder / "open" / "index.json", alice.key, device.key}) {
    EXPECT_EQ(mode_of(path), 0600U) << path;
  }
  EXPECT_EQ(mode_of(alice.certificate), 0644U);
  EXPECT_FALSE(std::filesystem::exists(folder / "open" / "index.json.partial"));
}

TEST_F(Pki, RefusesAKeyThatOthersMayRead) {
  ::chmod((authority.folder() / "ca.key").c_str(), 0640);
  EXPECT_THAT(error_of([&] { authority.issue_client("alice"); }), AllOf(HasSubstr("ca.key: others may read"), HasSubstr("chmod 600")));
  ::chmod((authority.folder() / "ca.key").c_str(), 0600);
  EXPECT_EQ(as_client(authority, authority.issue_client("alice").certificate), "ok");
}

TEST_F(Pki, ChecksNames) {
  for (const char* name : {"a", "client-0007", "A.b_c", "7"}) EXPECT_EQ(error_of([&] { check_identity_name(name); }), "") << name;
  check_identity_name(std::string(64, 'x'));
  const std::vector<std::string> bad = {"", ".", "..", "../x", "a/b", ".hidden", "-x", "a b", "ä", std::string("a\0b", 3), std::string(65, 'x')};
  for (const std::string& name : bad) {
    EXPECT_THAT(error_of([&] { authority.issue_client(name); }), HasSubstr("expected 1 to 64 letters")) << name;
    EXPECT_THAT(error_of([&] { authority.make_token(name, 60); }), HasSubstr("expected 1 to 64 letters")) << name;
    EXPECT_THAT(error_of([&] { make_request(name, std::string(32, '0'), folder / "device"); }), HasSubstr("expected 1 to 64 letters")) << name;
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "device"));
  EXPECT_THAT(authority.list().certificates, IsEmpty());
}

TEST_F(Pki, ChecksHosts) {
  for (const char* host : {"", "a b", "10.0.0.300", "host:8443", "*.example.org", "-a", "a..b", "https://x", "x,DNS:y", "::1::"}) {
    const std::vector<std::string> hosts = {host};
    EXPECT_THAT(error_of([&] { authority.issue_server("s", hosts); }), HasSubstr("expected a DNS name or an IP address")) << host;
  }
  EXPECT_THAT(error_of([&] { authority.issue_server("s", {}); }), HasSubstr("expected 1 to 64"));
  EXPECT_THAT(authority.list().certificates, IsEmpty());
}

TEST_F(Pki, KeepsANameInItsRole) {
  server("one");
  EXPECT_THAT(error_of([&] { authority.issue_client("one"); }), HasSubstr("'one' is a server"));
  EXPECT_THAT(error_of([&] { authority.make_token("one", 60); }), HasSubstr("'one' is a server"));
}

TEST_F(Pki, RefusesToOutliveTheAuthority) {
  EXPECT_THAT(error_of([&] { authority.issue_client("alice", {0, 3651 * kSecondsPerDay}); }),
              AllOf(HasSubstr("outlive the authority"), ContainsRegex("36(49|50) days left")));
  EXPECT_EQ(as_client(authority, authority.issue_client("alice", {0, 3649 * kSecondsPerDay}).certificate), "ok");
  Authority expired = Authority::create(folder / "expired", kExpired);
  EXPECT_THAT(error_of([&] { expired.issue_client("alice"); }), HasSubstr("outlive the authority"));
}

TEST_F(Pki, NeverOverwritesAnAuthority) {
  const std::string key = text_of(authority.folder() / "ca.key");
  EXPECT_THAT(error_of([&] { Authority::create(authority.folder()); }), HasSubstr("never overwritten"));
  std::filesystem::remove(authority.folder() / "index.json");
  EXPECT_THAT(error_of([&] { Authority::create(authority.folder()); }), HasSubstr("ca.key exists"));
  EXPECT_EQ(text_of(authority.folder() / "ca.key"), key);
  EXPECT_THAT(error_of([&] { Authority{authority.folder()}; }), HasSubstr("index.json: no such file"));
  EXPECT_THAT(error_of([&] { Authority{folder / "none"}; }), AllOf(HasSubstr("ca.pem: no such file"), HasSubstr("fl pki init")));
}

TEST_F(Pki, RefusesADamagedIndex) {
  for (const char* text : {"", "{", "[]", "{\"version\": 2}", "{\"version\": 1, \"crl_number\": 1, \"certificates\": [{}], \"tokens\": []}"}) {
    put(authority.folder() / "index.json", text);
    EXPECT_THAT(error_of([&] { authority.issue_client("alice"); }), AllOf(HasSubstr("index.json"), HasSubstr("restore it from a backup"))) << text;
    EXPECT_THAT(error_of([&] { authority.list(); }), HasSubstr("restore it from a backup")) << text;
  }
}

TEST_F(Pki, CompletesARevocationThatWasInterrupted) {
  const IssuedFiles alice = authority.issue_client("alice");
  std::filesystem::copy_file(authority.revocation_list(), folder / "crl.pem");
  authority.revoke("alice");
  // As if the power failed between index.json and crl.pem.
  std::filesystem::copy_file(folder / "crl.pem", authority.revocation_list(), std::filesystem::copy_options::overwrite_existing);
  ASSERT_EQ(as_client(authority, alice.certificate), "ok");
  EXPECT_NE(error_of([&] { authority.revoke("alice"); }), "");
  EXPECT_EQ(as_client(authority, alice.certificate), "certificate revoked");
  EXPECT_EQ(crl_number(authority.revocation_list()), 2);
  // A lost list is made again, too.
  std::filesystem::remove(authority.revocation_list());
  authority.issue_client("bob");
  EXPECT_EQ(as_client(authority, alice.certificate), "certificate revoked");
}

TEST_F(Pki, NoticesAnIndexOlderThanItsList) {
  authority.issue_client("alice");
  const std::string old = text_of(authority.folder() / "index.json");
  authority.revoke("alice");
  put(authority.folder() / "index.json", old);
  EXPECT_THAT(error_of([&] { authority.issue_client("bob"); }), HasSubstr("restore the newest backup of index.json"));
}

TEST_F(Pki, LosesNothingWhenTheDiskIsFull) {
  authority.issue_client("alice");
  const std::string before = text_of(authority.folder() / "index.json");
  // Files may not grow beyond the present index: a key fits, the next index does not.
  struct rlimit limit {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const struct rlimit small {before.size(), limit.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string error = error_of([&] { authority.issue_client("bob"); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(error, AllOf(HasSubstr("index.json"), HasSubstr("free some space")));
  EXPECT_EQ(text_of(authority.folder() / "index.json"), before);
  EXPECT_FALSE(std::filesystem::exists(authority.folder() / "issued" / "bob" / "cert.pem")) << "no certificate that the index does not know";
  EXPECT_EQ(as_client(authority, authority.issue_client("bob").certificate), "ok");
}

TEST_F(Pki, SharesAFolderBetweenThreads) {
  constexpr int kThreads = 4;
  constexpr int kEach = 5;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([this, thread] {
      EXPECT_EQ(error_of([&] {
                  Authority mine(authority.folder());
                  for (int i = 0; i < kEach; ++i) mine.issue_client("c" + std::to_string(thread) + "-" + std::to_string(i));
                  mine.revoke("c" + std::to_string(thread) + "-0");
                }),
                "");
    });
  }
  for (std::thread& thread : threads) thread.join();
  const AuthorityListing listing = authority.list();
  EXPECT_EQ(listing.certificates.size(), static_cast<std::size_t>(kThreads * kEach));
  EXPECT_EQ(listing.crl_number, 1 + kThreads);
  EXPECT_EQ(crl_number(authority.revocation_list()), 1 + kThreads);
}

TEST_F(Pki, IssuesManyAtOnceOrNone) {
  authority.issue_client("c3");
  const std::vector<std::string> names = {"c1", "c2", "c3"};
  EXPECT_THAT(error_of([&] { authority.issue_clients(names); }), HasSubstr("'c3' already has"));
  const std::vector<std::string> twice = {"c1", "c1"};
  EXPECT_THAT(error_of([&] { authority.issue_clients(twice); }), HasSubstr("named twice"));
  EXPECT_EQ(authority.list().certificates.size(), 1U);
  const auto files = authority.issue_clients(std::span(names).first(2));
  ASSERT_EQ(files.size(), 2U);
  EXPECT_EQ(files[1].info.name, "c2");
  EXPECT_EQ(as_client(authority, files[1].certificate), "ok");
  EXPECT_TRUE(same_key(files[1].certificate, key_of(files[1].key).get()));
}

TEST_F(Pki, ListsPendingTokens) {
  authority.make_token("alice", 3600);
  const AuthorityListing listing = authority.list();
  ASSERT_EQ(listing.tokens.size(), 1U);
  EXPECT_EQ(listing.tokens[0].name, "alice");
  EXPECT_THAT(listing.authority.name, MatchesRegex("Tributary authority [0-9A-F]{8}"));
}

TEST_F(Pki, UsesTheDevicesKeyAgain) {
  const std::string token = authority.make_token("alice", 3600);
  EXPECT_FALSE(make_request("alice", std::string(32, '0'), folder / "device").key_was_there);
  const std::string key = text_of(folder / "device" / "key.pem");
  EXPECT_TRUE(make_request("alice", token, folder / "device").key_was_there);
  EXPECT_EQ(text_of(folder / "device" / "key.pem"), key);
  put(folder / "device" / "key.pem", "garbage");
  EXPECT_THAT(error_of([&] { make_request("alice", token, folder / "device"); }), HasSubstr("key.pem: holds nothing of the kind"));
  for (const char* bad : {"", "short", "../../../../../../../etc/passwd.."}) {
    EXPECT_THAT(error_of([&] { make_request("alice", bad, folder / "device"); }), HasSubstr("--token: is no token")) << bad;
  }
}

}  // namespace
}  // namespace fl
