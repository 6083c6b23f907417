#include "fl_core/net/framed_stream.h"

#include <array>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "fl_core/net/tls_pump.h"

namespace fl {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

struct FramedStream::State : TlsPump {
  using TlsPump::TlsPump;
};

FramedStream::FramedStream(tcp::socket socket, std::shared_ptr<const TlsContext> context)
    : state_(std::make_unique<State>(std::move(socket), std::move(context))) {}

FramedStream::~FramedStream() = default;

asio::awaitable<void> FramedStream::handshake(const std::string& host) {
  State& state = *state_;
  state.prepare(host);
  error_code error;
  while (!state.shake_hands()) {
    co_await state.socket().async_wait(tcp::socket::wait_read, asio::redirect_error(asio::use_awaitable, error));
    state.waited(error);
  }
  while (!state.send_unsent()) {
    co_await state.socket().async_wait(tcp::socket::wait_write, asio::redirect_error(asio::use_awaitable, error));
    state.waited(error);
  }
}

const PeerIdentity& FramedStream::peer() const {
  FL_CHECK(state_->established(), "peer() before the handshake");
  return state_->peer();
}

asio::awaitable<FrameHeader> FramedStream::read_head() {
  State& state = *state_;
  std::array<std::byte, kFrameHeaderBytes> bytes;
  std::size_t done = 0;
  error_code error;
  while (!state.read(bytes, done, false)) {
    co_await state.socket().async_wait(tcp::socket::wait_read, asio::redirect_error(asio::use_awaitable, error));
    state.waited(error);
  }
  try {
    co_return parse_frame_header(bytes);
  } catch (const ProtocolError&) {
    close();
    throw;
  }
}

asio::awaitable<void> FramedStream::read_exactly(std::span<std::byte> out) {
  State& state = *state_;
  std::size_t done = 0;
  error_code error;
  while (!state.read(out, done, true)) {
    co_await state.socket().async_wait(tcp::socket::wait_read, asio::redirect_error(asio::use_awaitable, error));
    state.waited(error);
  }
}

asio::awaitable<Frame> FramedStream::read_rest(FrameHeader head) {
  Bytes header = Bytes::uninitialised(head.header_bytes);
  Bytes body = Bytes::uninitialised(head.body_bytes);
  co_await read_exactly(header.span());
  co_await read_exactly(body.span());
  co_return Frame(head, SharedBuffer(std::move(header)), SharedBuffer(std::move(body)));
}

asio::awaitable<Frame> FramedStream::read_frame() {
  const FrameHeader head = co_await read_head();
  Frame frame = co_await read_rest(head);
  co_return frame;
}

asio::awaitable<void> FramedStream::write_frames(std::span<const Frame> frames) {
  State& state = *state_;
  FrameCursor cursor(frames);
  error_code error;
  while (!state.write(cursor)) {
    co_await state.socket().async_wait(tcp::socket::wait_write, asio::redirect_error(asio::use_awaitable, error));
    state.waited(error);
  }
}

asio::awaitable<void> FramedStream::write_frame(const Frame& frame) { return write_frames({&frame, 1}); }

void FramedStream::close() { state_->close(); }

void FramedStream::abort() { state_->abort(); }

bool FramedStream::open() const { return state_->socket().is_open(); }

const LinkCounters& FramedStream::counters() const { return state_->counters(); }

const std::string& FramedStream::remote() const { return state_->remote(); }

asio::any_io_executor FramedStream::executor() { return state_->socket().get_executor(); }

}  // namespace fl
