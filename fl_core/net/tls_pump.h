#pragma once

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fl_core/net/framed_stream.h"

struct ssl_st;

/// What FramedStream does between two waits; inside fl_net only.
namespace fl {

/// Where a writer is in its frames: each is 32 bytes, then its header, then its body.
class FrameCursor {
 public:
  explicit FrameCursor(std::span<const Frame> frames) : frames_(frames) { open(); }
  FrameCursor(const FrameCursor&) = delete;  // it points into itself
  FrameCursor& operator=(const FrameCursor&) = delete;

  bool done() const { return rest_.empty(); }
  /// What is left of the current part.
  std::span<const std::byte> rest() const { return rest_; }
  void skip(std::size_t bytes) {
    rest_ = rest_.subspan(bytes);
    while (rest_.empty() && !frames_.empty()) {
      ++part_;
      if (part_ == 1) rest_ = frames_.front().header.span();
      if (part_ == 2) rest_ = frames_.front().body.span();
      if (part_ == 3) {
        frames_ = frames_.subspan(1);
        open();
      }
    }
  }

 private:
  void open() {
    part_ = 0;
    if (frames_.empty()) return;
    head_ = encode_frame_header(frames_.front().head);
    rest_ = head_;
  }

  std::span<const Frame> frames_;
  std::array<std::byte, kFrameHeaderBytes> head_{};
  std::span<const std::byte> rest_;
  int part_ = 0;
};

/// TLS over one non-blocking socket. Every function is one step: it does what can be done without waiting and leaves nothing in
/// the thread's shared buffers; FramedStream's coroutines wait between the steps. Throws LinkError, after which it is closed.
class TlsPump {
 public:
  TlsPump(boost::asio::ip::tcp::socket connected, std::shared_ptr<const TlsContext> context);
  ~TlsPump();
  TlsPump(const TlsPump&) = delete;
  TlsPump& operator=(const TlsPump&) = delete;

  void prepare(const std::string& host);
  /// Whether the handshake is complete; if not, more bytes have to arrive. Its last bytes may be unsent.
  bool shake_hands();
  /// Fills `out` from `done` on. Whether it is full; if not, more bytes have to arrive. `inside` a frame the end is an error.
  bool read(std::span<std::byte> out, std::size_t& done, bool inside);
  /// Encrypts and sends. Whether all is sent; if not, the socket has to become writable.
  bool write(FrameCursor& cursor);
  /// Sends what earlier steps left. Whether all is sent.
  bool send_unsent();
  /// To be called after each wait.
  void waited(const boost::system::error_code& error);

  /// Sends close_notify if the socket takes it at once, then closes.
  void close();
  /// Closes at once, with a reset.
  void abort();

  boost::asio::ip::tcp::socket& socket() { return socket_; }
  bool established() const { return established_; }
  const PeerIdentity& peer() const { return peer_; }
  const std::string& remote() const { return remote_; }
  const LinkCounters& counters() const { return counters_; }

 private:
  void require_open() const;
  /// Tells the peer what TLS has to say (an alert), closes and throws.
  [[noreturn]] void fail(const std::string& words);
  void close_socket();
  void check_peer();
  bool receive(std::size_t wanted, const char* where);
  void keep_input();
  void send_output();
  std::size_t send(std::span<const std::byte> bytes);
  void encrypt_next(FrameCursor& cursor);
  void encrypt(std::span<const std::byte> plain);
  std::string last_words(const std::string& otherwise);

  boost::asio::ip::tcp::socket socket_;
  std::shared_ptr<const TlsContext> context_;
  ssl_st* ssl_ = nullptr;
  std::span<const std::byte> input_;  ///< ciphertext that OpenSSL has not taken; in `unread_` or, within a step, in a shared buffer
  std::vector<std::byte> unread_;
  std::vector<std::byte> unsent_;
  std::size_t unsent_begin_ = 0;
  std::size_t batch_bytes_ = FramedStream::kBatchBytes / 4;
  std::size_t read_turn_ = 0;  ///< bytes since this stream last waited
  std::size_t write_turn_ = 0;
  bool established_ = false;
  PeerIdentity peer_;
  std::string noted_;  ///< by the context's callbacks: why a certificate was refused
  std::string remote_ = "an unknown address";
  LinkCounters counters_;
};

}  // namespace fl
