#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "fl_core/base/error.h"
#include "fl_core/net/tls_context.h"
#include "fl_core/wire/frame.h"

namespace fl {

/// The connection is of no use any more: reset, closed by the peer, refused handshake, timed out. `what()` says which.
class LinkError : public Error {
 public:
  using Error::Error;
};
/// The peer did not do in time what it had to.
class TimedOut : public LinkError {
 public:
  using LinkError::LinkError;
};

/// Bytes moved by a stream, TLS included.
struct LinkCounters {
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
};

/// Frames over TLS over one TCP connection, for coroutines of one I/O thread. At most one coroutine reads and one writes at a
/// time. An idle stream keeps no buffer: TLS records are read into scratch space of the thread, and written in batches of up
/// to kBatchBytes a system call (Asio's own ssl::stream writes one 16 KB record at a time).
///
/// Errors: LinkError from the network and TLS, ProtocolError for bytes that are no frame. After either the stream is closed.
class FramedStream {
 public:
  static constexpr std::size_t kBatchBytes = 256 * 1024;

  /// Takes over a connected socket; sets TCP_NODELAY. `context` is shared with other streams.
  FramedStream(boost::asio::ip::tcp::socket socket, std::shared_ptr<const TlsContext> context);
  ~FramedStream();
  FramedStream(const FramedStream&) = delete;
  FramedStream& operator=(const FramedStream&) = delete;

  /// TLS handshake. Clients name the server they expect (SNI and host name or IP address check); servers pass "".
  boost::asio::awaitable<void> handshake(const std::string& host);
  /// REQUIRES: handshake() returned.
  const PeerIdentity& peer() const;

  /// The next frame's fixed part, checked. Throws LinkError "the peer closed the connection" on an orderly end between frames;
  /// an end inside a frame, or without close_notify, is an error too and says so.
  boost::asio::awaitable<FrameHeader> read_head();
  /// Exactly out.size() bytes, straight into `out`.
  boost::asio::awaitable<void> read_exactly(std::span<std::byte> out);
  /// Header and body of a frame whose fixed part was read.
  boost::asio::awaitable<Frame> read_rest(FrameHeader head);
  /// read_head, then read_rest.
  boost::asio::awaitable<Frame> read_frame();

  /// Writes whole frames, in order, batched. The frames must stay alive until it returns.
  boost::asio::awaitable<void> write_frames(std::span<const Frame> frames);
  boost::asio::awaitable<void> write_frame(const Frame& frame);

  /// Sends close_notify without waiting for an answer, then closes. Safe at any time.
  void close();
  /// Closes the socket at once: awaiting coroutines get LinkError.
  void abort();
  bool open() const;

  const LinkCounters& counters() const;
  /// "10.0.0.7:41234".
  const std::string& remote() const;
  boost::asio::any_io_executor executor();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Awaits `operation`, at most for `limit`; then the stream is aborted and TimedOut says that `what` took too long. An expired
/// wait always costs the connection: nobody can tell how much of a frame had passed.
template <class T>
boost::asio::awaitable<T> within(std::chrono::milliseconds limit, FramedStream& stream, const char* what,
                                 boost::asio::awaitable<T> operation);

}  // namespace fl

#include "fl_core/net/within.h"
