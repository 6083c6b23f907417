#include "aggregator/web/health_server.h"

#include <pthread.h>

#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <csignal>
#include <exception>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "fl_core/base/error.h"
#include "fl_core/config/address.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;
using Response = http::response<http::string_body>;

constexpr const char* kWhere = "health.listen";
constexpr std::size_t kConnections = 64;
constexpr std::uint32_t kHeaderBytes = 8 * 1024;
constexpr std::chrono::seconds kTimeLimit{5};
/// After an accept that failed for want of file descriptors or memory.
constexpr std::chrono::milliseconds kPause{200};

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

Response reply(http::status status, const std::string& line) {
  Response response(status, 11);
  response.set(http::field::content_type, "text/plain; charset=utf-8");
  response.set(http::field::cache_control, "no-store");
  // For browsers: whatever a label holds it is not a page, and no other site may read or embed it.
  response.set("X-Content-Type-Options", "nosniff");
  response.set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
  response.set("Cross-Origin-Resource-Policy", "same-origin");
  response.body() = line + "\n";
  return response;
}

Response metrics(const Status& status) {
  Response response = reply(http::status::ok, "");
  response.set(http::field::content_type, "text/plain; version=0.0.4; charset=utf-8");
  response.body() = prometheus_text(status, process_usage(), now());
  return response;
}

Response health(const Status& status) {
  if (status.phase != Status::Phase::failed) return reply(http::status::ok, "ok");
  return reply(http::status::service_unavailable, "failed" + (status.last_problem.empty() ? "" : ": " + status.last_problem));
}

Response readiness(const Status& status) {
  const std::optional<std::string> reason = unready_reason(status, now());
  return reason ? reply(http::status::service_unavailable, *reason) : reply(http::status::ok, "ready");
}

Response refusal(http::status status, const std::string& line) {
  Response response = reply(status, line);
  response.keep_alive(false);
  return response;
}

/// The answer to a request that was read without error.
Response answer(const http::request_parser<http::empty_body>& parser, const StatusBoard& board) {
  const auto& request = parser.get();
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    Response response = refusal(http::status::method_not_allowed, "expected GET or HEAD");
    response.set(http::field::allow, "GET, HEAD");
    return response;
  }
  if (parser.chunked() || parser.content_length().value_or(0) != 0) {
    return refusal(http::status::payload_too_large, "expected a request without a body");
  }
  const std::string target(request.target().substr(0, request.target().find('?')));
  Response response = target == "/metrics"   ? metrics(board.read())
                      : target == "/healthz" ? health(board.read())
                      : target == "/readyz"  ? readiness(board.read())
                                             : reply(http::status::not_found, "expected /healthz, /readyz or /metrics");
  response.version(request.version());
  response.keep_alive(request.keep_alive());
  return response;
}

/// The answer to bytes that are no request; nothing where nobody waits for one.
std::optional<Response> answer_to(const error_code& error) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return refusal(http::status::request_header_fields_too_large, "expected at most 8 KiB of header");
  }
  const bool malformed = error.category() == http::make_error_code(http::error::bad_method).category() &&
                         error != http::error::end_of_stream && error != http::error::partial_message;
  if (malformed) return refusal(http::status::bad_request, "expected an HTTP/1.1 request");
  return std::nullopt;
}

/// Closes so that the peer gets what was written: closing at once, with bytes of its own unread, would reset the connection.
asio::awaitable<void> close_gently(beast::tcp_stream& stream) {
  error_code error;
  stream.socket().shutdown(tcp::socket::shutdown_send, error);
  stream.expires_after(kTimeLimit);
  std::array<char, 4096> ignored{};
  const asio::mutable_buffer space(ignored.data(), ignored.size());
  for (std::size_t bytes = 0; !error && bytes < 16 * kHeaderBytes;) {
    bytes += co_await stream.async_read_some(space, asio::redirect_error(asio::use_awaitable, error));
  }
}

/// One connection, request after request.
asio::awaitable<void> serve(tcp::socket socket, const StatusBoard& board) {
  beast::tcp_stream stream(std::move(socket));
  beast::flat_buffer buffer(kHeaderBytes);
  for (bool again = true; again;) {
    http::request_parser<http::empty_body> parser;
    parser.header_limit(kHeaderBytes);
    parser.body_limit(boost::none);  // none is read, and answer() refuses each
    stream.expires_after(kTimeLimit);  // for all of the request and the answer, however slowly they trickle
    error_code error;
    co_await http::async_read_header(stream, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
    std::optional<Response> response = error ? answer_to(error) : std::optional<Response>(answer(parser, board));
    if (!response) co_return;
    response->content_length(response->body().size());
    again = response->keep_alive();
    http::response_serializer<http::string_body> serializer(*response);
    if (!error && parser.get().method() == http::verb::head) {
      co_await http::async_write_header(stream, serializer, asio::redirect_error(asio::use_awaitable, error));
    } else {
      co_await http::async_write(stream, serializer, asio::redirect_error(asio::use_awaitable, error));
    }
    if (error) co_return;
  }
  co_await close_gently(stream);
}

/// One of the kConnections that take turns at accepting, which bounds the number of connections without counting them.
asio::awaitable<void> accept_and_serve(tcp::acceptor& acceptor, const StatusBoard& board) {
  asio::steady_timer pause(acceptor.get_executor());
  for (;;) {
    error_code error;
    try {
      tcp::socket socket = co_await acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
      if (!error) co_await serve(std::move(socket), board);
    } catch (const std::exception&) {
      error = asio::error::no_memory;  // that connection is gone, the next one may fare better
    }
    if (!error) continue;
    pause.expires_after(kPause);
    co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
  }
}

tcp::endpoint resolve(asio::io_context& context, const std::string& listen) {
  const Address address = parse_address(listen, kWhere);
  error_code error;
  tcp::resolver resolver(context);
  const auto found = resolver.resolve(address.host, std::to_string(address.port), tcp::resolver::passive, error);
  if (error || found.empty()) bad_value(kWhere, listen, "an address of this machine (" + error.message() + ")");
  return found.begin()->endpoint();
}

void open(tcp::acceptor& acceptor, const tcp::endpoint& endpoint, const std::string& listen) {
  error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) return;
  if (error == error_code(EADDRNOTAVAIL, boost::system::system_category())) {
    bad_value(kWhere, listen, "an address of this machine (" + error.message() + ")");
  }
  throw IoError(std::string(kWhere) + ": cannot listen on " + listen + ": " + error.message() +
                "; choose another port, or end the program that uses this one");
}

}  // namespace

class HealthServer::Implementation {
 public:
  Implementation(const std::string& listen, const StatusBoard& board) : acceptor_(context_) {
    open(acceptor_, resolve(context_, listen), listen);
    port_ = acceptor_.local_endpoint().port();
    for (std::size_t i = 0; i < kConnections; ++i) {
      asio::co_spawn(context_, accept_and_serve(acceptor_, board), [](const std::exception_ptr& error) {
        if (error) std::rethrow_exception(error);
      });
    }
    // Signals are for the program's main thread.
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { context_.run(); });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  ~Implementation() {
    context_.stop();
    thread_.join();
  }
  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;

  std::uint16_t port() const { return port_; }

 private:
  asio::io_context context_{1};
  tcp::acceptor acceptor_;
  std::uint16_t port_ = 0;
  std::thread thread_;
};

HealthServer::HealthServer(const std::string& listen, const StatusBoard& board)
    : implementation_(std::make_unique<Implementation>(listen, board)) {}
HealthServer::~HealthServer() = default;
std::uint16_t HealthServer::port() const { return implementation_->port(); }

}  // namespace fl
