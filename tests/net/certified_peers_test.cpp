#include "fl_core/net/certified_peers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>
#include <functional>
#include <thread>

#include "fl_core/base/error.h"
#include "tests/net/tls_test_support.h"

namespace fl {
namespace {

using test::error_of;
using test::TestAuthority;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::StartsWith;
using Bytes = std::vector<std::byte>;

TestAuthority& ours() { return TestAuthority::shared(); }
TlsFiles judging_files() { return ours().files(ours().client); }
Bytes der_of(const IssuedFiles& issued) { return pki::to_der(pki::load_certificate(issued.certificate).get()); }

std::array<std::byte, kEd25519Bytes> public_key_of(const std::filesystem::path& key) {
  std::array<std::byte, kEd25519Bytes> bytes{};
  std::size_t size = bytes.size();
  EXPECT_EQ(EVP_PKEY_get_raw_public_key(pki::read_private_key(key).get(), reinterpret_cast<unsigned char*>(bytes.data()), &size), 1);
  return bytes;
}

/// Why it is refused; "" when it is accepted. Anything but a ProtocolError fails the test.
std::string refusal(const CertifiedPeers& peers, std::span<const std::byte> der) {
  try {
    peers.check(der);
    return "";
  } catch (const ProtocolError& error) {
    EXPECT_EQ(ERR_peek_error(), 0U) << "TLS on this thread would take it for its own";
    return error.what();
  }
}
std::string refusal(std::span<const std::byte> der) { return refusal(CertifiedPeers(judging_files()), der); }

/// The certificate of a client "eve", good but for what `change` did before it was signed.
Bytes certificate_with(const std::function<void(X509*)>& change, KeyType type = KeyType::ed25519, const pki::Signer& signer = ours().signer()) {
  const auto now = static_cast<std::int64_t>(std::time(nullptr));
  const pki::Key key = pki::make_key(type);
  const pki::Certificate certificate =
      pki::make_certificate({"eve", CertificateRole::client, pki::make_serial(), now - 60, now + 3600, {}}, key.get(), &signer);
  change(certificate.get());
  EXPECT_GT(X509_sign(certificate.get(), signer.key.get(), pki::digest_for(signer.key.get())), 0);
  return pki::to_der(certificate.get());
}
void nothing(X509*) {}

void remove_extension(X509* certificate, int nid) {
  X509_EXTENSION_free(X509_delete_ext(certificate, X509_get_ext_by_NID(certificate, nid, -1)));
}

void set_extension(X509* certificate, int nid, const char* value) {
  remove_extension(certificate, nid);
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  ASSERT_NE(extension, nullptr) << value;
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

TEST(CertifiedPeers, TellNameAndKeyOfAClient) {
  const CertifiedPeer peer = CertifiedPeers(judging_files()).check(der_of(ours().client));
  EXPECT_EQ(peer.name, "ada");
  EXPECT_EQ(peer.key, public_key_of(ours().client.key));
  EXPECT_EQ(CertifiedPeers(judging_files()).check(certificate_with(nothing)).name, "eve") << "the control of all that is changed below";
}

TEST(CertifiedPeers, RefuseAnotherAuthority) {
  TestAuthority foreign("foreign-peers");
  EXPECT_EQ(refusal(der_of(foreign.client)), "the certificate of 'ada' comes from another authority");
  // In our root's name, but signed by somebody else.
  const pki::Signer forger{pki::load_certificate(ours().authority.certificate()), pki::make_key(KeyType::p256)};
  EXPECT_EQ(refusal(certificate_with(nothing, KeyType::ed25519, forger)), "the certificate of 'eve' comes from another authority");
  // By one of our clients, as if that were an authority.
  const pki::Signer client{pki::load_certificate(ours().client.certificate), pki::read_private_key(ours().client.key)};
  EXPECT_EQ(refusal(certificate_with(nothing, KeyType::ed25519, client)), "the certificate of 'eve' comes from another authority");
}

TEST(CertifiedPeers, RefuseASelfSignedCertificate) {
  const auto now = static_cast<std::int64_t>(std::time(nullptr));
  const pki::Key key = pki::make_key(KeyType::ed25519);
  const pki::Certificate made =
      pki::make_certificate({"eve", CertificateRole::client, pki::make_serial(), now - 60, now + 3600, {}}, key.get(), nullptr);
  EXPECT_EQ(refusal(pki::to_der(made.get())), "the certificate of 'eve' is self-signed, not from our authority");
}

TEST(CertifiedPeers, RefuseWhatIsNotValidNow) {
  EXPECT_THAT(refusal(der_of(ours().authority.issue_client("past", {-7200, -60}))), MatchesRegex("the certificate of 'past' has expired on 20..-..-.."));
  EXPECT_THAT(refusal(der_of(ours().authority.issue_client("future", {3600, 7200}))), HasSubstr("the certificate of 'future' is valid only from 20"));
}

TEST(CertifiedPeers, RefuseTheRevokedWhenThereIsAList) {
  const Bytes der = der_of(ours().authority.issue_client("thrown-out"));
  const CertifiedPeers before(judging_files());
  ours().authority.revoke("thrown-out");
  EXPECT_EQ(refusal(der), "the certificate of 'thrown-out' is revoked");
  EXPECT_EQ(refusal(before, der), "") << "a new list is a new object";
  TlsFiles without = judging_files();
  without.revocations = "";
  EXPECT_EQ(refusal(CertifiedPeers(without), der), "");
}

TEST(CertifiedPeers, RefuseServersAndTheAuthority) {
  EXPECT_EQ(refusal(der_of(ours().server)), "the peer's certificate is not for a client (extended key usage)");
  EXPECT_NE(refusal(pki::to_der(ours().signer().certificate.get())), "");
}

TEST(CertifiedPeers, RefuseOtherKindsOfKeys) {
  EXPECT_EQ(refusal(der_of(ours().p256_client())),
            "the certificate of 'pia' has a P-256 key, expected an Ed25519 key, which secure aggregation needs; 'fl pki renew pia' on the authority "
            "makes it, or says how");
  const pki::Key rsa(EVP_RSA_gen(2048));
  const auto now = static_cast<std::int64_t>(std::time(nullptr));
  const pki::Certificate made =
      pki::make_certificate({"eve", CertificateRole::client, pki::make_serial(), now - 60, now + 3600, {}}, rsa.get(), &ours().signer());
  EXPECT_THAT(refusal(pki::to_der(made.get())), HasSubstr("'eve' has a key of another kind, expected an Ed25519 key"));
}

TEST(CertifiedPeers, DemandTheWholeProfile) {
  struct Fault {
    int nid;
    const char* value;
    const char* words;
  };
  const char* kConstraints = "expected BasicConstraints CA:FALSE, critical";
  const char* kUsage = "expected KeyUsage digitalSignature and nothing else, critical";
  const char* kPurpose = "expected ExtendedKeyUsage clientAuth and nothing else, critical";
  const char* kName = "expected exactly one alternative name (URI) tributary:client:NAME";
  for (const Fault& fault : {Fault{NID_basic_constraints, "CA:FALSE", kConstraints},
                             Fault{NID_key_usage, "digitalSignature", kUsage},
                             Fault{NID_key_usage, "critical,digitalSignature,keyAgreement", kUsage},
                             Fault{NID_ext_key_usage, "clientAuth", kPurpose},
                             Fault{NID_ext_key_usage, "critical,clientAuth,serverAuth", kPurpose},
                             Fault{NID_ext_key_usage, "critical,clientAuth,1.2.3.4", kPurpose},
                             Fault{NID_subject_alt_name, "URI:https://example.org", kName},
                             Fault{NID_subject_alt_name, "DNS:eve", kName},
                             Fault{NID_subject_alt_name, "URI:tributary:client:../eve", kName},
                             Fault{NID_subject_alt_name, "URI:tributary:client:ada,URI:tributary:client:eve", kName}}) {
    EXPECT_THAT(refusal(certificate_with([&](X509* certificate) { set_extension(certificate, fault.nid, fault.value); })), HasSubstr(fault.words))
        << fault.value;
  }
  for (const int nid : {NID_basic_constraints, NID_key_usage, NID_ext_key_usage, NID_subject_key_identifier, NID_authority_key_identifier, NID_subject_alt_name}) {
    EXPECT_NE(refusal(certificate_with([&](X509* certificate) { remove_extension(certificate, nid); })), "") << OBJ_nid2sn(nid);
  }
  EXPECT_NE(refusal(certificate_with([](X509* certificate) { set_extension(certificate, NID_basic_constraints, "critical,CA:TRUE"); })), "");
  EXPECT_THAT(refusal(certificate_with([](X509* certificate) { set_extension(certificate, NID_netscape_comment, "critical,unknown to us"); })),
              HasSubstr("unhandled critical extension"));
}

TEST(CertifiedPeers, RefuseWhatIsNotOneWholeCertificate) {
  const Bytes good = der_of(ours().client);
  const CertifiedPeers peers(judging_files());
  const auto malformed = [&](const Bytes& der) {
    EXPECT_EQ(refusal(peers, der), "the peer's certificate of " + std::to_string(der.size()) + " bytes is malformed, expected one certificate in DER");
  };
  for (std::size_t size = 0; size < good.size(); ++size) malformed(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)));
  Bytes more = good;
  more.push_back(std::byte{0});
  malformed(more);
  Bytes twice = good;
  twice.insert(twice.end(), good.begin(), good.end());
  malformed(twice);
  const std::string pem = pki::to_pem(pki::load_certificate(ours().client.certificate).get());
  const auto letters = std::as_bytes(std::span(pem));
  malformed(Bytes(letters.begin(), letters.end()));
  malformed(Bytes(1U << 20U, std::byte{0x30}));
  // The same certificate in BER: the outermost sequence without a length. OpenSSL reads it.
  ASSERT_EQ(good[1], std::byte{0x82}) << "two bytes of length";
  Bytes indefinite = good;
  indefinite[1] = std::byte{0x80};
  indefinite.erase(indefinite.begin() + 2, indefinite.begin() + 4);
  indefinite.resize(good.size());  // two zeros end it
  malformed(indefinite);
}

TEST(CertifiedPeers, RefuseEveryChangedBit) {
  const Bytes good = der_of(ours().client);
  const CertifiedPeers peers(judging_files());
  ASSERT_EQ(refusal(peers, good), "");
  for (std::size_t i = 0; i < good.size(); ++i) {
    Bytes changed = good;
    changed[i] ^= std::byte{1} << (i % 8);
    EXPECT_THAT(refusal(peers, changed), StartsWith("the ")) << i;
  }
}

TEST(CertifiedPeers, JudgeOnManyThreadsAtOnce) {
  const CertifiedPeers peers(judging_files());
  const Bytes good = der_of(ours().client);
  const Bytes bad = der_of(ours().server);
  std::array<int, 4> accepted{};
  std::vector<std::thread> threads;
  for (int& count : accepted) {
    threads.emplace_back([&] {
      for (int i = 0; i < 25; ++i) count += (refusal(peers, good).empty() ? 1 : 0) + (refusal(peers, bad).empty() ? 100 : 0);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(accepted, testing::Each(25));
}

TEST(CertifiedPeers, NameTheFileThatCannotBeUsed) {
  TlsFiles files = judging_files();
  files.authority = files.certificate;
  EXPECT_THAT(error_of([&] { CertifiedPeers{files}; }), HasSubstr("is not the certificate of an authority"));
  files = judging_files();
  files.revocations = "/nowhere/crl.pem";
  EXPECT_EQ(error_of([&] { CertifiedPeers{files}; }), "tls.revocations: /nowhere/crl.pem: no such file");
}

}  // namespace
}  // namespace fl
