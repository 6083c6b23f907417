// Promise: only mutually authenticated TLS 1.3 peers of this federation get a byte of answer.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/net_support/net/hostile_client.h"
#include "tests/net_support/net/loopback.h"
#include "tests/net_support/net/plain_socket.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using test::hostile_context;
using test::knock;
using test::Loopback;
using test::TestPki;
using testing::HasSubstr;

constexpr Probe::Milliseconds kPatience{60'000};

/// Two honest clients and others that try things; rounds go on for as long as a test takes.
nlohmann::json endless_experiment() {
  nlohmann::json document = test::toy_experiment();
  document["partition"] = {{"name", "iid"}, {"clients", 4}};
  document["rounds"] = 100'000;
  document["round"] = {{"cohort", 2}};
  document["evaluation"] = {{"every", 0}};
  return document;
}

/// A way to come in, and what the server's log or the refusal has to say about it.
struct Intruder {
  std::string name;
  std::function<TlsFiles(TestPki&)> shows;
  ProbeManners manners;
  std::string words;

  friend void PrintTo(const Intruder& intruder, std::ostream* out) { *out << intruder.name; }
};

ProbeManners manners(const std::function<void(ProbeManners&)>& change) {
  ProbeManners result;
  change(result);
  return result;
}

TlsFiles honest(TestPki& pki) { return pki.client(2); }

class Handshake : public testing::TestWithParam<Intruder> {
 protected:
  Handshake() : federation_(endless_experiment()) {
    federation_.config().clients.minimum = 2;
    shown_ = GetParam().shows(federation_.pki());
    federation_.start_server();
    federation_.start_clients(0, 2);
  }
  test::KnockResult try_with(const TlsFiles& files, const ProbeManners& how) {
    return knock(federation_.port(), *hostile_context(TlsRole::client, federation_.pki().client(1), files), how);
  }

  Loopback federation_;
  TlsFiles shown_;
};

TEST_P(Handshake, IsRefusedWithoutAFrameWhileTheRoundGoesOn) {
  federation_.await_rounds(1);
  const auto refused = try_with(shown_, GetParam().manners);
  EXPECT_FALSE(refused.answered) << "it got a frame";
  EXPECT_THAT(refused.words, HasSubstr(GetParam().words));
  // Positive control: the same steps with nothing wrong in them. (The examples do not fit, which only a peer is told.)
  const auto let_in = try_with(honest(federation_.pki()), {});
  EXPECT_TRUE(let_in.answered) << let_in.words;
  EXPECT_THAT(let_in.words, HasSubstr("the examples have shape 1"));
  federation_.await_rounds(2);
}

INSTANTIATE_TEST_SUITE_P(
    Of, Handshake,
    testing::Values(
        Intruder{"Tls12", honest, manners([](ProbeManners& m) { m.tls_1_2 = true; }), "TLS 1.3"},
        Intruder{"NoCertificate", honest, manners([](ProbeManners& m) { m.show_certificate = false; }), "certificate"},
        Intruder{"Expired", [](TestPki& pki) { return pki.expired_client(); }, {}, "expired"},
        Intruder{"NotYetValid", [](TestPki& pki) { return pki.not_yet_valid_client(); }, {}, "certificate"},
        Intruder{"Foreign", [](TestPki& pki) { return pki.foreign_client(); }, {}, ""},
        Intruder{"SelfSigned", [](TestPki& pki) { return pki.self_signed_client(); }, {}, ""},
        Intruder{"MadeByAClient", [](TestPki& pki) { return pki.client_made_by_a_client(); }, {}, ""},
        Intruder{"Revoked", [](TestPki& pki) { return pki.revoked_client(3); }, {}, "revoked"},
        Intruder{"AServersCertificate", [](TestPki& pki) { return pki.server(); }, {}, "certificate"},
        Intruder{"AnotherProtocol", honest, manners([](ProbeManners& m) { m.application = "h2"; }), "tributary/1"},
        Intruder{"NoProtocol", honest, manners([](ProbeManners& m) { m.application = ""; }), "tributary/1"}),
    [](const auto& one) { return one.param.name; });

TEST(HandshakeOfPlainTcp, GetsNoFrame) {
  Loopback federation(endless_experiment());
  federation.config().clients.minimum = 2;
  federation.start_server();
  federation.start_clients(0, 2);
  federation.await_rounds(1);
  const auto hello = frame_bytes(encode(test::fitting_hello(federation)));
  const auto answer = answer_to_plain_bytes("127.0.0.1", federation.port(), hello, kPatience);
  // At most a TLS alert: content type 21, version, length 2, level, description.
  EXPECT_LE(answer.size(), 7U);
  if (!answer.empty()) {
    EXPECT_EQ(answer[0], std::byte{21});
  }
  federation.await_rounds(2);
}

TEST(HandshakeOfAStranger, IsToldThatItIsNotOnTheList) {
  Loopback federation(endless_experiment());
  federation.config().clients.minimum = 2;
  const auto stranger = federation.pki().authority().issue_client("stranger");
  const TlsFiles files{stranger.certificate.string(), stranger.key.string(), federation.config().tls.authority, ""};
  federation.start_server();
  federation.start_clients(0, 2);
  const TlsContext context(TlsRole::client, files);
  Probe probe = Probe::connect("127.0.0.1", federation.port(), "127.0.0.1", context, kPatience);
  probe.write(encode(test::fitting_hello(federation)), kPatience);
  const Refused refused = parse_refused(probe.read_frame(kPatience));
  EXPECT_EQ(refused.code, Refusal::not_admitted);
  EXPECT_THAT(refused.reason, HasSubstr("'stranger' is not on this run's list"));
  federation.await_rounds(2);
}

TEST(HandshakeOfTheServer, GivesNothingToResumeWith) {
  Loopback federation(endless_experiment());
  federation.start_server();
  const TlsContext context(TlsRole::client, federation.pki().client(0));
  Probe probe = Probe::connect("127.0.0.1", federation.port(), "127.0.0.1", context, kPatience);
  probe.write(encode(test::fitting_hello(federation)), kPatience);
  EXPECT_EQ(probe.read_frame(kPatience).head.type, FrameType::welcome);  // after it a ticket would have come
  EXPECT_FALSE(probe.resumable());
}

/// A server that our client must not talk to.
struct Impostor {
  std::string name;
  std::function<std::shared_ptr<const TlsContext>(TestPki&)> context;
  std::string words;

  friend void PrintTo(const Impostor& impostor, std::ostream* out) { *out << impostor.name; }
};

class ClientsHandshake : public testing::TestWithParam<Impostor> {};

TEST_P(ClientsHandshake, IsBrokenOffBeforeTheHello) {
  Loopback federation(endless_experiment());
  const auto rogue = GetParam().context(federation.pki());
  ProbeListener listener("127.0.0.1", 0);
  ClientConfig config = federation.client_config(0);
  config.port = listener.port();
  test::LoopbackClient client(std::move(config), federation.local_data(0), {});
  const int socket = listener.accept(kPatience);
  std::string got;
  try {
    Probe probe = Probe::accept(socket, *rogue, kPatience);
    got = frame_type_name(static_cast<std::uint8_t>(probe.read_frame(kPatience).head.type));
  } catch (const ProbeEnded&) {
    got = "nothing";
  }
  EXPECT_EQ(got, GetParam().words.empty() ? "hello" : "nothing");
  if (!GetParam().words.empty()) {
    EXPECT_THAT(client.await("disconnected").text, HasSubstr(GetParam().words));
  }
}

std::function<std::shared_ptr<const TlsContext>(TestPki&)> showing(TlsFiles (TestPki::*files)()) {
  return [files](TestPki& pki) {
    const TlsFiles shown = (pki.*files)();
    return hostile_context(TlsRole::server, pki.server(), shown);
  };
}

INSTANTIATE_TEST_SUITE_P(
    With, ClientsHandshake,
    testing::Values(
        Impostor{"TheRightServer", [](TestPki& pki) { return hostile_context(TlsRole::server, pki.server(), pki.server()); }, ""},
        Impostor{"AnotherName", [](TestPki& pki) { return hostile_context(TlsRole::server, pki.server(), pki.server_for("10.1.2.3")); }, "certificate"},
        Impostor{"AnExpiredServer", showing(&TestPki::expired_server), "expired"},
        Impostor{"AForeignServer", showing(&TestPki::foreign_server), "certificate"},
        Impostor{"ASelfSignedServer", showing(&TestPki::self_signed_server), "certificate"},
        Impostor{"ARevokedServer", showing(&TestPki::revoked_server), "revoked"},
        Impostor{"AClientsCertificate", [](TestPki& pki) { return hostile_context(TlsRole::server, pki.server(), pki.client(1)); }, "certificate"},
        Impostor{"Tls12", [](TestPki& pki) { return test::tls_1_2_server(pki.server()); }, "TLS 1.3"},
        Impostor{"NoProtocol", [](TestPki& pki) { return test::server_without_alpn(pki.server()); }, "tributary/1"}),
    [](const auto& one) { return one.param.name; });

TEST(ClientsHandshakeWithPlainTcp, IsBrokenOff) {
  Loopback federation(endless_experiment());
  ProbeListener listener("127.0.0.1", 0);
  ClientConfig config = federation.client_config(0);
  config.port = listener.port();
  test::LoopbackClient client(std::move(config), federation.local_data(0), {});
  auto socket = test::PlainSocket::adopt(listener.accept(kPatience));
  // The first record of TLS: content type 22, legacy version 3.1; then garbage for an answer.
  EXPECT_EQ(socket.receive(3), std::string("\x16\x03\x01", 3));
  socket.send("HTTP/1.1 200 OK\r\n\r\n");
  client.await("disconnected");
  EXPECT_EQ(socket.receive_all().find("TRBT"), std::string::npos);
}

}  // namespace
}  // namespace fl
