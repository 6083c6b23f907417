#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace fl::test {

/// How a connection's incoming direction ended.
enum class Ending : std::uint8_t {
  open,     ///< it has not
  orderly,  ///< the peer said that nothing more comes
  reset,
  silent,   ///< nothing came for a minute: the test would hang
};

/// A blocking TCP socket without any courtesy, for tests that play a rude peer.
class PlainSocket {
 public:
  /// Connects to 127.0.0.1. Throws IoError.
  explicit PlainSocket(std::uint16_t port);
  /// Takes over a descriptor.
  static PlainSocket adopt(int fd);
  ~PlainSocket();
  PlainSocket(PlainSocket&& other) noexcept;
  PlainSocket& operator=(PlainSocket&&) = delete;

  /// False when the peer does not take it any more.
  bool send(const std::string& bytes);
  /// Up to `count` bytes; fewer only when the connection ended.
  std::string receive(std::size_t count);
  /// All bytes until the connection ends.
  std::string receive_all();
  Ending ending() const { return ending_; }
  /// Says that nothing more comes.
  void finish();
  int fd() const { return fd_; }

 private:
  explicit PlainSocket(int fd, bool) : fd_(fd) {}
  void limit_waiting() const;

  int fd_ = -1;
  Ending ending_ = Ending::open;
};

/// A server on loop-back that sends back what it gets.
class EchoServer {
 public:
  EchoServer();
  ~EchoServer();
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;
  std::uint16_t port() const { return port_; }

 private:
  void serve();

  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::mutex mutex_;
  bool stopping_ = false;
  std::vector<int> sockets_;
  std::vector<std::thread> echoes_;
  std::thread thread_;
};

}  // namespace fl::test
