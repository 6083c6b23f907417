#include "privacy/net/certificate_enrolment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fl_core/base/error.h"
#include "tests/net/tls_test_support.h"

namespace fl {
namespace {

using test::error_of;
using test::TestAuthority;
using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::StartsWith;

TestAuthority& ours() { return TestAuthority::shared(); }
TlsFiles files_of(const IssuedFiles& issued) { return ours().files(issued); }

TEST(CertificateEnrolment, SignsWithTheKeyOfTheCertificate) {
  const Enrolment ada = enrolment_from(files_of(ours().client));
  const Enrolment ben = enrolment_from(files_of(ours().authority.issue_client("ben")));
  const std::vector<std::byte> text(3, std::byte{7});
  // What another client learns from ada's credential is the key that ada signs with.
  const PublicKey key = ben.judge->enrolled_key(ada.credential);
  EXPECT_EQ(key, ada.key.public_key());
  EXPECT_TRUE(verify_signature(key, "test", text, ada.key.sign("test", text)));
  EXPECT_FALSE(verify_signature(key, "test", text, ben.key.sign("test", text)));
  EXPECT_LE(ada.credential.size(), kCredentialBytes);
}

TEST(CertificateEnrolment, NeedsAnEd25519Key) {
  const TlsFiles files = files_of(ours().p256_client());
  const auto refused = [&] { enrolment_from(files); };
  EXPECT_THROW(refused(), ConfigError);
  EXPECT_THAT(error_of(refused), AllOf(StartsWith("tls.key: " + files.key + ": is a P-256 key, expected an Ed25519 key, which secure aggregation needs"),
                                       HasSubstr("'fl pki renew pia'")));
}

TEST(CertificateEnrolment, RefusesWhatItsPeersWouldRefuse) {
  const TlsFiles expired = files_of(ours().authority.issue_client("expired-enrolment", {-7200, -60}));
  EXPECT_THROW(enrolment_from(expired), ConfigError);
  EXPECT_THAT(error_of([&] { enrolment_from(expired); }),
              MatchesRegex("tls\\.certificate: .*cert\\.pem: the certificate of 'expired-enrolment' has expired on 20..-..-.."));
  TlsFiles foreign = files_of(ours().client);
  const TestAuthority other("foreign-enrolment");
  foreign.authority = other.authority.certificate().string();
  foreign.revocations = "";
  EXPECT_THAT(error_of([&] { enrolment_from(foreign); }), HasSubstr("the certificate of 'ada' comes from another authority"));
}

TEST(CertificateEnrolment, NamesTheFileThatCannotBeUsed) {
  TlsFiles files = files_of(ours().client);
  files.key = ours().server.key.string();
  EXPECT_THAT(error_of([&] { enrolment_from(files); }), HasSubstr("is the key of another certificate than"));
  files.key = "";
  EXPECT_THAT(error_of([&] { enrolment_from(files); }), StartsWith("tls.key: is missing"));
}

TEST(CertificateJudge, RefusesMalformedAndHugeCredentials) {
  const CertificateJudge judge(files_of(ours().client));
  std::vector<std::byte> credential = enrolment_from(files_of(ours().client)).credential;
  EXPECT_EQ(judge.enrolled_key(credential), enrolment_from(files_of(ours().client)).key.public_key());
  credential.pop_back();
  EXPECT_THROW(judge.enrolled_key(credential), ProtocolError);
  EXPECT_THROW(judge.enrolled_key({}), ProtocolError);
  credential.resize(kCredentialBytes + 1);
  EXPECT_THROW(judge.enrolled_key(credential), ProtocolError);
  EXPECT_EQ(error_of([&] { judge.enrolled_key(credential); }), "the peer's certificate has 4097 bytes, expected at most 4096");
}

}  // namespace
}  // namespace fl
