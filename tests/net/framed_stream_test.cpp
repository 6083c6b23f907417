#include "fl_core/net/framed_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <limits>

#include "fl_core/wire/limits.h"
#include "tests/net/tls_test_support.h"

namespace fl {
namespace {

namespace asio = boost::asio;
using asio::awaitable;
using boost::system::error_code;
using std::chrono::milliseconds;
using test::Ending;
using test::frame_with;
using test::Link;
using test::same;
using test::Socket;
using test::spawn;
using test::TestAuthority;
using testing::AnyOf;
using testing::HasSubstr;
using testing::StartsWith;

/// Sends back `count` frames.
awaitable<void> echo(FramedStream& stream, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const Frame frame = co_await stream.read_frame();
    co_await stream.write_frame(frame);
  }
}

awaitable<void> write_all(FramedStream& stream, const std::vector<Frame>& frames) { co_await stream.write_frames(frames); }

awaitable<void> expect_all(FramedStream& stream, const std::vector<Frame>& frames) {
  for (const Frame& expected : frames) {
    const Frame frame = co_await stream.read_frame();
    EXPECT_TRUE(same(frame, expected)) << "request " << expected.head.request;
  }
}

awaitable<void> write_then_expect(FramedStream& stream, const std::vector<Frame>& frames) {
  for (const Frame& sent : frames) {
    co_await stream.write_frame(sent);
    const Frame frame = co_await stream.read_frame();
    EXPECT_TRUE(same(frame, sent)) << "request " << sent.head.request;
  }
}

awaitable<void> read_one(FramedStream& stream) {
  const Frame frame = co_await stream.read_frame();
  ADD_FAILURE() << "a frame of type " << static_cast<int>(frame.head.type) << " came";
}

awaitable<void> nothing() { co_return; }

std::vector<Frame> frames_of_all_sizes() {
  constexpr std::size_t kRecord = 16 * 1024;
  std::vector<Frame> frames;
  std::uint64_t request = 0;
  for (const std::size_t body : {std::size_t{0}, std::size_t{1}, std::size_t{31}, kRecord - 33, kRecord - 32, kRecord - 31, kRecord - 1, kRecord, kRecord + 1,
                                 3 * kRecord, limits::kChunkBytes - 1, limits::kChunkBytes}) {
    for (const std::size_t header : {std::size_t{0}, std::size_t{1}, std::size_t{100}, kRecord, limits::kHeaderBytes}) {
      frames.push_back(frame_with(header, body, ++request));
    }
  }
  return frames;
}

/// A Link whose sockets take a few kilobytes at a time.
class NarrowLink : public Link {
 public:
  NarrowLink() : Link(TestAuthority::shared().server_context(), TestAuthority::shared().client_context(), true) {}
};

TEST(FramedStream, TellsBothEndsWhoThePeerIs) {
  Link link;
  link.shake_hands();
  EXPECT_EQ(link.server_ending.error, "");
  EXPECT_EQ(link.client_ending.error, "");
  const TestAuthority& authority = TestAuthority::shared();
  EXPECT_EQ(link.server->peer().name, "ada");
  EXPECT_EQ(link.server->peer().serial, authority.client.info.serial);
  EXPECT_EQ(link.server->peer().fingerprint, authority.client.info.fingerprint);
  EXPECT_EQ(link.server->peer().not_after, authority.client.info.not_after);
  EXPECT_EQ(link.client->peer().name, "hub");
  EXPECT_EQ(link.client->peer().fingerprint, authority.server.info.fingerprint);
  EXPECT_THAT(link.client->remote(), StartsWith("127.0.0.1:"));
}

TEST(FramedStream, AcceptsAnAddressThatTheCertificateIsFor) {
  Link link;
  link.shake_hands("127.0.0.1");
  EXPECT_EQ(link.client_ending.error, "");
}

TEST(FramedStream, EchoesFramesOfAllSizes) {
  Link link;
  link.shake_hands();
  const std::vector<Frame> frames = frames_of_all_sizes();
  link.run([&] { return echo(*link.server, frames.size()); }, [&] { return write_then_expect(*link.client, frames); });
  EXPECT_EQ(link.server_ending.error, "");
  EXPECT_EQ(link.client_ending.error, "");
}

TEST(FramedStream, ClosesWhileAWriteWaits) {
  NarrowLink link;
  link.shake_hands();
  const std::vector<Frame> frames = {frame_with(0, limits::kChunkBytes, 1)};
  link.run([&] { return write_all(*link.server, frames); },
           [&]() -> awaitable<void> {
             link.server->close();
             for (;;) co_await link.client->read_frame();
           });
  EXPECT_THAT(link.server_ending.error, HasSubstr("was closed on this side"));
  EXPECT_THAT(link.client_ending.error, HasSubstr("ended inside a frame without a close_notify"));
}

TEST(FramedStream, DeliversABatchOfMixedSizesInOrder) {
  Link link;
  link.shake_hands();
  const std::vector<Frame> frames = frames_of_all_sizes();
  link.run([&] { return expect_all(*link.server, frames); }, [&] { return write_all(*link.client, frames); });
  EXPECT_EQ(link.server_ending.error, "");
  EXPECT_EQ(link.client_ending.error, "");
}

TEST(FramedStream, PutsSmallFramesIntoSharedRecords) {
  Link link;
  link.shake_hands();
  std::vector<Frame> frames;
  for (std::uint64_t i = 0; i < 1000; ++i) frames.push_back(frame_with(20, 12, i));
  const std::uint64_t before = link.client->counters().bytes_out;
  link.run([&] { return expect_all(*link.server, frames); }, [&] { return write_all(*link.client, frames); });
  // 1000 x (32 + 20 + 12) = 64000 bytes are 4 records of 22 extra bytes each.
  EXPECT_EQ(link.client->counters().bytes_out - before, 64000U + 4 * 22);
  EXPECT_EQ(link.server->counters().bytes_in, link.client->counters().bytes_out);
}

TEST(FramedStream, WritesAndReadsAtTheSameTimeBeyondTheSocketBuffers) {
  NarrowLink link;
  link.shake_hands();
  std::vector<Frame> up, down;
  for (std::uint64_t i = 0; i < 4; ++i) {
    up.push_back(frame_with(10, limits::kChunkBytes, i));
    down.push_back(frame_with(300, limits::kChunkBytes - i, 100 + i));
  }
  Ending writes;
  Ending writes_back;
  spawn(link.io, [&] { return write_all(*link.server, down); }, writes);
  spawn(link.io, [&] { return write_all(*link.client, up); }, writes_back);
  link.run([&] { return expect_all(*link.server, up); }, [&] { return expect_all(*link.client, down); });
  EXPECT_EQ(link.server_ending.error + link.client_ending.error + writes.error + writes_back.error, "");
  EXPECT_TRUE(writes.ended && writes_back.ended);
}

TEST(FramedStream, KeepsTheBytesOfStreamsOfOneThreadApart) {
  constexpr std::size_t kStreams = 8;
  asio::io_context io;
  std::vector<std::unique_ptr<FramedStream>> servers, clients;
  std::vector<std::vector<Frame>> frames(kStreams);
  std::vector<Ending> handshakes(2 * kStreams), endings(3 * kStreams);
  const auto server_context = TestAuthority::shared().server_context();
  const auto client_context = TestAuthority::shared().client_context();
  const std::string host = "localhost";
  for (std::size_t i = 0; i < kStreams; ++i) {
    for (std::uint64_t n = 0; n < 40; ++n) frames[i].push_back(frame_with(i + 1, 1000 * i + 17 * n, 1000 * i + n));
    auto sockets = test::connected_sockets(io);
    if (i % 2 == 1) test::narrow(sockets);
    servers.push_back(std::make_unique<FramedStream>(std::move(sockets.first), server_context));
    clients.push_back(std::make_unique<FramedStream>(std::move(sockets.second), client_context));
    spawn(io, [&, i] { return servers[i]->handshake(host); }, handshakes[2 * i]);
    spawn(io, [&, i] { return clients[i]->handshake(host); }, handshakes[2 * i + 1]);
  }
  io.run();
  for (std::size_t i = 0; i < kStreams; ++i) {
    spawn(io, [&, i] { return echo(*servers[i], frames[i].size()); }, endings[3 * i]);
    spawn(io, [&, i] { return write_all(*clients[i], frames[i]); }, endings[3 * i + 1]);
    spawn(io, [&, i] { return expect_all(*clients[i], frames[i]); }, endings[3 * i + 2]);
  }
  io.restart();
  io.run();
  for (const std::vector<Ending>& all : {handshakes, endings}) {
    for (const Ending& ending : all) {
      EXPECT_TRUE(ending.ended);
      EXPECT_EQ(ending.error, "");
    }
  }
}

// ---- what stands between the ends ----------------------------------------------------------------------------------------

constexpr std::size_t kNever = std::numeric_limits<std::size_t>::max();

/// One direction of a carrier between the ends, and what it does to the bytes.
struct Carrier {
  std::size_t slice = 4096;  ///< at most so many bytes at a time
  std::size_t cut = kNever;  ///< ends both directions after so many
  bool flip = false;         ///< changes the first byte of the next slice but five: behind the header of a record
  std::string inject;        ///< goes before the next slice
  Ending ending;
};

awaitable<void> carry(Socket& from, Socket& to, Carrier& carrier) {
  std::vector<char> bytes(carrier.slice);
  error_code error;
  for (std::size_t carried = 0; carried < carrier.cut;) {
    const std::size_t most = std::min(carrier.slice, carrier.cut - carried);
    const std::size_t size = co_await from.async_read_some(asio::buffer(bytes.data(), most), asio::redirect_error(asio::use_awaitable, error));
    if (error) break;
    carried += size;
    if (std::exchange(carrier.flip, false)) bytes[5] = static_cast<char>(bytes[5] ^ 1);
    const std::string sent = std::exchange(carrier.inject, "") + std::string(bytes.data(), size);
    co_await asio::async_write(to, asio::buffer(sent), asio::redirect_error(asio::use_awaitable, error));
    if (error) break;
  }
  to.shutdown(Socket::shutdown_send, error);
  from.shutdown(Socket::shutdown_receive, error);
}

/// A Link with a carrier between its ends.
class CarriedLink : public Link {
 public:
  explicit CarriedLink(std::size_t slice = 4096, std::size_t cut = kNever) {
    up.slice = slice;
    up.cut = cut;
    down.slice = slice;
    auto [server_side, to_server] = test::connected_sockets(io);
    auto [to_client, client_side] = test::connected_sockets(io);
    to_server_ = std::make_unique<Socket>(std::move(to_server));
    to_client_ = std::make_unique<Socket>(std::move(to_client));
    to_server_->set_option(asio::ip::tcp::no_delay(true));
    to_client_->set_option(asio::ip::tcp::no_delay(true));
    server = std::make_unique<FramedStream>(std::move(server_side), TestAuthority::shared().server_context());
    client = std::make_unique<FramedStream>(std::move(client_side), TestAuthority::shared().client_context());
    spawn(io, [this] { return carry(*to_client_, *to_server_, up); }, up.ending);
    spawn(io, [this] { return carry(*to_server_, *to_client_, down); }, down.ending);
  }

  Carrier up;
  Carrier down;

 private:
  std::unique_ptr<Socket> to_server_;
  std::unique_ptr<Socket> to_client_;
};

awaitable<void> serve_and_close(FramedStream& stream, std::size_t count) {
  co_await stream.handshake("");
  co_await echo(stream, count);
  stream.close();
}

awaitable<void> use_and_close(FramedStream& stream, const std::vector<Frame>& frames) {
  const std::string host = "localhost";
  co_await stream.handshake(host);
  co_await write_then_expect(stream, frames);
  stream.close();
}

TEST(FramedStream, WorksThroughSlicesOfOneByte) {
  CarriedLink link(1);
  std::vector<Frame> frames;
  for (std::uint64_t i = 0; i < 5; ++i) frames.push_back(frame_with(3 * i, 700 * i, i));
  link.run([&] { return serve_and_close(*link.server, frames.size()); }, [&] { return use_and_close(*link.client, frames); });
  EXPECT_EQ(link.server_ending.error, "");
  EXPECT_EQ(link.client_ending.error, "");
}

TEST(FramedStream, ReportsACutWhereverItFalls) {
  // Cuts what the client sends after every 97th byte: in the handshake (about 1000 bytes), in a frame, and behind it.
  const std::vector<Frame> frames = {frame_with(50, 2000, 1)};
  constexpr std::size_t kCloseBytes = 5 + 2 + 1 + 16;  // the record of close_notify
  CarriedLink whole;
  whole.run([&] { return serve_and_close(*whole.server, 1); }, [&] { return use_and_close(*whole.client, frames); });
  ASSERT_EQ(whole.client_ending.error + whole.server_ending.error, "");
  // A signature may be some bytes shorter the next time.
  for (std::size_t cut = 1; cut + kCloseBytes + 8 < whole.client->counters().bytes_out; cut += 97) {
    CarriedLink link(4096, cut);
    link.run([&] { return serve_and_close(*link.server, 1); }, [&] { return use_and_close(*link.client, frames); });
    EXPECT_THAT(link.server_ending.error, AnyOf(HasSubstr("ended during the TLS handshake without a close_notify"),
                                                HasSubstr("ended between two frames without a close_notify"),
                                                HasSubstr("ended inside a frame without a close_notify")))
        << "cut after " << cut;
    EXPECT_NE(link.client_ending.error, "") << "cut after " << cut;
    EXPECT_FALSE(link.server->open());
    EXPECT_FALSE(link.client->open());
  }
}

TEST(FramedStream, RefusesBytesThatWereChangedOnTheirWay) {
  CarriedLink link;
  link.shake_hands();
  link.up.flip = true;
  const std::vector<Frame> frames = {frame_with(50, 200, 1)};
  link.run([&] { return read_one(*link.server); }, [&] { return write_then_expect(*link.client, frames); });
  EXPECT_EQ(link.server_ending.error, "bytes from the client were changed on their way");
  EXPECT_EQ(link.client_ending.error, "the server ended the connection with the TLS alert 'bad record mac'");
}

TEST(FramedStream, RefusesBytesBesideTlsAfterTheHandshake) {
  CarriedLink link;
  link.shake_hands();
  link.up.inject = "POST /update HTTP/1.1\r\n";
  const std::vector<Frame> frames = {frame_with(50, 200, 1)};
  link.run([&] { return read_one(*link.server); }, [&] { return write_then_expect(*link.client, frames); });
  EXPECT_THAT(link.server_ending.error, HasSubstr("what the client sent is not TLS"));
  EXPECT_THAT(link.client_ending.error, StartsWith("the server ended the connection with the TLS alert"));
}

// ---- how connections end -------------------------------------------------------------------------------------------------

TEST(FramedStream, SaysThatThePeerClosedBetweenFrames) {
  Link link;
  link.shake_hands();
  link.client->close();
  EXPECT_FALSE(link.client->open());
  link.run([&] { return read_one(*link.server); }, nothing);
  EXPECT_EQ(link.server_ending.error, "the peer closed the connection");
  EXPECT_FALSE(link.server->open());
}

TEST(FramedStream, SaysThatThePeerClosedInsideAFrame) {
  Link link;
  link.shake_hands();
  Frame cut = frame_with(8, 0, 1);
  cut.head.body_bytes = 100;  // announced, but never sent
  link.run([&] { return read_one(*link.server); },
           [&]() -> awaitable<void> {
             co_await link.client->write_frame(cut);
             link.client->close();
           });
  EXPECT_EQ(link.server_ending.error, "the peer closed the connection inside a frame");
}

TEST(FramedStream, DeliversWhatWasWrittenBeforeClose) {
  Link link;
  link.shake_hands();
  const std::vector<Frame> frames = {frame_with(10, 300'000, 1), frame_with(0, 0, 2)};
  // The client has sent something that the server never reads: the end must not become a reset that overtakes the frames.
  link.run(nothing, [&] { return write_all(*link.client, frames); });
  link.run(
      [&]() -> awaitable<void> {
        co_await link.server->write_frames(frames);
        link.server->close();
      },
      [&]() -> awaitable<void> {
        co_await expect_all(*link.client, frames);
        co_await read_one(*link.client);
      });
  EXPECT_EQ(link.server_ending.error, "");
  EXPECT_EQ(link.client_ending.error, "the peer closed the connection");
}

TEST(FramedStream, WakesItsOwnReaderWhenItIsAborted) {
  Link link;
  link.shake_hands();
  link.run([&] { return read_one(*link.server); },
           [&]() -> awaitable<void> {
             link.server->abort();
             co_await read_one(*link.client);
           });
  EXPECT_THAT(link.server_ending.error, HasSubstr("was closed on this side"));
  EXPECT_THAT(link.client_ending.error, HasSubstr("broke between two frames"));
  EXPECT_FALSE(link.server->open());
}

TEST(FramedStream, RefusesEverythingOnceItIsClosed) {
  Link link;
  link.shake_hands();
  link.server->close();
  link.server->close();
  link.server->abort();
  const Frame frame = frame_with(1, 1, 1);
  link.run([&] { return read_one(*link.server); }, nothing);
  EXPECT_THAT(link.server_ending.error, HasSubstr("is closed"));
  link.run([&] { return link.server->write_frame(frame); }, nothing);
  EXPECT_THAT(link.server_ending.error, HasSubstr("is closed"));
}

TEST(FramedStream, ClosesBeforeItsHandshake) {
  Link link;
  link.client->close();
  link.run([&] { return link.server->handshake(""); }, nothing);
  EXPECT_THAT(link.server_ending.error, HasSubstr("ended during the TLS handshake without a close_notify"));
}

// ---- frames that break the protocol --------------------------------------------------------------------------------------

TEST(FramedStream, RefusesALengthBeforeMakingRoomForIt) {
  for (const bool body : {false, true}) {
    Link link;
    link.shake_hands();
    Frame frame = frame_with(1, 1, 1);
    (body ? frame.head.body_bytes : frame.head.header_bytes) = body ? limits::kChunkBytes + 1 : limits::kHeaderBytes + 1;
    bool was_protocol_error = false;
    link.run(
        [&]() -> awaitable<void> {
          try {
            co_await link.server->read_head();
          } catch (const ProtocolError&) {
            was_protocol_error = true;
            throw;
          }
        },
        [&]() -> awaitable<void> {
          co_await link.client->write_frame(frame);
          co_await read_one(*link.client);
        });
    EXPECT_TRUE(was_protocol_error) << link.server_ending.error;
    EXPECT_FALSE(link.server->open());
    EXPECT_EQ(link.client_ending.error, "the peer closed the connection");
  }
}

// ---- within --------------------------------------------------------------------------------------------------------------

/// Expects the operation to end as TimedOut.
template <class Operation>
awaitable<void> expect_late(FramedStream& stream, const char* what, Operation operation) {
  bool late = false;
  try {
    co_await within(milliseconds(20), stream, what, operation());
  } catch (const TimedOut& error) {
    late = true;
    EXPECT_EQ(std::string(error.what()), std::string(what) + " took longer than 20 ms");
  }
  EXPECT_TRUE(late);
  EXPECT_FALSE(stream.open());
}

TEST(Within, EndsAHandshakeThatThePeerNeverBegins) {
  Link link;
  link.run([&] { return expect_late(*link.server, "the handshake", [&] { return link.server->handshake(""); }); }, nothing);
  EXPECT_EQ(link.server_ending.error, "");
}

TEST(Within, EndsAReadFromASilentPeer) {
  Link link;
  link.shake_hands();
  link.run([&] { return expect_late(*link.server, "a frame", [&] { return link.server->read_frame(); }); }, nothing);
  EXPECT_EQ(link.server_ending.error, "");
}

TEST(Within, EndsAReadInTheMiddleOfAFrame) {
  Link link;
  link.shake_hands();
  Frame half = frame_with(8, 5000, 1);
  half.head.body_bytes = 6000;
  link.run([&] { return expect_late(*link.server, "a frame", [&] { return link.server->read_frame(); }); },
           [&] { return link.client->write_frame(half); });
  EXPECT_EQ(link.server_ending.error, "");
}

TEST(Within, EndsAWriteToAPeerThatNeverReads) {
  NarrowLink link;
  link.shake_hands();
  const std::vector<Frame> frames = {frame_with(0, limits::kChunkBytes, 1)};  // more than its socket takes
  link.run([&] { return expect_late(*link.server, "the weights", [&] { return write_all(*link.server, frames); }); }, nothing);
  EXPECT_EQ(link.server_ending.error, "");
  link.run(nothing, [&]() -> awaitable<void> {
    for (;;) co_await link.client->read_frame();
  });
  EXPECT_THAT(link.client_ending.error, HasSubstr("broke"));
}

TEST(Within, PassesOnWhatComesInTime) {
  Link link;
  link.shake_hands();
  const std::vector<Frame> frames = {frame_with(5, 70'000, 3)};
  link.run(
      [&]() -> awaitable<void> {
        Frame frame = co_await within(std::chrono::minutes(10), *link.server, "a frame", link.server->read_frame());
        EXPECT_TRUE(same(frame, frames[0]));
        co_await within(std::chrono::minutes(10), *link.server, "a frame", link.server->write_frame(frame));
      },
      [&] { return write_then_expect(*link.client, frames); });
  EXPECT_EQ(link.server_ending.error + link.client_ending.error, "");
  EXPECT_TRUE(link.server->open());
}

TEST(Within, PassesOnOtherErrorsAsTheyAre) {
  Link link;
  link.shake_hands();
  link.client->close();
  link.run([&]() -> awaitable<void> { co_await within(std::chrono::minutes(10), *link.server, "a frame", link.server->read_frame()); }, nothing);
  EXPECT_EQ(link.server_ending.error, "the peer closed the connection");
}

TEST(Within, GivesTheFrameOrTheDelayWhenBothComeAtOnce) {
  // Limits of 0 to 3 ms around an answer that is sent as fast as possible: whichever comes first, the outcome is one of the two.
  const std::vector<Frame> frames = {frame_with(100, 200'000, 1)};
  std::size_t in_time = 0;
  for (int i = 0; i < 40; ++i) {
    Link link;
    link.shake_hands();
    link.run(
        [&]() -> awaitable<void> {
          try {
            Frame frame = co_await within(milliseconds(i % 4), *link.server, "a frame", link.server->read_frame());
            EXPECT_TRUE(same(frame, frames[0]));
            EXPECT_TRUE(link.server->open());
            ++in_time;
          } catch (const TimedOut&) {
            EXPECT_FALSE(link.server->open());
          }
        },
        [&]() -> awaitable<void> {
          try {
            co_await link.client->write_frames(frames);
          } catch (const LinkError&) {  // the reader gave up
          }
        });
    EXPECT_EQ(link.server_ending.error + link.client_ending.error, "");
  }
  RecordProperty("in_time", static_cast<int>(in_time));
}

}  // namespace
}  // namespace fl
