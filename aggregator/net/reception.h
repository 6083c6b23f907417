#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "aggregator/net/session.h"
#include "aggregator/status.h"
#include "fl_core/net/tls_context.h"

namespace fl {

struct ReceptionOptions {
  std::string host = "0.0.0.0";
  std::uint16_t port = 0;                 ///< 0: any free one
  TlsFiles tls;
  SessionLimits session;
  std::size_t sessions = 20'000;          ///< at the same time
  std::size_t handshakes_per_address = 256;  ///< connections of one address that have not been welcomed yet
  double flood_pause_s = 60;              ///< how long an identity stays out after a flood
  std::int64_t revocation_floor = -1;     ///< the highest revocation list number seen so far: older lists are refused
};

/// Opens the door: accepts connections, keeps the sessions, reads certificates and the revocation list again when their files
/// change, and ends the sessions of revoked clients within two seconds. Lives on the I/O thread.
class Reception {
 public:
  /// Opens the port. Throws ConfigError for certificates, IoError when the address cannot be had.
  Reception(boost::asio::io_context& io, ReceptionOptions options, Desk& desk, StatusBoard& status, std::function<Seconds()> now);

  std::uint16_t port() const { return port_; }
  std::int64_t revocation_number() const { return context_->revocation_number(); }
  void start();
  /// No new connections; every session gets `last` and is closed, at the latest after `limit`. Then calls `done`.
  void stop(const Goodbye& last, std::chrono::milliseconds limit, std::function<void()> done);
  /// Reads the TLS files again now.
  void reload();

 private:
  boost::asio::awaitable<void> accept_loop();
  void receive(boost::asio::ip::tcp::socket socket);
  void welcomed(const Session& session);
  void ended(const Session& session);
  void has_arrived(std::string& address);
  void tick();
  void publish();
  void reload_when_changed();
  void end_revoked();
  /// The sessions of this moment: ending one changes guests_.
  std::vector<std::shared_ptr<Session>> sessions() const;
  std::optional<Refused> screen(const PeerIdentity& peer);
  void on_refused(const std::string& identity, const Refused& refused);

  boost::asio::io_context& io_;
  ReceptionOptions options_;
  Desk& desk_;
  StatusBoard& status_;
  std::function<Seconds()> now_;
  SessionHost host_;
  std::shared_ptr<const TlsContext> context_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::uint16_t port_ = 0;
  boost::asio::steady_timer timer_;
  std::uint64_t ticks_ = 0;
  struct Guest {
    std::shared_ptr<Session> session;
    std::string arriving_from;  ///< its address while it has not been welcomed
  };
  std::map<const Session*, Guest> guests_;
  std::map<std::string, std::size_t> arriving_;      ///< not welcomed yet, by address
  std::map<std::string, Seconds> paused_until_;      ///< flooders
  std::string stamp_;                                ///< of the TLS files
  std::uint64_t bytes_in_closed_ = 0;
  std::uint64_t bytes_out_closed_ = 0;
  bool stopping_ = false;
  std::function<void()> done_;
};

}  // namespace fl
