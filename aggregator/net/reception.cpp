#include "aggregator/net/reception.h"

#include <sys/stat.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <ctime>
#include <utility>

#include "fl_core/base/error.h"

namespace fl {
namespace {

using boost::asio::ip::tcp;

constexpr auto kTick = std::chrono::milliseconds(200);
constexpr std::uint64_t kTicksPerSecond = 5;

double unix_now() { return static_cast<double>(std::time(nullptr)); }

/// Changes when a file is replaced or written to.
std::string stamp_of(const TlsFiles& files) {
  std::string stamp;
  for (const std::string* path : {&files.certificate, &files.key, &files.authority, &files.revocations}) {
    struct stat facts {};
    if (::stat(path->c_str(), &facts) != 0) continue;
    for (const long part : {static_cast<long>(facts.st_ino), static_cast<long>(facts.st_size), static_cast<long>(facts.st_mtim.tv_sec), static_cast<long>(facts.st_mtim.tv_nsec)}) {
      stamp += std::to_string(part) + ":";
    }
  }
  return stamp;
}

tcp::acceptor open_port(boost::asio::io_context& io, const std::string& host, std::uint16_t port) {
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(host == "localhost" ? "127.0.0.1" : host, error);
  if (error) throw ConfigError("listen: got \"" + host + "\", expected an IP address of this machine, such as 0.0.0.0, 127.0.0.1 or ::");
  const tcp::endpoint endpoint(address, port);
  tcp::acceptor acceptor(io);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(4096, error);
  if (error) {
    throw IoError("cannot listen on " + host + ":" + std::to_string(port) + ": " + error.message() + "; choose another address in 'listen', or stop the program that has it");
  }
  return acceptor;
}

}  // namespace

Reception::Reception(boost::asio::io_context& io, ReceptionOptions options, Desk& desk, StatusBoard& status, std::function<Seconds()> now)
    : io_(io),
      options_(std::move(options)),
      desk_(desk),
      status_(status),
      now_(std::move(now)),
      host_{desk_, options_.session, now_, unix_now, [this](const PeerIdentity& peer) { return screen(peer); },
            [this](const Session& session) { welcomed(session); },
            [this](const std::string& identity, const Refused& refused) { on_refused(identity, refused); }},
      context_(std::make_shared<const TlsContext>(TlsRole::server, options_.tls)),
      acceptor_(open_port(io, options_.host, options_.port)),
      port_(acceptor_.local_endpoint().port()),
      timer_(io),
      stamp_(stamp_of(options_.tls)) {
  if (context_->revocation_number() < options_.revocation_floor) {
    throw ConfigError(options_.tls.revocations + ": revocation list number " + std::to_string(context_->revocation_number()) + ", but this run has seen number " +
                      std::to_string(options_.revocation_floor) + "; put the newest list there");
  }
  options_.revocation_floor = context_->revocation_number();
}

void Reception::start() {
  boost::asio::co_spawn(io_, accept_loop(), [](const std::exception_ptr& error) {
    if (error) std::rethrow_exception(error);
  });
  publish();
  tick();
}

boost::asio::awaitable<void> Reception::accept_loop() {
  while (!stopping_) {
    boost::system::error_code error;
    tcp::socket socket = co_await acceptor_.async_accept(boost::asio::redirect_error(boost::asio::use_awaitable, error));
    if (stopping_) break;
    if (!error) {
      receive(std::move(socket));
      continue;
    }
    // Out of file descriptors, most likely: those who are in go on, and the door opens again when some have left.
    status_.change([&](Status& s) { s.last_problem = "cannot accept connections: " + error.message(); });
    boost::asio::steady_timer pause(io_, kTick);
    co_await pause.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, error));
  }
}

void Reception::receive(tcp::socket socket) {
  boost::system::error_code error;
  const auto remote = socket.remote_endpoint(error);
  if (error) return;
  const std::string address = remote.address().to_string();
  const auto arriving = arriving_.find(address);
  const bool crowd = arriving != arriving_.end() && arriving->second >= options_.handshakes_per_address;
  if (crowd || guests_.size() >= options_.sessions) {
    status_.change([](Status& s) { ++s.refused; });
    return;  // closes the socket: an answer would cost a handshake
  }
  ++arriving_[address];
  const auto session = std::make_shared<Session>(std::move(socket), context_, host_);
  guests_[session.get()] = Guest{session, address};
  boost::asio::co_spawn(io_, session->run(), [this, session](const std::exception_ptr& problem) {
    ended(*session);
    if (problem) std::rethrow_exception(problem);
  });
}

void Reception::has_arrived(std::string& address) {
  const auto found = arriving_.find(address);
  if (found != arriving_.end() && --found->second == 0) arriving_.erase(found);
  address.clear();
}

void Reception::welcomed(const Session& session) {
  has_arrived(guests_.at(&session).arriving_from);
  status_.change([](Status& s) { ++s.sessions_total; });
}

void Reception::ended(const Session& session) {
  has_arrived(guests_.at(&session).arriving_from);
  bytes_in_closed_ += session.counters().bytes_in;
  bytes_out_closed_ += session.counters().bytes_out;
  if (!session.handshaken()) {
    status_.change([&](Status& s) {
      ++s.handshakes_failed;
      if (!session.trouble().empty()) s.last_problem = session.remote() + ": " + session.trouble();
    });
  }
  guests_.erase(&session);
  if (stopping_ && guests_.empty() && done_) std::exchange(done_, nullptr)();
}

std::vector<std::shared_ptr<Session>> Reception::sessions() const {
  std::vector<std::shared_ptr<Session>> all;
  for (const auto& [key, guest] : guests_) all.push_back(guest.session);
  return all;
}

std::optional<Refused> Reception::screen(const PeerIdentity& peer) {
  if (context_->revoked(peer.serial)) return Refused{Refusal::revoked, "the certificate of '" + peer.name + "' was revoked", 0};
  const auto paused = paused_until_.find(peer.name);
  if (paused == paused_until_.end()) return std::nullopt;
  const Seconds left = paused->second - now_();
  if (left > 0) return Refused{Refusal::flood, "'" + peer.name + "' sent too much; it may come back later", static_cast<std::uint32_t>(left) + 1};
  paused_until_.erase(paused);
  return std::nullopt;
}

void Reception::on_refused(const std::string& identity, const Refused& refused) {
  if (refused.code == Refusal::flood && !paused_until_.contains(identity)) paused_until_[identity] = now_() + options_.flood_pause_s;
  status_.change([&](Status& s) {
    ++s.refused;
    s.last_problem = identity + " was refused: " + refused.reason;
  });
}

void Reception::tick() {
  desk_.tick(now_());
  if (++ticks_ % kTicksPerSecond == 0) {
    reload_when_changed();
    publish();
  }
  if (stopping_) return;
  timer_.expires_after(kTick);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) tick();
  });
}

void Reception::publish() {
  std::uint64_t in = bytes_in_closed_;
  std::uint64_t out = bytes_out_closed_;
  for (const auto& session : sessions()) {
    in += session->counters().bytes_in;
    out += session->counters().bytes_out;
  }
  status_.change([&](Status& s) {
    s.bytes_in = in;
    s.bytes_out = out;
    s.uploads_waiting = desk_.uploads_waiting();
    s.certificate_not_after = context_->not_after();
    s.revocation_number = context_->revocation_number();
  });
}

void Reception::reload_when_changed() {
  const std::string stamp = stamp_of(options_.tls);
  if (stamp == stamp_) return;
  stamp_ = stamp;
  reload();
}

void Reception::reload() {
  try {
    auto fresh = std::make_shared<const TlsContext>(TlsRole::server, options_.tls);
    if (fresh->revocation_number() < options_.revocation_floor) {
      throw ConfigError(options_.tls.revocations + ": an older revocation list (number " + std::to_string(fresh->revocation_number()) + ") than the one in use (" +
                        std::to_string(options_.revocation_floor) + ")");
    }
    options_.revocation_floor = fresh->revocation_number();
    context_ = std::move(fresh);
    end_revoked();
  } catch (const Error& error) {
    // A file may be half written, or wrong: what was read before stays in force.
    status_.change([&](Status& s) { s.last_problem = std::string("certificates not read again: ") + error.what(); });
  }
}

void Reception::end_revoked() {
  for (const auto& session : sessions()) {
    if (!session->handshaken() || !context_->revoked(session->peer().serial)) continue;
    const Refused refused{Refusal::revoked, "the certificate of '" + session->peer().name + "' was revoked", 0};
    on_refused(session->peer().name, refused);
    session->end(encode(refused));
    // It will not come back: nobody needs to wait for its answer.
    desk_.goodbye(*session, unix_now(), now_());
  }
}

void Reception::stop(const Goodbye& last, std::chrono::milliseconds limit, std::function<void()> done) {
  if (guests_.empty()) done();
  else done_ = std::move(done);
  if (std::exchange(stopping_, true)) return;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  for (const auto& session : sessions()) {
    if (session->welcomed()) {
      session->end(encode(last));
    } else {
      session->abort();
    }
  }
  auto deadline = std::make_shared<boost::asio::steady_timer>(io_, limit);
  deadline->async_wait([this, deadline](const boost::system::error_code&) {
    for (const auto& session : sessions()) session->abort();
  });
}

}  // namespace fl
