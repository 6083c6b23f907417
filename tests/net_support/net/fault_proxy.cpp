#include "tests/net_support/net/fault_proxy.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <future>
#include <list>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <vector>

#include "fl_core/base/rng.h"
#include "tests/net_support/net/fault_script.h"

namespace fl::test {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;
constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t kPieceBytes = 64 * 1024;

Clock::duration milliseconds(double count) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(count));
}

/// The end of a direction after a number of bytes, and how it ends.
struct End {
  enum class Kind : std::uint8_t { reset, cut, half_open };
  Kind kind = Kind::reset;
  std::uint64_t after = 0;
};

/// All that the rules do to one direction of one connection.
struct Toxics {
  double delay_ms = 0;
  double jitter_ms = 0;
  std::optional<double> bandwidth_bytes_s;
  std::size_t slice_bytes = kPieceBytes;
  std::optional<End> end;
  std::vector<std::uint64_t> corrupt;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> duplicate;  ///< from, count
  double slow_close_ms = 0;

  void add(const FaultRule& rule) {
    delay_ms += rule.delay_ms;
    jitter_ms += rule.jitter_ms;
    if (rule.bandwidth_bytes_s) bandwidth_bytes_s = std::min(*rule.bandwidth_bytes_s, bandwidth_bytes_s.value_or(*rule.bandwidth_bytes_s));
    if (rule.slice_bytes > 0) slice_bytes = std::min(slice_bytes, static_cast<std::size_t>(rule.slice_bytes));
    add_end(End::Kind::reset, rule.reset_after_bytes);
    add_end(End::Kind::cut, rule.cut_after_bytes);
    add_end(End::Kind::half_open, rule.half_open_after_bytes);
    if (rule.corrupt_byte) corrupt.push_back(static_cast<std::uint64_t>(*rule.corrupt_byte));
    if (!rule.duplicate_bytes.empty()) {
      duplicate.emplace_back(static_cast<std::uint64_t>(rule.duplicate_bytes[0]), static_cast<std::uint64_t>(rule.duplicate_bytes[1]));
    }
    slow_close_ms = std::max(slow_close_ms, rule.slow_close_ms);
  }

  void add_end(End::Kind kind, const std::optional<std::int64_t>& after) {
    if (!after) return;
    const auto bytes = static_cast<std::uint64_t>(*after);
    if (!end || bytes < end->after) end = End{kind, bytes};
  }
};

/// Flips and repeats bytes of one direction.
class Spoiler {
 public:
  Spoiler(const Toxics& toxics, Rng& rng) : toxics_(toxics), rng_(rng), held_(toxics.duplicate.size()) {}

  /// The piece that begins with byte `at` of the direction, as it is passed on.
  std::vector<char> spoil(std::span<const char> piece, std::uint64_t at, FaultCounts& counts) {
    std::vector<char> flipped(piece.begin(), piece.end());
    for (const std::uint64_t place : toxics_.corrupt) {
      if (place < at || place >= at + piece.size()) continue;
      flipped[place - at] = static_cast<char>(flipped[place - at] ^ (1 << rng_.below(8)));
      ++counts.corrupted;
    }
    if (held_.empty()) return flipped;
    std::vector<char> bytes;
    for (std::size_t i = 0; i < flipped.size(); ++i) {
      bytes.push_back(flipped[i]);
      for (std::size_t k = 0; k < held_.size(); ++k) {
        const auto& [first, count] = toxics_.duplicate[k];
        if (at + i < first || held_[k].size() == count) continue;
        held_[k].push_back(flipped[i]);
        if (held_[k].size() < count) continue;
        bytes.insert(bytes.end(), held_[k].begin(), held_[k].end());
        counts.duplicated += count;
      }
    }
    return bytes;
  }

 private:
  const Toxics& toxics_;
  Rng& rng_;
  std::vector<std::vector<char>> held_;  ///< of each range that is to pass twice, what has passed once
};

/// One connection: the socket of the client and the one to the server.
struct Link {
  Link(tcp::socket accepted, const asio::any_io_executor& executor, Rng draws)
      : client(std::move(accepted)), server(executor), rng(draws) {}

  void reset() {
    for (tcp::socket* socket : {&client, &server}) {
      boost::system::error_code ignored;
      // Without lingering the system sends a reset in place of an orderly end.
      socket->set_option(asio::socket_base::linger(true, 0), ignored);
      socket->close(ignored);
    }
  }

  tcp::socket client;
  tcp::socket server;
  Toxics up;
  Toxics down;
  Rng rng;
  bool silent = false;  ///< half-open: nothing passes, nobody is told
  bool cut = false;     ///< what still comes is swallowed
};
using SharedLink = std::shared_ptr<Link>;

}  // namespace

class FaultProxy::Relay {
 public:
  Relay(std::uint16_t target, FaultScript script)
      : acceptor_(context_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)),
        port_(acceptor_.local_endpoint().port()),
        resumed_(context_, Clock::time_point::max()),
        target_(target),
        script_(std::move(script)) {
    asio::co_spawn(context_, accept(), [](const std::exception_ptr&) {});
    thread_ = std::thread([this] { context_.run(); });
  }

  ~Relay() {
    asio::post(context_, [this] { context_.stop(); });
    thread_.join();
  }

  std::uint16_t port() const { return port_; }

  /// Runs `action` on the relay's thread and waits for it.
  template <class Action>
  void call(Action action) {
    const auto done = std::make_shared<std::promise<void>>();
    asio::post(context_, [this, done, &action] {
      action(*this);
      done->set_value();
    });
    done->get_future().wait();
  }

  void set_script(FaultScript script) { script_ = std::move(script); }
  void set_target(std::uint16_t target) { target_ = target; }
  void set_paused(bool paused) {
    paused_ = paused;
    if (!paused) resumed_.cancel();
  }
  void reset_all() {
    for (const SharedLink& link : links_) link->reset();
  }
  FaultCounts counts() const { return counts_; }

 private:
  asio::awaitable<void> accept() {
    for (;;) {
      auto [error, socket] = co_await acceptor_.async_accept(kNoThrow);
      if (error) {
        co_await sleep(milliseconds(1));  // no descriptors left: one will come back
        continue;
      }
      const std::uint64_t number = counts_.connections++;
      const Rng draws(static_cast<std::uint64_t>(script_.seed), Purpose::device, number, script_.rules.size());
      const auto link = std::make_shared<Link>(std::move(socket), context_.get_executor(), draws);
      if (strike(*link, number)) {
        ++counts_.refused;
        link->reset();
        continue;
      }
      links_.push_back(link);
      asio::co_spawn(context_, relay(link), [this, link](const std::exception_ptr&) {
        if (!link->silent) links_.remove(link);  // a half-open one stays until close_all()
      });
    }
  }

  /// Puts the rules' toxics on a connection. Returns whether it is refused.
  bool strike(Link& link, std::uint64_t number) {
    bool refused = false;
    for (std::size_t i = 0; i < script_.rules.size(); ++i) {
      const FaultRule& rule = script_.rules[i];
      if (rule.connection && static_cast<std::uint64_t>(*rule.connection) != number) continue;
      // Keyed by rule and connection: another rule or another order of events changes no draw.
      if (Rng(static_cast<std::uint64_t>(script_.seed), Purpose::device, number, i).uniform() >= rule.probability) continue;
      refused = refused || rule.refuse;
      if (rule.direction != "down") link.up.add(rule);
      if (rule.direction != "up") link.down.add(rule);
    }
    return refused;
  }

  asio::awaitable<void> relay(SharedLink link) {
    co_await until_resumed();
    const tcp::endpoint target(asio::ip::address_v4::loopback(), target_);
    auto [error] = co_await link->server.async_connect(target, kNoThrow);
    if (error) {
      ++counts_.unreachable;
      link->reset();
      co_return;
    }
    boost::system::error_code ignored;
    link->client.set_option(tcp::no_delay(true), ignored);
    link->server.set_option(tcp::no_delay(true), ignored);
    const auto finished = std::make_shared<int>(0);
    const auto wake = std::make_shared<asio::steady_timer>(context_, Clock::time_point::max());
    const auto count = [finished, wake](const std::exception_ptr&) {
      if (++*finished == 2) wake->cancel();
    };
    asio::co_spawn(context_, pump(link, true), count);
    asio::co_spawn(context_, pump(link, false), count);
    while (*finished < 2) co_await wake->async_wait(kNoThrow);
  }

  /// Moves bytes in one direction until that direction ends.
  asio::awaitable<void> pump(SharedLink link, bool up) {
    tcp::socket& from = up ? link->client : link->server;
    tcp::socket& to = up ? link->server : link->client;
    const Toxics toxics = up ? link->up : link->down;
    Spoiler spoiler(toxics, link->rng);
    std::vector<char> piece(toxics.slice_bytes);
    std::uint64_t passed = 0;
    for (;;) {
      if (toxics.end && passed == toxics.end->after) finish(*link, toxics.end->kind);
      if (link->silent) co_return;
      const std::uint64_t left = toxics.end && passed < toxics.end->after ? toxics.end->after - passed : piece.size();
      const auto room = asio::buffer(piece.data(), std::min<std::uint64_t>(piece.size(), left));
      auto [error, size] = co_await from.async_read_some(room, kNoThrow);
      if (link->silent) co_return;
      if (error == asio::error::eof) {
        if (toxics.slow_close_ms > 0) co_await sleep(milliseconds(toxics.slow_close_ms));
        boost::system::error_code ignored;
        to.shutdown(tcp::socket::shutdown_send, ignored);
        co_return;
      }
      if (error) {
        link->reset();
        co_return;
      }
      if (link->cut) continue;
      co_await hold(*link, toxics, size);
      const std::vector<char> bytes = spoiler.spoil(std::span(piece.data(), size), passed, counts_);
      auto [refused, written] = co_await asio::async_write(to, asio::buffer(bytes), kNoThrow);
      (up ? counts_.bytes_up : counts_.bytes_down) += written;
      if (refused && !link->cut) {
        link->reset();
        co_return;
      }
      passed += size;
    }
  }

  /// The waiting that a piece of `size` bytes has to do.
  asio::awaitable<void> hold(Link& link, const Toxics& toxics, std::size_t size) {
    double wait_ms = toxics.delay_ms;
    if (toxics.jitter_ms > 0) wait_ms += toxics.jitter_ms * link.rng.uniform();
    if (toxics.bandwidth_bytes_s) wait_ms += 1000 * static_cast<double>(size) / *toxics.bandwidth_bytes_s;
    if (wait_ms > 0) co_await sleep(milliseconds(wait_ms));
    co_await until_resumed();
  }

  void finish(Link& link, End::Kind kind) {
    switch (kind) {
      case End::Kind::reset:
        ++counts_.resets;
        link.reset();
        break;
      case End::Kind::half_open:
        ++counts_.half_open;
        link.silent = true;
        break;
      case End::Kind::cut:
        if (link.cut) return;
        ++counts_.cuts;
        link.cut = true;
        boost::system::error_code ignored;
        link.client.shutdown(tcp::socket::shutdown_send, ignored);
        link.server.shutdown(tcp::socket::shutdown_send, ignored);
        break;
    }
  }

  asio::awaitable<void> sleep(Clock::duration duration) {
    asio::steady_timer timer(context_, duration);
    co_await timer.async_wait(kNoThrow);
  }

  asio::awaitable<void> until_resumed() {
    while (paused_) co_await resumed_.async_wait(kNoThrow);
  }

  asio::io_context context_{1};
  tcp::acceptor acceptor_;
  std::uint16_t port_;
  asio::steady_timer resumed_;
  std::uint16_t target_;
  FaultScript script_;
  bool paused_ = false;
  FaultCounts counts_;
  std::list<SharedLink> links_;
  std::thread thread_;
};

FaultProxy::FaultProxy(std::uint16_t target) : FaultProxy(target, nlohmann::json::object()) {}
FaultProxy::FaultProxy(std::uint16_t target, const nlohmann::json& script)
    : relay_(std::make_unique<Relay>(target, parse_fault_script(script, "fault script"))) {}
FaultProxy::~FaultProxy() = default;

std::uint16_t FaultProxy::port() const { return relay_->port(); }

void FaultProxy::change(const nlohmann::json& script) {
  FaultScript parsed = parse_fault_script(script, "fault script");
  relay_->call([&](Relay& relay) { relay.set_script(std::move(parsed)); });
}

void FaultProxy::retarget(std::uint16_t target) {
  relay_->call([&](Relay& relay) { relay.set_target(target); });
}

void FaultProxy::pause() {
  relay_->call([](Relay& relay) { relay.set_paused(true); });
}

void FaultProxy::go_on() {
  relay_->call([](Relay& relay) { relay.set_paused(false); });
}

void FaultProxy::close_all() {
  relay_->call([](Relay& relay) { relay.reset_all(); });
}

FaultCounts FaultProxy::counts() const {
  FaultCounts counts;
  relay_->call([&](Relay& relay) { counts = relay.counts(); });
  return counts;
}

}  // namespace fl::test
