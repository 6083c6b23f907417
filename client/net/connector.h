#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace fl {

/// Finds a server and connects to it, every step within a limit. One I/O thread; one attempt at a time.
class Connector {
 public:
  explicit Connector(boost::asio::io_context& io) : io_(io), timer_(io), resolver_(io) {}

  /// Tries the host's addresses in turn. Throws LinkError that says what went wrong with the last.
  boost::asio::awaitable<boost::asio::ip::tcp::socket> connect(const std::string& host, std::uint16_t port);
  /// Ends the attempt, and all later ones, with LinkError.
  void stop();
  /// The system is looking up a name: that cannot be cancelled, only left alone.
  bool looking_up() const { return looking_up_; }

 private:
  using Endpoints = std::vector<boost::asio::ip::tcp::endpoint>;
  boost::asio::awaitable<Endpoints> look_up(const std::string& host, std::uint16_t port);

  boost::asio::io_context& io_;
  boost::asio::steady_timer timer_;
  boost::asio::ip::tcp::resolver resolver_;
  boost::asio::ip::tcp::socket* socket_ = nullptr;  ///< that is being connected
  bool looking_up_ = false;
  bool stopped_ = false;
};

}  // namespace fl
