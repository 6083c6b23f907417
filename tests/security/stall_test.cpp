// Promise: a slow, flooding or vanished peer cannot stall a round.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>

#include "tests/net_support/net/hostile_client.h"
#include "tests/net_support/net/loopback.h"
#include "tests/net_support/net/plain_socket.h"
#include "tests/net_support/net/recount.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using test::Ending;
using test::HostileClient;
using test::Loopback;
using test::PlainSocket;
using testing::HasSubstr;

constexpr std::size_t kHostile = 3;

/// Three honest clients, whose model travels as a blob of 84 KB, and room for a hostile one. Everybody is asked in every round.
class Stall : public testing::Test {
 protected:
  Stall() : federation_(experiment()) {
    federation_.config().clients.minimum = 3;
    federation_.config().limits.grace_s = 0.2;
    federation_.config().limits.heartbeat_s = 1;
    federation_.config().limits.handshake_s = 0.5;
  }

  static nlohmann::json experiment() {
    nlohmann::json document = test::toy_experiment();
    document["data"]["input"] = {300};
    document["data"]["classes"] = 70;
    document["trainer"]["learning_rate"] = 0.01;
    document["partition"] = {{"name", "iid"}, {"clients", 4}};
    document["rounds"] = 100'000;
    document["round"] = {{"cohort", 4}, {"deadline_s", 20}};
    document["devices"] = nlohmann::json::object();  // a deadline is only allowed where devices are slow
    document["evaluation"] = {{"every", 0}};
    return document;
  }

  void start() {
    federation_.start_server();
    federation_.start_clients(0, 3);
    federation_.await_rounds(1);
  }
  PlainSocket connect() const { return PlainSocket(federation_.port()); }

  /// Rounds go on; nobody but the hostile client was ever late or refused.
  void expect_unharmed() {
    federation_.await_rounds(2);
    federation_.stop_server();
    for (const RoundReport& report : federation_.reports()) {
      for (const ClientOutcome& member : report.cohort) {
        if (member.client != kHostile) {
          EXPECT_EQ(member.outcome, Outcome::accepted) << "client " << member.client << " in round " << report.round;
        }
      }
    }
  }

  Loopback federation_;
};

TEST_F(Stall, ConnectionsThatSayNothingAreClosedAfterTheHandshakeTime) {
  start();
  std::list<PlainSocket> silent;
  for (int i = 0; i < 100; ++i) silent.push_back(connect());
  federation_.await_rounds(2);
  for (PlainSocket& socket : silent) {
    EXPECT_EQ(socket.receive_all(), "");
    EXPECT_NE(socket.ending(), Ending::silent);
  }
  expect_unharmed();
}

TEST_F(Stall, AHandshakeOfOneByteAtATimeIsClosedAfterTheHandshakeTime) {
  start();
  // A ClientHello record that announces 512 bytes and then never comes to its end.
  PlainSocket slow = connect();
  std::string hello("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
  for (std::size_t i = 0; i < hello.size() && slow.ending() == Ending::open; ++i) {
    slow.send(hello.substr(i, 1));
    federation_.await_rounds(1);
  }
  slow.receive_all();
  EXPECT_NE(slow.ending(), Ending::silent);
  expect_unharmed();
}

TEST_F(Stall, AClientWithoutHelloIsClosedAfterTheHandshakeTime) {
  start();
  const TlsContext context(TlsRole::client, federation_.pki().client(kHostile));
  Probe probe = Probe::connect("127.0.0.1", federation_.port(), "127.0.0.1", context, std::chrono::seconds(60));
  EXPECT_THROW(probe.read_frame(std::chrono::seconds(60)), ProbeEnded);
  expect_unharmed();
}

TEST_F(Stall, AClientThatFallsSilentIsDroppedAfterThreeHeartbeats) {
  start();
  HostileClient hostile(federation_, kHostile);
  hostile.await_task();
  EXPECT_THROW(hostile.await(FrameType::welcome), ProbeEnded);  // nothing of this type comes: it reads to the end
  expect_unharmed();
}

TEST_F(Stall, AFloodOfConnectionsLeavesTheDoorOpenForOthers) {
  federation_.config().limits.handshakes_per_address = 20;
  start();
  std::list<PlainSocket> flood;
  for (int i = 0; i < 300; ++i) flood.push_back(connect());
  std::size_t closed_at_once = 0;
  for (PlainSocket& socket : flood) {
    socket.receive_all();
    closed_at_once += socket.ending() != Ending::silent ? 1 : 0;
  }
  EXPECT_EQ(closed_at_once, 300U);
  // Control: the address is not locked out for ever.
  HostileClient honest(federation_, kHostile);
  EXPECT_EQ(honest.welcome().client, kHostile);
  honest.probe().close();
  expect_unharmed();
}

TEST_F(Stall, AFloodOfFramesEndsTheSessionAndKeepsTheIdentityOut) {
  federation_.config().limits.frames_per_s = 20;  // 200 in a burst
  start();
  HostileClient hostile(federation_, kHostile);
  std::vector<std::byte> burst;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const auto one = frame_bytes(encode(Heartbeat{}, i));
    burst.insert(burst.end(), one.begin(), one.end());
  }
  try {
    hostile.send_bytes(burst);
  } catch (const ProbeEnded&) {
    // It was closed before it had sent everything.
  }
  EXPECT_THAT(hostile.verdict(), HasSubstr("frames a second"));
  EXPECT_THAT(test::error_of([&] { HostileClient again(federation_, kHostile); }), HasSubstr("sent too much"));
  expect_unharmed();
}

TEST_F(Stall, AClientThatAsksButDoesNotReadIsDropped) {
  federation_.config().limits.frames_per_s = 1e6;
  start();
  HostileClient hostile(federation_, kHostile);
  const auto beat = frame_bytes(encode(Heartbeat{}, 1));
  std::vector<std::byte> many;
  for (int i = 0; i < 1000; ++i) many.insert(many.end(), beat.begin(), beat.end());
  // Answers pile up behind a socket that nobody empties, until the server has enough.
  EXPECT_THROW(
      {
        for (int i = 0; i < 10'000; ++i) hostile.probe().write(many, std::chrono::seconds(60));
      },
      Error);
  expect_unharmed();
}

TEST_F(Stall, UploadsThatCreepHoldNobodyUp) {
  federation_.config().limits.uploads = 1;  // the only credit
  federation_.config().limits.minimum_bytes_per_s = 20'000;
  start();
  HostileClient hostile(federation_, kHostile);
  const Message task = hostile.await_task();
  const Message answer = test::honest_answer(federation_.prepared(), kHostile, task);
  hostile.send(frame_of(answer, hostile.request(), reference_to(answer.body().span())));
  hostile.await(FrameType::grant);
  // A byte at a time keeps the session alive; at this pace its 84 KB take hours.
  std::string reason;
  for (std::size_t offset = 0; reason.empty(); ++offset) {
    hostile.send(encode_chunk(hostile.request(), offset, answer.body().slice(offset, 1)));
    try {
      reason = parse_refused(hostile.probe().read_frame(std::chrono::milliseconds(200))).reason;
    } catch (const ProbeTimeout&) {
      // Nothing was said: the next byte.
    }
  }
  EXPECT_THAT(reason, HasSubstr("slower than 20000 bytes a second"));
  expect_unharmed();
}

}  // namespace
}  // namespace fl
