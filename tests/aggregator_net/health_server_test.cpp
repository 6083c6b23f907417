#include "aggregator/web/health_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "fl_core/base/error.h"
#include "tests/support/prometheus_text.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr std::int64_t kFarAway = 32'503'680'000;  // the year 3000

/// A TCP connection to the server, without any idea of HTTP.
class Peer {
 public:
  explicit Peer(std::uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    FL_CHECK(::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0, "cannot connect");
    const timeval hangs{100, 0};  // ends a test that would hang
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &hangs, sizeof(hangs));
  }
  ~Peer() { ::close(socket_); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  /// Whether the server still takes bytes.
  bool send(const std::string& bytes) const {
    std::size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t n = ::send(socket_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return false;
      sent += static_cast<std::size_t>(n);
    }
    return true;
  }
  void finish_sending() const { ::shutdown(socket_, SHUT_WR); }

  /// One response of the server, by its Content-Length; what there was when the connection ended.
  std::string response(bool head_only = false) {
    while (received_.find("\r\n\r\n") == std::string::npos) {
      if (!receive()) return take(received_.size());
    }
    const std::size_t body = received_.find("\r\n\r\n") + 4;
    const std::size_t length = received_.find("Content-Length: ");
    const std::size_t size = body + (head_only || length > body ? 0 : std::stoul(received_.substr(length + 16)));
    while (received_.size() < size) {
      if (!receive()) return take(received_.size());
    }
    return take(size);
  }
  /// All until the server ends the connection.
  std::string rest() {
    while (receive()) {
    }
    return take(received_.size());
  }
  /// Whether the server ended the connection with a FIN. A reset may cost a peer the answer that was under way.
  bool ended_orderly() const { return orderly_; }
  /// Whether nothing came from the server for `ms`.
  bool silent_for(int ms) const {
    pollfd place{socket_, POLLIN, 0};
    return ::poll(&place, 1, ms) == 0;
  }

 private:
  bool receive() {
    std::array<char, 4096> bytes{};
    const ssize_t n = ::recv(socket_, bytes.data(), bytes.size(), 0);
    if (n > 0) received_.append(bytes.data(), static_cast<std::size_t>(n));
    orderly_ = n == 0;
    return n > 0;
  }
  std::string take(std::size_t size) {
    std::string taken = received_.substr(0, size);
    received_.erase(0, size);
    return taken;
  }

  int socket_;
  std::string received_;
  bool orderly_ = false;
};

std::string request(const std::string& target, const std::string& method = "GET", const std::string& more = "") {
  return method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" + more + "\r\n";
}
std::string body_of(const std::string& response) {
  const std::size_t end = response.find("\r\n\r\n");
  return end == std::string::npos ? "" : response.substr(end + 4);
}

class HealthServerTest : public testing::Test {
 protected:
  HealthServerTest() {
    set(Status::Phase::training);
    server_ = std::make_unique<HealthServer>("127.0.0.1:0", board_);
  }
  void set(Status::Phase phase, std::int64_t not_after = kFarAway, const std::string& problem = "") {
    board_.change([&](Status& status) {
      status.phase = phase;
      status.certificate_not_after = not_after;
      status.last_problem = problem;
    });
  }
  std::unique_ptr<Peer> connect() const { return std::make_unique<Peer>(server_->port()); }
  std::string ask(const std::string& bytes) const {
    const auto peer = connect();
    peer->send(bytes);
    return peer->response();
  }
  /// The response to bytes after which the server must end the connection itself.
  std::string last_answer_to(const std::string& bytes) const {
    const auto peer = connect();
    peer->send(bytes);
    const std::string answer = peer->rest();
    EXPECT_TRUE(peer->ended_orderly()) << bytes.substr(0, 60);
    return answer;
  }
  void expect_alive() const { EXPECT_THAT(ask(request("/healthz")), StartsWith("HTTP/1.1 200 OK\r\n")); }

  StatusBoard board_;
  std::unique_ptr<HealthServer> server_;
};

TEST_F(HealthServerTest, SaysOkWhileTheProcessWorks) {
  const std::string response = ask(request("/healthz"));
  EXPECT_THAT(response, AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("\r\nContent-Type: text/plain; charset=utf-8\r\n"),
                              HasSubstr("\r\nX-Content-Type-Options: nosniff\r\n"), HasSubstr("\r\nCache-Control: no-store\r\n"),
                              HasSubstr("\r\nCross-Origin-Resource-Policy: same-origin\r\n"),
                              HasSubstr("\r\nContent-Security-Policy: default-src 'none'"), Not(HasSubstr("Access-Control"))));
  EXPECT_EQ(body_of(response), "ok\n");
  set(Status::Phase::starting);
  EXPECT_EQ(body_of(ask(request("/healthz"))), "ok\n");
  set(Status::Phase::failed, kFarAway, "the disk is full");
  const std::string failed = ask(request("/healthz"));
  EXPECT_THAT(failed, StartsWith("HTTP/1.1 503 Service Unavailable\r\n"));
  EXPECT_EQ(body_of(failed), "failed: the disk is full\n");
}

TEST_F(HealthServerTest, IsReadyWhenClientsCanBeAdmitted) {
  EXPECT_THAT(ask(request("/readyz")), AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("ready")));
  set(Status::Phase::starting);
  EXPECT_THAT(ask(request("/readyz")), AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("starting")));
  set(Status::Phase::waiting, 1'000'000'000);  // 2001
  EXPECT_THAT(ask(request("/readyz")), AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("certificate has expired")));
  set(Status::Phase::waiting);
  EXPECT_THAT(ask(request("/readyz")), StartsWith("HTTP/1.1 200"));
}

TEST_F(HealthServerTest, ShowsMetricsOfTheMoment) {
  board_.change([](Status& status) { status.connected = 12; });
  const std::string response = ask(request("/metrics"));
  EXPECT_THAT(response, AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n")));
  const auto samples = test::read_prometheus(body_of(response));
  EXPECT_EQ(samples.at("tributary_connected_clients"), 12);
  EXPECT_EQ(samples.at("tributary_phase{phase=\"training\"}"), 1);
  EXPECT_GT(samples.at("process_resident_memory_bytes"), 1e6);
  EXPECT_GT(samples.at("tributary_certificate_days_left"), 300'000);
  board_.change([](Status& status) { status.connected = 13; });
  EXPECT_EQ(test::read_prometheus(body_of(ask(request("/metrics?name=up")))).at("tributary_connected_clients"), 13);
}

TEST_F(HealthServerTest, AnswersHeadLikeGetWithoutABody) {
  const auto peer = connect();
  peer->send(request("/healthz"));
  const std::string whole = peer->response();
  peer->send(request("/healthz", "HEAD"));
  const std::string head = peer->response(true);
  EXPECT_EQ(head, whole.substr(0, whole.size() - 3));
  peer->send(request("/nothing", "HEAD", "Connection: close\r\n"));
  const std::string last = peer->rest();
  EXPECT_THAT(last, StartsWith("HTTP/1.1 404 Not Found\r\n"));
  EXPECT_EQ(body_of(last), "");
}

TEST_F(HealthServerTest, KnowsNothingElse) {
  for (const char* target : {"/", "/metrics/", "/healthz/..", "/%68ealthz", "//metrics", "/metricsx", "*", "/../etc/passwd", "http://a/metrics"}) {
    EXPECT_THAT(ask(request(target)), StartsWith("HTTP/1.1 404 Not Found\r\n")) << target;
  }
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "PRI", "get"}) {
    const std::string response = last_answer_to(request("/metrics", method));
    EXPECT_THAT(response, AllOf(StartsWith("HTTP/1.1 405 Method Not Allowed\r\n"), HasSubstr("\r\nAllow: GET, HEAD\r\n"),
                                HasSubstr("\r\nConnection: close\r\n")))
        << method;
  }
}

TEST_F(HealthServerTest, KeepsAConnectionForTheNextRequest) {
  const auto peer = connect();
  for (int i = 0; i < 5; ++i) {
    peer->send(request(i % 2 == 0 ? "/readyz" : "/nothing"));
    EXPECT_THAT(peer->response(), StartsWith(i % 2 == 0 ? "HTTP/1.1 200" : "HTTP/1.1 404"));
  }
  peer->send(request("/healthz", "GET", "Connection: close\r\n"));
  EXPECT_THAT(peer->rest(), AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("\r\nConnection: close\r\n")));
  EXPECT_THAT(last_answer_to("GET /healthz HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.0 200"));
}

TEST_F(HealthServerTest, AnswersPipelinedRequestsInOrder) {
  const auto peer = connect();
  std::string all;
  for (int i = 0; i < 300; ++i) all += request(i % 3 == 0 ? "/healthz" : i % 3 == 1 ? "/nothing" : "/readyz");
  std::thread sender([&] { peer->send(all + request("/healthz", "POST") + request("/healthz")); });
  for (int i = 0; i < 300; ++i) {
    const std::string response = peer->response();
    ASSERT_THAT(response, StartsWith(i % 3 == 1 ? "HTTP/1.1 404" : "HTTP/1.1 200")) << i;
    ASSERT_THAT(body_of(response), StartsWith(i % 3 == 0 ? "ok" : i % 3 == 1 ? "expected" : "ready")) << i;
  }
  EXPECT_THAT(peer->response(), StartsWith("HTTP/1.1 405"));
  EXPECT_EQ(peer->rest(), "") << "nothing after a refusal";
  sender.join();
}

TEST_F(HealthServerTest, TakesNoBody) {
  EXPECT_THAT(last_answer_to(request("/healthz", "GET", "Content-Length: 5\r\n") + "hello"), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(last_answer_to(request("/healthz", "GET", "Content-Length: 18446744073709551614\r\n")), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(last_answer_to(request("/healthz", "GET", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n"), StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(last_answer_to(request("/healthz", "POST", "Content-Length: 1000000\r\n") + std::string(100'000, 'x')), StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(ask(request("/healthz", "GET", "Content-Length: 0\r\n")), StartsWith("HTTP/1.1 200"));
  expect_alive();
}

TEST_F(HealthServerTest, RefusesAnEndlessHeader) {
  // Within the limit, and beyond it: by one field, by many, by the request line, and by one that never ends.
  EXPECT_THAT(ask(request("/healthz", "GET", "X: " + std::string(8000, 'x') + "\r\n")), StartsWith("HTTP/1.1 200"));
  const std::string many = [] {
    std::string fields;
    for (int i = 0; i < 2000; ++i) fields += "X-" + std::to_string(i) + ": y\r\n";
    return fields;
  }();
  for (const std::string& bytes : {request("/healthz", "GET", "X: " + std::string(8200, 'x') + "\r\n"), request("/healthz", "GET", many),
                                   request("/" + std::string(9000, 'a')), "GET / HTTP/1.1\r\nX: " + std::string(60'000, 'x')}) {
    EXPECT_THAT(last_answer_to(bytes), AllOf(StartsWith("HTTP/1.1 431"), HasSubstr("expected at most 8 KiB of header"))) << bytes.size();
  }
  const auto peer = connect();
  peer->send("GET /healthz HTTP/1.1\r\n");
  for (int megabytes = 0; megabytes < 64 && peer->send("X: " + std::string(1'000'000, 'x') + "\r\n");) ++megabytes;
  expect_alive();
}

TEST_F(HealthServerTest, RefusesWhatIsNoRequest) {
  std::string every_byte;
  for (int c = 255; c >= 0; --c) every_byte += static_cast<char>(c);
  // The start of a TLS 1.3 ClientHello record.
  const std::string hello("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
  for (const std::string& bytes :
       {std::string("GET /healthz\r\n\r\n"),  // HTTP/0.9
        std::string("GET /healthz HTTP/9.9\r\n\r\n"), std::string("GET  /healthz HTTP/1.1\r\n\r\n"), std::string("\r\n\r\n\r\n\r\n"),
        std::string("GET /healthz HTTP/1.1\r\nNo colon\r\n\r\n"), std::string("GET /healthz HTTP/1.1\r\n: empty\r\n\r\n"),
        std::string("GET /a\0b HTTP/1.1\r\n\r\n", 22), std::string("GET /healthz HTTP/1.1\r\nX: a\0b\r\n\r\n", 32),
        std::string("GET /healthz HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), std::string("GET /healthz HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        std::string("GET /healthz HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), every_byte, hello + every_byte,
        std::string(8000, '\0')}) {
    const auto peer = connect();
    peer->send(bytes);
    peer->finish_sending();
    EXPECT_THAT(peer->rest(), AnyOf(StartsWith("HTTP/1.1 400 Bad Request\r\n"), StartsWith("HTTP/1.1 413"))) << bytes.substr(0, 60);
  }
  expect_alive();
}

TEST_F(HealthServerTest, OutlivesPeersThatVanish) {
  for (const std::string& bytes : {std::string(), std::string("G"), std::string("GET /healthz HTTP/1.1\r\nHost"), request("/metrics")}) {
    connect()->send(bytes);  // and closed with whatever came back unread
    const auto half = connect();
    half->send(bytes);
    half->finish_sending();
    EXPECT_THAT(half->rest(), bytes.size() < 30 ? StartsWith("") : StartsWith("HTTP/1.1 200"));
  }
  expect_alive();
}

TEST_F(HealthServerTest, EndsAConnectionThatTakesTooLong) {
  // The limit holds for a request as a whole. Were it begun again with each byte, this would go on for 2 hours.
  const auto silent = connect();
  const auto idle = connect();
  idle->send(request("/healthz"));
  EXPECT_THAT(idle->response(), StartsWith("HTTP/1.1 200"));
  const auto slow = connect();
  slow->send("GET /healthz HTTP/1.1\r\nX: ");
  for (int i = 0; i < 7000 && slow->silent_for(1000); ++i) {
    slow->send("x");
    expect_alive();
  }
  EXPECT_EQ(slow->rest(), "");
  EXPECT_EQ(silent->rest(), "");
  EXPECT_EQ(idle->rest(), "");
}

TEST_F(HealthServerTest, LetsTheRestWaitWhenAllPlacesAreTaken) {
  std::vector<std::unique_ptr<Peer>> peers;
  for (int i = 0; i < 64; ++i) {
    peers.push_back(connect());
    peers.back()->send(request("/healthz"));
    ASSERT_THAT(peers.back()->response(), StartsWith("HTTP/1.1 200"));
  }
  const auto waiting = connect();
  waiting->send(request("/readyz"));
  EXPECT_TRUE(waiting->silent_for(50)) << "it has no place yet";
  peers[10].reset();
  EXPECT_THAT(waiting->response(), StartsWith("HTTP/1.1 200"));
}

TEST_F(HealthServerTest, EndsWithConnectionsInEveryState) {
  std::vector<std::unique_ptr<Peer>> peers;
  for (int i = 0; i < 70; ++i) {
    peers.push_back(connect());
    if (i % 3 != 0) peers.back()->send(i % 3 == 1 ? "GET /heal" : request("/metrics"));
  }
  const std::uint16_t port = server_->port();
  server_.reset();
  // The port is free again, and whoever listens there next is on his own.
  HealthServer next("127.0.0.1:" + std::to_string(port), board_);
  EXPECT_EQ(next.port(), port);
  Peer peer(port);
  peer.send(request("/healthz"));
  EXPECT_THAT(peer.response(), StartsWith("HTTP/1.1 200"));
}

TEST_F(HealthServerTest, AnswersManyAtATimeWhileTheStatusChanges) {
  std::atomic<int> good = 0;
  std::vector<std::thread> scrapers;
  for (int i = 0; i < 8; ++i) {
    scrapers.emplace_back([&] {
      const auto peer = connect();
      for (int k = 0; k < 25; ++k) {
        peer->send(request("/metrics"));
        // Both are changed at once, so nobody may see one without the other.
        const auto samples = test::read_prometheus(body_of(peer->response()));
        if (samples.at("tributary_round") == samples.at("tributary_connected_clients")) ++good;
      }
    });
  }
  for (std::uint32_t round = 1; good < 200 && round < 1'000'000; ++round) {
    board_.change([&](Status& status) {
      status.round = round;
      status.connected = round;
    });
    std::this_thread::yield();
  }
  for (std::thread& scraper : scrapers) scraper.join();
  EXPECT_EQ(good, 200);
}

TEST_F(HealthServerTest, RefusesAnAddressThatItCannotHave) {
  const auto listen = [this](const std::string& address) {
    return error_of([&] { HealthServer(address, board_); });
  };
  EXPECT_THAT(listen("9464"), AllOf(StartsWith("health.listen: got \"9464\""), HasSubstr("expected a host and a port")));
  EXPECT_THAT(listen("::1:9464"), HasSubstr("in brackets"));
  EXPECT_THROW(HealthServer("nonsense", board_), ConfigError);
  // TEST-NET-1 (RFC 5737) is nobody's address.
  EXPECT_THAT(listen("192.0.2.1:0"), HasSubstr("health.listen: got \"192.0.2.1:0\", expected an address of this machine"));
  EXPECT_THROW(HealthServer("192.0.2.1:0", board_), ConfigError);
  const std::string taken = "127.0.0.1:" + std::to_string(server_->port());
  EXPECT_THAT(listen(taken), AllOf(HasSubstr("health.listen: cannot listen on " + taken), HasSubstr("choose another port")));
  EXPECT_THROW(HealthServer(taken, board_), IoError);
  expect_alive();
}

}  // namespace
}  // namespace fl
