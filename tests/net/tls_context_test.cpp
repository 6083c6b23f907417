#include "fl_core/net/tls_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "fl_core/base/file.h"
#include "fl_core/net/pki_x509.h"
#include "tests/net/tls_test_support.h"

namespace fl {
namespace {

namespace asio = boost::asio;
namespace ssl = asio::ssl;
using asio::awaitable;
using boost::system::error_code;
using test::Ending;
using test::error_of;
using test::frame_with;
using test::Link;
using test::Socket;
using test::spawn;
using test::TestAuthority;
using testing::AnyOf;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

constexpr ValidityOptions kExpired{-7200, -3600};  // ended an hour ago
constexpr ValidityOptions kNotYet{3600, 7200};     // begins in an hour

/// Certificates as nobody should have them, beside the good ones of TestAuthority::shared().
class Wrong {
 public:
  static Wrong& shared() {
    static Wrong made;
    return made;
  }

  TestAuthority foreign{"foreign"};
  IssuedFiles expired_client, early_client, revoked_client, expired_server, revoked_server, other_server, localhost_by_name_only;
  IssuedFiles nameless_client, twice_named_client, both_roles_client, self_signed_client;

 private:
  Wrong() {
    TestAuthority& ours = TestAuthority::shared();
    const std::vector<std::string> local = {"localhost", "127.0.0.1"};
    const std::vector<std::string> elsewhere = {"fl.example.org", "10.0.0.7"};
    expired_client = ours.authority.issue_client("expired", kExpired);
    early_client = ours.authority.issue_client("early", kNotYet);
    revoked_client = ours.authority.issue_client("revoked");
    expired_server = ours.authority.issue_server("expired-hub", local, kExpired);
    revoked_server = ours.authority.issue_server("revoked-hub", local);
    other_server = ours.authority.issue_server("other-hub", elsewhere);
    const std::vector<std::string> address = {"10.0.0.7"};
    localhost_by_name_only = ours.authority.issue_server("localhost", address);
    ours.authority.revoke("revoked");
    ours.authority.revoke("revoked-hub");
    nameless_client = changed("nameless", [](X509* certificate, pki::Signer&) { set_names(certificate, "URI:https://example.org"); });
    twice_named_client = changed("twice", [](X509* certificate, pki::Signer&) { set_names(certificate, "URI:tributary:client:ada,URI:tributary:client:eve"); });
    both_roles_client = changed("both", [](X509* certificate, pki::Signer&) { set(certificate, NID_ext_key_usage, "critical,serverAuth,clientAuth"); });
    self_signed_client = changed("self", [](X509* certificate, pki::Signer& signer) {
      X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
      X509_EXTENSION_free(X509_delete_ext(certificate, X509_get_ext_by_NID(certificate, NID_authority_key_identifier, -1)));
      signer.key.reset();
    });
  }

  static void set(X509* certificate, int nid, const char* value) {
    X509_EXTENSION_free(X509_delete_ext(certificate, X509_get_ext_by_NID(certificate, nid, -1)));
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
    ASSERT_NE(extension, nullptr);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  static void set_names(X509* certificate, const char* value) { set(certificate, NID_subject_alt_name, value); }

  /// A client's certificate, changed and signed again by our authority (by itself when `change` takes the signer's key away).
  template <class Change>
  IssuedFiles changed(const std::string& name, Change change) {
    TestAuthority& ours = TestAuthority::shared();
    IssuedFiles files = ours.authority.issue_client(name);
    const pki::Certificate certificate = pki::load_certificate(files.certificate);
    const pki::Key key = pki::read_private_key(files.key);
    pki::Signer signer{pki::load_certificate(ours.authority.certificate()), pki::read_private_key(ours.authority.folder() / "ca.key")};
    change(certificate.get(), signer);
    EVP_PKEY* signing = signer.key ? signer.key.get() : key.get();
    EXPECT_GT(X509_sign(certificate.get(), signing, pki::digest_for(signing)), 0);
    files.certificate = ours.folder / (name + ".pem");
    write_file_atomically(files.certificate, pki::to_pem(certificate.get()));
    return files;
  }
};

// ---- configuration -------------------------------------------------------------------------------------------------------

TlsFiles server_files() { return TestAuthority::shared().files(TestAuthority::shared().server); }
TlsFiles client_files() { return TestAuthority::shared().files(TestAuthority::shared().client); }

std::string error_with(TlsRole role, const TlsFiles& files) {
  return error_of([&] { TlsContext(role, files); });
}

TEST(TlsFiles, HasFourKeysAndResolvesRelativePaths) {
  TlsFiles files;
  read_fields(nlohmann::json{{"certificate", "cert.pem"}, {"key", "/etc/fl/key.pem"}, {"authority", "../ca.pem"}}, "tls", [&](Fields& f) { files.fields(f); });
  files.resolve("/srv/run");
  EXPECT_EQ(files.certificate, "/srv/run/cert.pem");
  EXPECT_EQ(files.key, "/etc/fl/key.pem");
  EXPECT_EQ(files.authority, "/srv/ca.pem");
  EXPECT_EQ(files.revocations, "");
}

TEST(TlsContext, TellsItsExpiryAndWhoIsRevoked) {
  Wrong& wrong = Wrong::shared();
  const TlsContext server(TlsRole::server, server_files());
  EXPECT_EQ(server.not_after(), TestAuthority::shared().server.info.not_after);
  EXPECT_EQ(server.revocation_number(), crl_number(server_files().revocations));
  EXPECT_TRUE(server.revoked(wrong.revoked_client.info.serial));
  EXPECT_FALSE(server.revoked(TestAuthority::shared().client.info.serial));
}

TEST(TlsContext, LetsClientsDoWithoutAList) {
  TlsFiles files = client_files();
  files.revocations = "";
  const TlsContext client(TlsRole::client, files);
  EXPECT_EQ(client.revocation_number(), -1);
  EXPECT_FALSE(client.revoked(TestAuthority::shared().client.info.serial));
}

TEST(TlsContext, DemandsEachFile) {
  for (std::string TlsFiles::*file : {&TlsFiles::certificate, &TlsFiles::key, &TlsFiles::authority, &TlsFiles::revocations}) {
    TlsFiles files = server_files();
    files.*file = "";
    EXPECT_THAT(error_with(TlsRole::server, files), MatchesRegex("tls\\.[a-z]+: is missing; expected the path of a PEM file.*"));
    files.*file = "/nowhere/x.pem";
    EXPECT_THAT(error_with(TlsRole::server, files), MatchesRegex("tls\\.[a-z]+: /nowhere/x\\.pem: no such file"));
    files.*file = (TestAuthority::shared().folder / "noise.pem").string();
    write_file_atomically(files.*file, std::string("no PEM at all"));
    ::chmod((files.*file).c_str(), 0600);
    EXPECT_THAT(error_with(TlsRole::server, files), HasSubstr("noise.pem: holds "));
  }
}

TEST(TlsContext, DemandsAPrivateKeyThatNobodyElseReads) {
  TlsFiles files = client_files();
  files.key = (TestAuthority::shared().folder / "open.pem").string();
  write_file_atomically(files.key, read_text_file(client_files().key, 10'000));
  ::chmod(files.key.c_str(), 0640);
  EXPECT_THAT(error_with(TlsRole::client, files), HasSubstr("open.pem: others may read this private key; 'chmod 600 "));
  ::chmod(files.key.c_str(), 0600);
  EXPECT_EQ(error_with(TlsRole::client, files), "");
}

TEST(TlsContext, RefusesTheKeyOfAnotherCertificate) {
  TlsFiles files = client_files();
  files.key = server_files().key;
  EXPECT_THAT(error_with(TlsRole::client, files), HasSubstr("key.pem: is the key of another certificate than "));
}

TEST(TlsContext, RefusesACertificateThatPeersWouldRefuse) {
  TestAuthority& ours = TestAuthority::shared();
  Wrong& wrong = Wrong::shared();
  EXPECT_THAT(error_with(TlsRole::client, ours.files(wrong.expired_client)),
              MatchesRegex("tls\\.certificate: .*cert\\.pem has expired on 20..-..-..; 'fl pki renew expired' makes a new one"));
  EXPECT_THAT(error_with(TlsRole::client, ours.files(wrong.early_client)), HasSubstr("is valid only from 20"));
  EXPECT_THAT(error_with(TlsRole::client, ours.files(wrong.revoked_client)), HasSubstr("cert.pem is revoked"));
  EXPECT_THAT(error_with(TlsRole::client, ours.files(ours.server)), HasSubstr("is the certificate of a server, expected one of a client"));
  EXPECT_THAT(error_with(TlsRole::server, ours.files(ours.client)), HasSubstr("is the certificate of a client, expected one of a server"));
  EXPECT_THAT(error_with(TlsRole::client, ours.files(wrong.foreign.client)), HasSubstr("comes from another authority"));
  EXPECT_THAT(error_with(TlsRole::client, ours.files(wrong.nameless_client)), HasSubstr("names no client"));
  EXPECT_THAT(error_with(TlsRole::client, ours.files(wrong.self_signed_client)), HasSubstr("is self-signed"));
}

TEST(TlsContext, DemandsExactlyOneRoot) {
  TlsFiles files = client_files();
  const std::string root = read_text_file(files.authority, 10'000);
  files.authority = (TestAuthority::shared().folder / "roots.pem").string();
  write_file_atomically(files.authority, root + read_text_file(Wrong::shared().foreign.authority.certificate(), 10'000));
  EXPECT_THAT(error_with(TlsRole::client, files), HasSubstr("holds 2 certificates, expected exactly one"));
  files.authority = client_files().certificate;
  EXPECT_THAT(error_with(TlsRole::client, files), HasSubstr("is not the certificate of an authority"));
}

TEST(TlsContext, RefusesTheListOfAnotherAuthority) {
  TlsFiles files = server_files();
  files.revocations = Wrong::shared().foreign.authority.revocation_list().string();
  EXPECT_THAT(error_with(TlsRole::server, files), HasSubstr("crl.pem: is not signed by the authority in tls.authority"));
}

// ---- peers of any kind against ours (P15) --------------------------------------------------------------------------------

/// A TLS end that believes anything and is as wrong as a test wants it.
struct Stranger {
  std::string certificate;  ///< "": none
  std::string key;
  std::string alpn = kAlpn;  ///< "": none
  bool only_tls12 = false;

  static Stranger with(const IssuedFiles& issued) {
    Stranger stranger;
    stranger.certificate = issued.certificate.string();
    stranger.key = issued.key.string();
    return stranger;
  }
  ssl::context context(bool server) const;
};

int choose_alpn(SSL*, const unsigned char** out, unsigned char* size, const unsigned char* offered, unsigned int, void* wanted) {
  const auto* name = static_cast<const std::string*>(wanted);
  if (name->empty()) return SSL_TLSEXT_ERR_NOACK;
  *out = reinterpret_cast<const unsigned char*>(name->data());
  *size = static_cast<unsigned char>(name->size());
  (void)offered;
  return SSL_TLSEXT_ERR_OK;
}

ssl::context Stranger::context(bool server) const {
  ssl::context context(server ? ssl::context::tls_server : ssl::context::tls_client);
  SSL_CTX* native = context.native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_max_proto_version(native, only_tls12 ? TLS1_2_VERSION : TLS1_3_VERSION);
  if (!certificate.empty()) {
    context.use_certificate_file(certificate, ssl::context::pem);
    context.use_private_key_file(key, ssl::context::pem);
  }
  if (server) {
    SSL_CTX_set_alpn_select_cb(native, choose_alpn, const_cast<std::string*>(&alpn));
    context.set_verify_mode(ssl::verify_peer);
    context.set_verify_callback([](bool, ssl::verify_context&) { return true; });
  } else if (!alpn.empty()) {
    const std::string wire = static_cast<char>(alpn.size()) + alpn;
    SSL_CTX_set_alpn_protos(native, reinterpret_cast<const unsigned char*>(wire.data()), static_cast<unsigned int>(wire.size()));
  }
  return context;
}

/// What a stranger saw: the first error, and how many bytes of application data came.
struct Seen {
  std::string error;
  std::size_t bytes = 0;
};

std::string bytes_of(const Frame& frame) {
  const auto head = encode_frame_header(frame.head);
  std::string bytes(reinterpret_cast<const char*>(head.data()), head.size());
  for (const SharedBuffer* part : {&frame.header, &frame.body}) {
    bytes.append(reinterpret_cast<const char*>(part->span().data()), part->size());
  }
  return bytes;
}

using Stream = ssl::stream<Socket>;

/// Shakes hands, sends a frame and reads whatever comes back, up to that frame's size.
awaitable<void> act_stranger(Stream& stream, ssl::stream_base::handshake_type type, Seen& seen) {
  error_code error;
  co_await stream.async_handshake(type, asio::redirect_error(asio::use_awaitable, error));
  const std::string sent = bytes_of(frame_with(20, 300, 1));
  if (!error) co_await asio::async_write(stream, asio::buffer(sent), asio::redirect_error(asio::use_awaitable, error));
  std::string answer(sent.size(), '\0');
  if (!error) seen.bytes = co_await asio::async_read(stream, asio::buffer(answer), asio::redirect_error(asio::use_awaitable, error));
  if (error) seen.error = error.message();
  stream.next_layer().close(error);
}

/// Our server: answers the first frame of whoever passes the handshake.
awaitable<void> answer_one(FramedStream& stream) {
  co_await stream.handshake("");
  const Frame frame = co_await stream.read_frame();
  co_await stream.write_frame(frame);
  stream.close();
}

struct Meeting {
  std::string ours;  ///< how our end ended: "" when a frame was answered
  Seen stranger;
};

/// A stranger connects to our server.
Meeting connect_as(const Stranger& stranger) {
  asio::io_context io;
  auto [accepted, connected] = test::connected_sockets(io);
  FramedStream server(std::move(accepted), TestAuthority::shared().server_context());
  ssl::context context = stranger.context(false);
  Stream stream(std::move(connected), context);
  Meeting meeting;
  Ending ours, theirs;
  spawn(io, [&] { return answer_one(server); }, ours);
  spawn(io, [&] { return act_stranger(stream, ssl::stream_base::client, meeting.stranger); }, theirs);
  io.run();
  EXPECT_TRUE(ours.ended && theirs.ended);
  EXPECT_EQ(theirs.error, "");
  meeting.ours = ours.error;
  return meeting;
}

void expect_refused(const Meeting& meeting, const std::string& ours, const std::string& theirs) {
  EXPECT_THAT(meeting.ours, MatchesRegex(ours));
  EXPECT_THAT(meeting.stranger.error, HasSubstr(theirs));
  EXPECT_EQ(meeting.stranger.bytes, 0U);
}

TEST(MutualTls, AnswersAClientWithAGoodCertificate) {
  const Meeting meeting = connect_as(Stranger::with(TestAuthority::shared().client));
  EXPECT_EQ(meeting.ours, "");
  EXPECT_EQ(meeting.stranger.error, "");
  EXPECT_EQ(meeting.stranger.bytes, 32U + 20 + 300);
}

TEST(MutualTls, AnswersClientsWithEitherKindOfKey) {
  TestAuthority& ours = TestAuthority::shared();
  const IssuedFiles old = ours.p256_client();
  ASSERT_EQ(read_certificate(ours.client.certificate).key_type, KeyType::ed25519);
  ASSERT_EQ(read_certificate(old.certificate).key_type, KeyType::p256);
  EXPECT_EQ(connect_as(Stranger::with(old)).stranger.bytes, 32U + 20 + 300);
  for (const IssuedFiles& files : {ours.client, old}) {
    Link link(ours.server_context(), std::make_shared<const TlsContext>(TlsRole::client, ours.files(files)));
    link.shake_hands();
    EXPECT_EQ(link.server_ending.error + link.client_ending.error, "");
    EXPECT_EQ(link.server->peer().fingerprint, read_certificate(files.certificate).fingerprint);
  }
}

TEST(MutualTls, RefusesAClientWithoutCertificate) {
  expect_refused(connect_as(Stranger()), "the client showed no certificate", "certificate required");
}

TEST(MutualTls, RefusesAnExpiredClient) {
  expect_refused(connect_as(Stranger::with(Wrong::shared().expired_client)), "the client's certificate has expired on 20..-..-..", "certificate expired");
}

TEST(MutualTls, RefusesAClientWhoseCertificateIsNotYetValid) {
  expect_refused(connect_as(Stranger::with(Wrong::shared().early_client)), "the client's certificate is valid only from 20.*", "bad certificate");
}

TEST(MutualTls, RefusesAClientOfAnotherAuthority) {
  expect_refused(connect_as(Stranger::with(Wrong::shared().foreign.client)), "the client's certificate comes from another authority", "unknown ca");
}

TEST(MutualTls, RefusesASelfSignedClient) {
  expect_refused(connect_as(Stranger::with(Wrong::shared().self_signed_client)), "the client's certificate is self-signed, not from our authority", "unknown ca");
}

TEST(MutualTls, RefusesARevokedClient) {
  expect_refused(connect_as(Stranger::with(Wrong::shared().revoked_client)), "the client's certificate is revoked", "certificate revoked");
}

TEST(MutualTls, RefusesTheCertificateOfAServerAsAClient) {
  expect_refused(connect_as(Stranger::with(TestAuthority::shared().server)), "the client's certificate is not for a client \\(extended key usage\\)",
                 "unsupported certificate");
}

TEST(MutualTls, RefusesACertificateForBothRoles) {
  const Meeting meeting = connect_as(Stranger::with(Wrong::shared().both_roles_client));
  EXPECT_THAT(meeting.ours, HasSubstr("is for servers and clients at once"));
  EXPECT_EQ(meeting.stranger.bytes, 0U);
  EXPECT_NE(meeting.stranger.error, "");
}

TEST(MutualTls, RefusesAClientWithoutOrWithTwoNames) {
  for (const IssuedFiles& files : {Wrong::shared().nameless_client, Wrong::shared().twice_named_client}) {
    expect_refused(connect_as(Stranger::with(files)), "the client's certificate names no client \\(tributary:client:NAME\\)", "bad certificate");
  }
}

TEST(MutualTls, RefusesAClientWithTls12) {
  Stranger stranger = Stranger::with(TestAuthority::shared().client);
  stranger.only_tls12 = true;
  expect_refused(connect_as(stranger), "the client does not speak TLS 1.3", "alert protocol version");
}

TEST(MutualTls, RefusesAClientWithAnotherApplicationProtocol) {
  Stranger stranger = Stranger::with(TestAuthority::shared().client);
  stranger.alpn = "h2";
  expect_refused(connect_as(stranger), "the client does not speak tributary/1", "no application protocol");
}

TEST(MutualTls, RefusesAClientWithoutApplicationProtocol) {
  Stranger stranger = Stranger::with(TestAuthority::shared().client);
  stranger.alpn = "";
  expect_refused(connect_as(stranger), "the client names no application protocol, expected tributary/1", "no application protocol");
}

TEST(MutualTls, RefusesPlainBytes) {
  for (const std::string& bytes : {std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), bytes_of(frame_with(20, 300, 1)), std::string(600, '\0'), std::string(600, '\xff')}) {
    asio::io_context io;
    auto [accepted, connected] = test::connected_sockets(io);
    FramedStream server(std::move(accepted), TestAuthority::shared().server_context());
    asio::write(connected, asio::buffer(bytes));
    Ending ours;
    spawn(io, [&] { return answer_one(server); }, ours);
    io.run();
    EXPECT_THAT(ours.error, AnyOf(HasSubstr("is not TLS"), HasSubstr("TLS failed")));
    std::string answer(100, '\0');
    error_code error;
    answer.resize(asio::read(connected, asio::buffer(answer), error));
    EXPECT_NE(error, error_code());
    // At most one alert: type 21, version 3.x, two bytes.
    EXPECT_THAT(answer.size(), AnyOf(0U, 7U));
    EXPECT_EQ(answer.substr(0, 1), answer.empty() ? "" : "\x15");
  }
}

TEST(MutualTls, GivesNoTicketsAndTakesNoneBack) {
  Stranger stranger = Stranger::with(TestAuthority::shared().client);
  ssl::context context = stranger.context(false);
  static int tickets;
  tickets = 0;
  SSL_CTX_set_session_cache_mode(context.native_handle(), SSL_SESS_CACHE_CLIENT);
  SSL_CTX_sess_set_new_cb(context.native_handle(), [](SSL*, SSL_SESSION*) {
    ++tickets;
    return 0;
  });
  SSL_SESSION* session = nullptr;
  for (int i = 0; i < 2; ++i) {
    asio::io_context io;
    auto [accepted, connected] = test::connected_sockets(io);
    FramedStream server(std::move(accepted), TestAuthority::shared().server_context());
    Stream stream(std::move(connected), context);
    if (session != nullptr) SSL_set_session(stream.native_handle(), session);
    Seen seen;
    Ending ours, theirs;
    spawn(io, [&] { return answer_one(server); }, ours);
    spawn(io, [&] { return act_stranger(stream, ssl::stream_base::client, seen); }, theirs);
    io.run();
    EXPECT_EQ(ours.error + seen.error, "");
    EXPECT_EQ(SSL_session_reused(stream.native_handle()), 0);
    SSL_SESSION_free(session);
    session = SSL_get1_session(stream.native_handle());
  }
  EXPECT_EQ(SSL_SESSION_is_resumable(session), 0);
  SSL_SESSION_free(session);
  EXPECT_EQ(tickets, 0);
}

TEST(MutualTls, FollowsAPeerThatChangesItsKeys) {
  asio::io_context io;
  auto [accepted, connected] = test::connected_sockets(io);
  FramedStream server(std::move(accepted), TestAuthority::shared().server_context());
  const Stranger stranger = Stranger::with(TestAuthority::shared().client);
  ssl::context context = stranger.context(false);
  Stream stream(std::move(connected), context);
  Ending ours, theirs;
  const auto serve = [&]() -> awaitable<void> {
    co_await server.handshake("");
    for (int i = 0; i < 3; ++i) {
      const Frame frame = co_await server.read_frame();
      co_await server.write_frame(frame);
    }
  };
  const auto use = [&]() -> awaitable<void> {
    co_await stream.async_handshake(ssl::stream_base::client, asio::use_awaitable);
    for (std::uint64_t i = 0; i < 3; ++i) {
      const std::string sent = bytes_of(frame_with(20, 40'000, i));
      EXPECT_EQ(SSL_key_update(stream.native_handle(), SSL_KEY_UPDATE_REQUESTED), 1);
      co_await asio::async_write(stream, asio::buffer(sent), asio::use_awaitable);
      std::string answer(sent.size(), '\0');
      co_await asio::async_read(stream, asio::buffer(answer), asio::use_awaitable);
      EXPECT_EQ(answer, sent);
    }
  };
  spawn(io, serve, ours);
  spawn(io, use, theirs);
  io.run();
  EXPECT_EQ(ours.error + theirs.error, "");
}

// ---- our client against servers of any kind ------------------------------------------------------------------------------

/// Our client: sends a frame to whoever passes the handshake, and waits for the answer.
awaitable<void> ask_one(FramedStream& stream, std::string host) {
  co_await stream.handshake(host);
  const Frame frame = frame_with(20, 300, 1);
  co_await stream.write_frame(frame);
  const Frame answer = co_await stream.read_frame();
  EXPECT_TRUE(test::same(frame, answer));
  stream.close();
}

/// Our client connects to a stranger, which waits for a frame.
Meeting connect_to(const Stranger& stranger, const std::string& host = "localhost", const std::string& revocations = "") {
  asio::io_context io;
  auto [accepted, connected] = test::connected_sockets(io);
  TlsFiles files = client_files();
  files.revocations = revocations;
  FramedStream client(std::move(connected), std::make_shared<const TlsContext>(TlsRole::client, files));
  ssl::context context = stranger.context(true);
  Stream stream(std::move(accepted), context);
  Meeting meeting;
  Ending ours, theirs;
  spawn(io, [&] { return ask_one(client, host); }, ours);
  spawn(io, [&] { return act_stranger(stream, ssl::stream_base::server, meeting.stranger); }, theirs);
  io.run();
  EXPECT_TRUE(ours.ended && theirs.ended);
  meeting.ours = ours.error;
  return meeting;
}

TEST(MutualTls, TrustsAServerWithAGoodCertificate) {
  for (const std::string host : {"localhost", "127.0.0.1"}) {
    const Meeting meeting = connect_to(Stranger::with(TestAuthority::shared().server), host, client_files().revocations);
    EXPECT_EQ(meeting.ours, "");
    EXPECT_EQ(meeting.stranger.error, "");
    EXPECT_EQ(meeting.stranger.bytes, 32U + 20 + 300);
  }
}

TEST(MutualTls, DistrustsAServerForOtherHosts) {
  const Stranger other = Stranger::with(Wrong::shared().other_server);
  expect_refused(connect_to(other, "localhost"), "the server's certificate is not for 'localhost': it is for fl\\.example\\.org, 10\\.0\\.0\\.7", "bad certificate");
  expect_refused(connect_to(other, "127.0.0.1"), "the server's certificate is not for '127\\.0\\.0\\.1': it is for fl\\.example\\.org, 10\\.0\\.0\\.7",
                 "bad certificate");
  // A common name is no host.
  expect_refused(connect_to(Stranger::with(TestAuthority::shared().server), "hub"), "the server's certificate is not for 'hub': .*", "bad certificate");
  expect_refused(connect_to(Stranger::with(Wrong::shared().localhost_by_name_only), "localhost"), "the server's certificate is not for 'localhost': .*",
                 "bad certificate");
  EXPECT_EQ(connect_to(other, "fl.example.org").ours, "");
  EXPECT_EQ(connect_to(other, "10.0.0.7").ours, "");
}

TEST(MutualTls, DistrustsAnExpiredServer) {
  expect_refused(connect_to(Stranger::with(Wrong::shared().expired_server)), "the server's certificate has expired on .*", "certificate expired");
}

TEST(MutualTls, DistrustsAServerOfAnotherAuthority) {
  expect_refused(connect_to(Stranger::with(Wrong::shared().foreign.server)), "the server's certificate comes from another authority", "unknown ca");
}

TEST(MutualTls, DistrustsTheCertificateOfAClientAsAServer) {
  expect_refused(connect_to(Stranger::with(TestAuthority::shared().client)), "the server's certificate is not for a server \\(extended key usage\\)",
                 "unsupported certificate");
}

TEST(MutualTls, DistrustsARevokedServerWhenItHasAList) {
  const Stranger revoked = Stranger::with(Wrong::shared().revoked_server);
  expect_refused(connect_to(revoked, "localhost", client_files().revocations), "the server's certificate is revoked", "certificate revoked");
  EXPECT_EQ(connect_to(revoked, "localhost", "").ours, "");
}

TEST(MutualTls, DistrustsAServerWithTls12) {
  Stranger stranger = Stranger::with(TestAuthority::shared().server);
  stranger.only_tls12 = true;
  const Meeting meeting = connect_to(stranger);
  EXPECT_THAT(meeting.ours, HasSubstr("the server does not speak TLS 1.3"));
  EXPECT_NE(meeting.stranger.error, "");
  EXPECT_EQ(meeting.stranger.bytes, 0U);
}

TEST(MutualTls, DistrustsAServerThatChoosesNoApplicationProtocol) {
  Stranger stranger = Stranger::with(TestAuthority::shared().server);
  stranger.alpn = "";
  const Meeting meeting = connect_to(stranger);
  EXPECT_EQ(meeting.ours, "the server does not speak tributary/1");
  EXPECT_NE(meeting.stranger.error, "");
  EXPECT_EQ(meeting.stranger.bytes, 0U);
}

TEST(MutualTls, RefusesToExpectNoHost) {
  EXPECT_THAT(connect_to(Stranger::with(TestAuthority::shared().server), "").ours, HasSubstr("'' is neither a host name nor an IP address"));
}

// ---- what our client says when our server refuses it ---------------------------------------------------------------------

/// A client context made before the certificate went bad, or with a list that does not know it: here, no list at all.
std::string refusal_of(const IssuedFiles& issued) {
  TlsFiles files = TestAuthority::shared().files(issued);
  files.revocations = "";
  Link link(TestAuthority::shared().server_context(), std::make_shared<const TlsContext>(TlsRole::client, files));
  link.run([&] { return answer_one(*link.server); }, [&] { return ask_one(*link.client, "localhost"); });
  EXPECT_NE(link.server_ending.error, "");
  return link.client_ending.error;
}

TEST(MutualTls, TellsARevokedClientWhy) {
  EXPECT_EQ(refusal_of(Wrong::shared().revoked_client), "the server refused our certificate: certificate revoked");
}

TEST(MutualTls, TellsARevokedClientWhyEvenWhenItOnlyWrites) {
  TlsFiles files = TestAuthority::shared().files(Wrong::shared().revoked_client);
  files.revocations = "";
  Link link(TestAuthority::shared().server_context(), std::make_shared<const TlsContext>(TlsRole::client, files));
  link.shake_hands();
  EXPECT_EQ(link.server_ending.error, "the client's certificate is revoked");
  ASSERT_EQ(link.client_ending.error, "");
  const Frame frame = frame_with(20, 300, 1);
  // The first write reaches a closed socket, so the second one meets its reset; the alert lies unread before it.
  link.run([]() -> awaitable<void> { co_return; },
           [&]() -> awaitable<void> {
             for (;;) co_await link.client->write_frame(frame);
           });
  EXPECT_EQ(link.client_ending.error, "the server refused our certificate: certificate revoked");
}

TEST(MutualTls, TellsTheServerThatItsCertificateIsForAnotherHost) {
  Link link(std::make_shared<const TlsContext>(TlsRole::server, TestAuthority::shared().files(Wrong::shared().other_server)),
            TestAuthority::shared().client_context());
  link.run([&] { return answer_one(*link.server); }, [&] { return ask_one(*link.client, "localhost"); });
  EXPECT_EQ(link.server_ending.error, "the client refused our certificate: it is not for the name the client looked for");
}

}  // namespace
}  // namespace fl
