#include "tests/net_support/net/plain_socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "fl_core/base/error.h"

namespace fl::test {
namespace {

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

PlainSocket::PlainSocket(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  const sockaddr_in address = loopback(port);
  if (fd_ < 0 || ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const std::string cause = std::strerror(errno);
    if (fd_ >= 0) ::close(fd_);
    throw IoError("cannot connect to port " + std::to_string(port) + ": " + cause);
  }
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  limit_waiting();
}

PlainSocket PlainSocket::adopt(int fd) {
  PlainSocket socket(fd, true);
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  socket.limit_waiting();
  return socket;
}

PlainSocket::~PlainSocket() {
  if (fd_ >= 0) ::close(fd_);
}

PlainSocket::PlainSocket(PlainSocket&& other) noexcept : fd_(std::exchange(other.fd_, -1)), ending_(other.ending_) {}

void PlainSocket::limit_waiting() const {
  const timeval minute{60, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &minute, sizeof minute);
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &minute, sizeof minute);
}

bool PlainSocket::send(const std::string& bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t sent = ::send(fd_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return false;
    done += static_cast<std::size_t>(sent);
  }
  return true;
}

std::string PlainSocket::receive(std::size_t count) {
  std::string bytes;
  std::array<char, 4096> piece{};
  while (bytes.size() < count && ending_ == Ending::open) {
    const ssize_t got = ::recv(fd_, piece.data(), std::min(piece.size(), count - bytes.size()), 0);
    if (got > 0) bytes.append(piece.data(), static_cast<std::size_t>(got));
    else if (got == 0) ending_ = Ending::orderly;
    else if (errno == EAGAIN) ending_ = Ending::silent;
    else if (errno != EINTR) ending_ = Ending::reset;
  }
  return bytes;
}

std::string PlainSocket::receive_all() { return receive(std::numeric_limits<std::size_t>::max()); }

void PlainSocket::finish() { ::shutdown(fd_, SHUT_WR); }

EchoServer::EchoServer() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  const bool listening = listener_ >= 0 && ::bind(listener_, generic, size) == 0 && ::listen(listener_, 16) == 0 &&
                         ::getsockname(listener_, generic, &size) == 0;
  if (!listening) throw IoError(std::string("cannot listen on loop-back: ") + std::strerror(errno));
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { serve(); });
}

EchoServer::~EchoServer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    for (const int fd : sockets_) ::shutdown(fd, SHUT_RDWR);
  }
  thread_.join();
  for (std::thread& echo : echoes_) echo.join();
  for (const int fd : sockets_) ::close(fd);
  ::close(listener_);
}

void EchoServer::serve() {
  for (;;) {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    const std::lock_guard lock(mutex_);
    if (stopping_ || fd < 0) {
      if (fd >= 0) ::close(fd);
      return;
    }
    sockets_.push_back(fd);
    echoes_.emplace_back([fd] {
      std::array<char, 4096> piece{};
      for (ssize_t got = 0; (got = ::recv(fd, piece.data(), piece.size(), 0)) > 0;) {
        if (::send(fd, piece.data(), static_cast<std::size_t>(got), MSG_NOSIGNAL) != got) break;
      }
      ::shutdown(fd, SHUT_WR);
    });
  }
}

}  // namespace fl::test
