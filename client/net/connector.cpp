#include "client/net/connector.h"

#include <boost/asio/ip/address.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <memory>

#include "fl_core/net/framed_stream.h"

namespace fl {
namespace {

namespace asio = boost::asio;
using asio::awaitable;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::chrono::seconds kLookUpLimit{15};
constexpr std::chrono::seconds kConnectLimit{10};

}  // namespace

awaitable<Connector::Endpoints> Connector::look_up(const std::string& host, std::uint16_t port) {
  error_code error;
  Endpoints found;
  const asio::ip::address address = asio::ip::make_address(host, error);
  if (!error) {
    found.emplace_back(address, port);
    co_return found;
  }
  struct Result {
    error_code error = asio::error::timed_out;
    Endpoints found;
  };
  const auto result = std::make_shared<Result>();
  // Not awaited itself: the system's look-up cannot be cancelled, and may take longer than anybody wants to wait.
  looking_up_ = true;
  timer_.expires_after(kLookUpLimit);
  resolver_.async_resolve(host, std::to_string(port), [this, result](const error_code& failed, const tcp::resolver::results_type& entries) {
    looking_up_ = false;
    result->error = failed;
    for (const auto& entry : entries) result->found.push_back(entry.endpoint());
    timer_.cancel();
  });
  co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, error));
  if (result->error) throw LinkError("cannot find the address of " + host + ": " + result->error.message());
  co_return result->found;
}

awaitable<tcp::socket> Connector::connect(const std::string& host, std::uint16_t port) {
  error_code error = asio::error::host_not_found;
  Endpoints endpoints;
  if (!stopped_) endpoints = co_await look_up(host, port);
  for (const tcp::endpoint& endpoint : endpoints) {
    if (stopped_) break;
    tcp::socket socket(io_);
    socket_ = &socket;
    const auto waiting = std::make_shared<bool>(true);
    timer_.expires_after(kConnectLimit);
    timer_.async_wait([this, waiting](const error_code& cancelled) {
      error_code ignored;
      if (!cancelled && *waiting) socket_->close(ignored);
    });
    co_await socket.async_connect(endpoint, asio::redirect_error(asio::use_awaitable, error));
    *waiting = false;
    socket_ = nullptr;
    timer_.cancel();
    if (!error) co_return socket;
    if (error == asio::error::operation_aborted) error = asio::error::timed_out;
  }
  throw LinkError("cannot connect to " + host + " port " + std::to_string(port) + ": " + (stopped_ ? "the client stops" : error.message()));
}

void Connector::stop() {
  stopped_ = true;
  error_code ignored;
  if (socket_ != nullptr) socket_->close(ignored);
  timer_.cancel();
  resolver_.cancel();
}

}  // namespace fl
