#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/net/tls_context.h"
#include "fl_core/wire/frame.h"

struct ssl_st;

namespace fl {

/// The other end closed, refused or reset the connection; what() says which.
class ProbeEnded : public Error {
 public:
  using Error::Error;
};
/// The other end did not do in time what it should; what() says what was waited for.
class ProbeTimeout : public Error {
 public:
  using Error::Error;
};

/// How a probe departs from FORMAT.md §1.
struct ProbeManners {
  bool tls_1_2 = false;              ///< offer TLS 1.2 and nothing else
  bool show_certificate = true;
  std::string application = kAlpn;   ///< what ALPN offers; "" for no ALPN at all
};

/// One end of a TLS connection with blocking calls, for programs that test other programs: it can break the rules, write any
/// bytes, and reads frames one after the other. Not for real links, which have FramedStream. One thread.
///
/// Every call ends after its limit with ProbeTimeout; ProbeEnded when the other end is gone; ProtocolError for bytes that are
/// no frame.
class Probe {
 public:
  using Milliseconds = std::chrono::milliseconds;

  /// Connects and shakes hands as a client; checks that the server's certificate is for `server_name`. `context` is a client's.
  static Probe connect(const std::string& host, std::uint16_t port, const std::string& server_name, const TlsContext& context,
                       Milliseconds limit, const ProbeManners& manners = {});
  /// Takes a connection over as a server. `context` is a server's.
  static Probe accept(int socket, const TlsContext& context, Milliseconds limit);
  ~Probe();
  Probe(Probe&&) noexcept;
  Probe& operator=(Probe&&) noexcept;

  /// Whether something can be read within `limit`, or the connection has ended.
  bool readable(Milliseconds limit);
  void write(std::span<const std::byte> bytes, Milliseconds limit);
  void write(const Frame& frame, Milliseconds limit);
  void read_exactly(std::span<std::byte> out, Milliseconds limit);
  Frame read_frame(Milliseconds limit);

  /// Says that it closes, and closes.
  void close();
  /// Resets the connection: nothing more arrives, and what was sent may be lost.
  void reset();

  const PeerIdentity& peer() const { return peer_; }
  /// Whether the server sent something with which a session could be resumed.
  bool resumable() const;

 private:
  struct FreeSsl {
    void operator()(ssl_st* ssl) const;
  };
  Probe(int socket, const TlsContext& context);
  void shake_hands(Milliseconds limit);
  template <class Call>
  void repeat(Milliseconds limit, const char* what, Call call);

  int socket_ = -1;
  TlsRole role_;
  std::unique_ptr<std::string> noted_;
  std::unique_ptr<ssl_st, FreeSsl> ssl_;
  PeerIdentity peer_;
};

/// The bytes of a frame as they stand on a connection.
std::vector<std::byte> frame_bytes(const Frame& frame);

/// A TCP socket that is connected; throws ProbeEnded. The caller closes it.
int connect_tcp(const std::string& host, std::uint16_t port, Probe::Milliseconds limit);
/// What the other end of a plain TCP connection answers to `bytes`, until it closes or the time is up; at most 4096 bytes.
std::vector<std::byte> answer_to_plain_bytes(const std::string& host, std::uint16_t port, std::span<const std::byte> bytes, Probe::Milliseconds limit);

/// A listening TCP socket.
class ProbeListener {
 public:
  /// Port 0 takes a free one. Throws ConfigError for an address that is none of this machine's, IoError when the system refuses.
  ProbeListener(const std::string& host, std::uint16_t port);
  ~ProbeListener();
  ProbeListener(const ProbeListener&) = delete;
  ProbeListener& operator=(const ProbeListener&) = delete;

  std::uint16_t port() const { return port_; }
  /// The next connection's socket; throws ProbeTimeout.
  int accept(Probe::Milliseconds limit);

 private:
  int socket_ = -1;
  std::uint16_t port_ = 0;
};

}  // namespace fl
