#include "tests/net_support/net/fault_proxy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <nlohmann/json.hpp>

#include "tests/net_support/net/plain_socket.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::Ending;
using test::FaultProxy;
using test::PlainSocket;
using testing::HasSubstr;

/// An echo server behind a proxy.
class FaultProxyTest : public testing::Test {
 protected:
  void rules(const nlohmann::json& list, int seed = 1) {
    proxy_.change({{"seed", seed}, {"rules", list}});
  }
  PlainSocket connect() const { return PlainSocket(proxy_.port()); }
  /// What comes back of `text` after the client said that it was all.
  std::string echoed(const std::string& text) const {
    PlainSocket socket = connect();
    socket.send(text);
    socket.finish();
    return socket.receive_all();
  }
  std::string error(const nlohmann::json& script) const {
    return test::error_of([&] { FaultProxy other(server_.port(), script); });
  }

  test::EchoServer server_;
  FaultProxy proxy_{server_.port()};
  const std::string text_ = "The quick brown fox jumps over the lazy dog";
};

TEST_F(FaultProxyTest, PassesEverythingOnWithoutRules) {
  PlainSocket socket = connect();
  const std::string much(1'000'000, 'x');
  for (const std::string& text : {text_, much, text_}) {
    std::thread sender([&] { EXPECT_TRUE(socket.send(text)); });  // both directions at a time, or the buffers fill up
    EXPECT_EQ(socket.receive(text.size()), text);
    sender.join();
  }
  EXPECT_EQ(socket.ending(), Ending::open);
  socket.finish();
  EXPECT_EQ(socket.receive_all(), "");
  EXPECT_EQ(socket.ending(), Ending::orderly);
  EXPECT_EQ(proxy_.counts().connections, 1U);
  EXPECT_EQ(proxy_.counts().bytes_up, 1'000'000 + 2 * text_.size());
  EXPECT_EQ(proxy_.counts().bytes_down, 1'000'000 + 2 * text_.size());
}

TEST_F(FaultProxyTest, OneByteSlicesAndDelaysChangeNoByte) {
  rules({{{"slice_bytes", 1}, {"jitter_ms", 0.2}}, {{"delay_ms", 0.1}, {"bandwidth_bytes_s", 1e6}}});
  EXPECT_EQ(echoed(text_), text_);
}

TEST_F(FaultProxyTest, HoldsBytesForTheDelayAndNoFasterThanTheBandwidth) {
  const auto seconds = [&](const nlohmann::json& list) {
    rules(list);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(echoed(text_), text_);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  // Lower bounds only: a timer never fires early, however busy the machine is.
  EXPECT_GE(seconds({{{"delay_ms", 50}}}), 0.1);                                            // up and down
  EXPECT_GE(seconds({{{"direction", "up"}, {"bandwidth_bytes_s", 430}}}), 0.1);             // 43 bytes at 430 bytes/s
  EXPECT_GE(seconds({{{"direction", "down"}, {"slow_close_ms", 80}}}), 0.08);
}

TEST_F(FaultProxyTest, ResetsAfterExactlySoManyBytes) {
  rules({{{"direction", "down"}, {"reset_after_bytes", 9}}});
  PlainSocket socket = connect();
  EXPECT_TRUE(socket.send(text_));
  EXPECT_EQ(socket.receive_all(), text_.substr(0, 9));
  EXPECT_EQ(socket.ending(), Ending::reset);
  EXPECT_EQ(proxy_.counts().resets, 1U);
}

TEST_F(FaultProxyTest, CutsInOrderAfterExactlySoManyBytes) {
  rules({{{"direction", "up"}, {"cut_after_bytes", 19}}});
  PlainSocket socket = connect();
  EXPECT_TRUE(socket.send(text_.substr(0, 19)));
  // The server's echo may be cut off too; what comes is a beginning of it, and then an orderly end.
  EXPECT_EQ(text_.rfind(socket.receive_all(), 0), 0U);
  EXPECT_EQ(socket.ending(), Ending::orderly);
  EXPECT_EQ(proxy_.counts().cuts, 1U);
  EXPECT_EQ(proxy_.counts().bytes_up, 19U);
}

TEST_F(FaultProxyTest, AHalfOpenConnectionSaysNothingUntilItIsClosed) {
  rules({{{"direction", "down"}, {"half_open_after_bytes", 5}}});
  PlainSocket socket = connect();
  EXPECT_TRUE(socket.send(text_));
  EXPECT_EQ(socket.receive(5), text_.substr(0, 5));
  while (proxy_.counts().half_open == 0) std::this_thread::yield();
  EXPECT_TRUE(socket.send(text_)) << "the sender must not notice";
  proxy_.close_all();
  EXPECT_EQ(socket.receive_all(), "");
  EXPECT_EQ(socket.ending(), Ending::reset);
}

TEST_F(FaultProxyTest, FlipsOneBitOfOneByte) {
  rules({{{"direction", "up"}, {"corrupt_byte", 4}}, {{"direction", "up"}, {"slice_bytes", 3}}});
  const std::string answer = echoed(text_);
  ASSERT_EQ(answer.size(), text_.size());
  int flipped = 0;
  for (std::size_t i = 0; i < text_.size(); ++i) {
    const int bits = std::popcount(static_cast<unsigned char>(answer[i] ^ text_[i]));
    EXPECT_TRUE(bits == 0 || i == 4);
    flipped += bits;
  }
  EXPECT_EQ(flipped, 1);
  EXPECT_EQ(proxy_.counts().corrupted, 1U);
}

TEST_F(FaultProxyTest, RepeatsARangeOfBytesWhateverThePieces) {
  for (const int slice : {0, 1, 7}) {
    rules({{{"direction", "down"}, {"duplicate_bytes", {4, 6}}, {"slice_bytes", slice}}});
    EXPECT_EQ(echoed(text_), "The quick quick brown fox jumps over the lazy dog") << "slices of " << slice;
  }
  EXPECT_EQ(proxy_.counts().duplicated, 18U);
}

TEST_F(FaultProxyTest, RefusesAConnection) {
  rules({{{"refuse", true}, {"connection", 0}}});
  PlainSocket socket = connect();
  EXPECT_EQ(socket.receive_all(), "");
  EXPECT_EQ(socket.ending(), Ending::reset);
  EXPECT_EQ(echoed(text_), text_) << "the rule names connection 0 only";
  EXPECT_EQ(proxy_.counts().refused, 1U);
}

TEST_F(FaultProxyTest, TheSeedDecidesWhomItStrikes) {
  const auto struck = [&](int seed) {
    FaultProxy proxy(server_.port(), {{"seed", seed}, {"rules", {{{"refuse", true}, {"probability", 0.5}}}}});
    std::string pattern;
    for (int i = 0; i < 24; ++i) {
      PlainSocket socket(proxy.port());
      socket.send("x");
      pattern += socket.receive(1).empty() ? 'r' : '.';
    }
    return pattern;
  };
  const std::string first = struck(1);
  EXPECT_EQ(struck(1), first);
  EXPECT_NE(struck(2), first);
  EXPECT_THAT(first, testing::AllOf(HasSubstr("r"), HasSubstr(".")));
}

TEST_F(FaultProxyTest, APausedNetworkHoldsBytesAndConnectionsBack) {
  PlainSocket before = connect();
  EXPECT_TRUE(before.send("a"));
  EXPECT_EQ(before.receive(1), "a");
  proxy_.pause();
  EXPECT_TRUE(before.send("b"));
  PlainSocket during = connect();
  EXPECT_TRUE(during.send("c"));
  EXPECT_EQ(proxy_.counts().bytes_up, 1U);
  proxy_.go_on();
  EXPECT_EQ(before.receive(1), "b");
  EXPECT_EQ(during.receive(1), "c");
}

TEST_F(FaultProxyTest, LeadsToAnotherServerWhenTold) {
  PlainSocket old = connect();
  EXPECT_TRUE(old.send("a"));
  EXPECT_EQ(old.receive(1), "a");
  const test::EchoServer second;
  proxy_.retarget(second.port());
  EXPECT_EQ(echoed("new"), "new");
  proxy_.retarget(1);  // nobody listens there
  EXPECT_EQ(echoed("lost"), "");
  EXPECT_EQ(proxy_.counts().unreachable, 1U);
  EXPECT_TRUE(old.send("b"));
  EXPECT_EQ(old.receive(1), "b") << "a connection stays with its server";
}

TEST_F(FaultProxyTest, ABadScriptIsRefusedByItsPath) {
  EXPECT_EQ(error({{"rules", nlohmann::json::array()}}), "");
  EXPECT_THAT(error({{"rule", 1}}), HasSubstr("fault script: rule: unknown key"));
  EXPECT_THAT(error({{"rules", 3}}), HasSubstr("rules: got 3, expected a list of rules"));
  EXPECT_THAT(error({{"rules", {{{"dely_ms", 1}}}}}), HasSubstr("rules.0.dely_ms: unknown key"));
  EXPECT_THAT(error({{"rules", {{{"delay_ms", -1}}}}}), HasSubstr("rules.0.delay_ms: got -1, expected a number from 0"));
  EXPECT_THAT(error({{"rules", {{{"direction", "left"}}}}}), HasSubstr("rules.0.direction"));
  EXPECT_THAT(error({{"rules", {{{"duplicate_bytes", {1}}}}}}), HasSubstr("rules.0.duplicate_bytes: got [1], expected [from, count]"));
}

}  // namespace
}  // namespace fl
