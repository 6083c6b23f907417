#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "aggregator/net/desk.h"
#include "fl_core/net/framed_stream.h"

namespace fl {

/// What one connection may cost.
struct SessionLimits {
  double handshake_s = 10;              ///< from the accepted connection to the end of the hello
  std::uint32_t heartbeat_s = 15;       ///< a session is dropped after three of these without a frame
  double minimum_bytes_per_s = 10'000;  ///< slower senders and readers of bulk data are dropped
  double frames_per_s = 100;            ///< control frames, on average over ten seconds
};

class Session;

/// What a session needs of the aggregator around it. Outlives the session.
struct SessionHost {
  Desk& desk;
  SessionLimits limits;
  std::function<Seconds()> now;
  std::function<double()> unix_seconds;
  /// Whether this verified peer may come in just now (it may be cooling down after a flood); a refusal says why not.
  std::function<std::optional<Refused>(const PeerIdentity&)> screen;
  std::function<void(const Session&)> welcomed;
  std::function<void(const std::string& identity, const Refused&)> refused;
};

/// One connection of one client: handshake, hello, then frames in both directions until either side ends it. Reading is one
/// coroutine; writing is a second one that exists only while there is something to write.
class Session final : public Line, public std::enable_shared_from_this<Session> {
 public:
  Session(boost::asio::ip::tcp::socket socket, std::shared_ptr<const TlsContext> context, SessionHost& host);

  /// Runs the connection to its end. Throws nothing: what went wrong is in trouble().
  boost::asio::awaitable<void> run();

  void send(Frame frame) override;
  void send_blob(std::uint64_t request, SharedBuffer blob, std::uint64_t offset) override;
  void stop_blob() override;
  void end(Frame last) override;
  void abort() { stream_.abort(); }

  bool welcomed() const { return welcomed_; }
  bool handshaken() const { return handshaken_; }
  const std::string& trouble() const { return trouble_; }
  const LinkCounters& counters() const { return stream_.counters(); }
  /// REQUIRES: handshaken().
  const PeerIdentity& peer() const { return stream_.peer(); }
  const std::string& remote() const { return stream_.remote(); }

 private:
  boost::asio::awaitable<void> converse();
  boost::asio::awaitable<void> hear_out();
  boost::asio::awaitable<void> read_chunk(FrameHeader head);
  boost::asio::awaitable<void> write_loop();
  void handle(const Frame& frame);
  void check_size(const FrameHeader& head) const;
  void spend_frame();
  void refuse(Refused refused);
  void wake_writer();
  std::chrono::milliseconds time_for(std::uint64_t bytes) const;

  FramedStream stream_;
  SessionHost& host_;
  std::vector<Frame> queue_;
  struct Blob {
    std::uint64_t request = 0;
    SharedBuffer bytes;
    std::uint64_t offset = 0;
  };
  std::unique_ptr<Blob> blob_;  ///< being sent
  double frame_budget_;
  Seconds budget_time_ = 0;
  bool handshaken_ = false;
  bool welcomed_ = false;
  bool writing_ = false;
  bool ending_ = false;
  bool left_ = false;
  bool hears_out_ = false;  ///< run() reads on after a refusal, and closes
  std::string trouble_;
};

}  // namespace fl
