#include "fl_core/net/probe.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "fl_core/net/pki_x509.h"
#include "fl_core/net/tls_words.h"

namespace fl {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = Probe::Milliseconds;

std::string words_of(int error) { return std::strerror(error); }

void set_up(int socket) {
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::fcntl(socket, F_SETFL, ::fcntl(socket, F_GETFL) | O_NONBLOCK);
}

/// Whether the socket became ready for `events` before `end`.
bool wait_for(int socket, short events, Clock::time_point end) {
  while (true) {
    const auto left = std::chrono::duration_cast<Milliseconds>(end - Clock::now()).count();
    if (left < 0) return false;
    pollfd one{socket, events, 0};
    const int ready = ::poll(&one, 1, static_cast<int>(left) + 1);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

Addresses resolve(const std::string& host, std::uint16_t port, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) throw ConfigError("cannot find the address of '" + host + "': " + ::gai_strerror(error) + "; expected HOST:PORT");
  return Addresses(found);
}

}  // namespace

void Probe::FreeSsl::operator()(ssl_st* ssl) const { SSL_free(ssl); }

Probe::Probe(int socket, const TlsContext& context)
    : socket_(socket), role_(context.role()), noted_(std::make_unique<std::string>()), ssl_(SSL_new(context.native())) {
  set_up(socket);
  pki::require(ssl_ != nullptr && SSL_set_fd(ssl_.get(), socket) == 1, "SSL_new");
  SSL_set_app_data(ssl_.get(), noted_.get());
}

Probe::Probe(Probe&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)),
      role_(other.role_),
      noted_(std::move(other.noted_)),
      ssl_(std::move(other.ssl_)),
      peer_(std::move(other.peer_)) {}

Probe& Probe::operator=(Probe&& other) noexcept {
  std::swap(socket_, other.socket_);
  std::swap(role_, other.role_);
  std::swap(noted_, other.noted_);
  std::swap(ssl_, other.ssl_);
  std::swap(peer_, other.peer_);
  return *this;
}

Probe::~Probe() {
  if (socket_ >= 0) ::close(socket_);
}

Probe Probe::connect(const std::string& host, std::uint16_t port, const std::string& server_name, const TlsContext& context, Milliseconds limit,
                     const ProbeManners& manners) {
  Probe probe(connect_tcp(host, port, limit), context);
  SSL* ssl = probe.ssl_.get();
  if (manners.tls_1_2) pki::require(SSL_set_min_proto_version(ssl, TLS1_2_VERSION) == 1 && SSL_set_max_proto_version(ssl, TLS1_2_VERSION) == 1, "TLS 1.2");
  if (!manners.show_certificate) SSL_certs_clear(ssl);
  const std::string offer = manners.application.empty() ? "" : static_cast<char>(manners.application.size()) + manners.application;
  pki::require(SSL_set_alpn_protos(ssl, reinterpret_cast<const unsigned char*>(offer.data()), static_cast<unsigned>(offer.size())) == 0, "ALPN");
  std::array<unsigned char, 16> address{};
  const bool numeric = ::inet_pton(AF_INET, server_name.c_str(), address.data()) == 1 || ::inet_pton(AF_INET6, server_name.c_str(), address.data()) == 1;
  if (numeric) {
    pki::require(X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), server_name.c_str()) == 1, "expected address");
  } else {
    pki::require(SSL_set_tlsext_host_name(ssl, server_name.c_str()) == 1 && SSL_set1_host(ssl, server_name.c_str()) == 1, "expected host");
  }
  SSL_set_connect_state(ssl);
  probe.shake_hands(limit);
  if (manners.application != kAlpn) return probe;  // what a server makes of another one is what is tested
  const unsigned char* chosen = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl, &chosen, &size);
  if (std::string(reinterpret_cast<const char*>(chosen), size) != kAlpn) throw ProbeEnded("the server chose no application protocol");
  return probe;
}

Probe Probe::accept(int socket, const TlsContext& context, Milliseconds limit) {
  Probe probe(socket, context);
  SSL_set_accept_state(probe.ssl_.get());
  probe.shake_hands(limit);
  return probe;
}

void Probe::shake_hands(Milliseconds limit) {
  repeat(limit, "the TLS handshake", [&] { return SSL_do_handshake(ssl_.get()); });
  if (X509* certificate = SSL_get0_peer_certificate(ssl_.get())) peer_ = tls::identify(certificate, tls::other(role_));
}

/// Calls until it succeeds; waits in between for whatever TLS needs.
template <class Call>
void Probe::repeat(Milliseconds limit, const char* what, Call call) {
  const auto end = Clock::now() + limit;
  const std::string other = std::string("the ") + tls::role_name(tls::other(role_));
  while (true) {
    if (socket_ < 0) throw ProbeEnded("the connection was closed");
    ERR_clear_error();
    const int result = call();
    if (result == 1) return;
    switch (SSL_get_error(ssl_.get(), result)) {
      case SSL_ERROR_WANT_READ:
        if (wait_for(socket_, POLLIN, end)) continue;
        break;
      case SSL_ERROR_WANT_WRITE:
        if (wait_for(socket_, POLLOUT, end)) continue;
        break;
      case SSL_ERROR_ZERO_RETURN: throw ProbeEnded(other + " closed the connection");
      case SSL_ERROR_SYSCALL: throw ProbeEnded(other + " broke the connection" + (errno != 0 ? ": " + words_of(errno) : ""));
      default: {
        const bool cut = ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
        const std::string words = tls::error_words(role_, SSL_is_init_finished(ssl_.get()) == 1, *noted_);
        throw ProbeEnded(cut ? other + " cut the connection without saying so" : words);
      }
    }
    throw ProbeTimeout(std::string(what) + " took longer than " + std::to_string(limit.count()) + " ms");
  }
}

bool Probe::readable(Milliseconds limit) {
  return socket_ < 0 || SSL_has_pending(ssl_.get()) == 1 || wait_for(socket_, POLLIN, Clock::now() + limit);
}

void Probe::write(std::span<const std::byte> bytes, Milliseconds limit) {
  while (!bytes.empty()) {
    std::size_t done = 0;
    const std::size_t piece = std::min<std::size_t>(bytes.size(), 16 * 1024);
    repeat(limit, "sending", [&] { return SSL_write_ex(ssl_.get(), bytes.data(), piece, &done); });
    bytes = bytes.subspan(done);
  }
}

void Probe::write(const Frame& frame, Milliseconds limit) { write(frame_bytes(frame), limit); }

void Probe::read_exactly(std::span<std::byte> out, Milliseconds limit) {
  while (!out.empty()) {
    std::size_t done = 0;
    repeat(limit, "the next frame", [&] { return SSL_read_ex(ssl_.get(), out.data(), out.size(), &done); });
    out = out.subspan(done);
  }
}

Frame Probe::read_frame(Milliseconds limit) {
  std::array<std::byte, kFrameHeaderBytes> fixed;
  read_exactly(fixed, limit);
  const FrameHeader head = parse_frame_header(fixed);
  Bytes header(head.header_bytes);
  Bytes body(head.body_bytes);
  read_exactly(header.span(), limit);
  read_exactly(body.span(), limit);
  return Frame(head, SharedBuffer(std::move(header)), SharedBuffer(std::move(body)));
}

void Probe::close() {
  if (socket_ < 0) return;
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
  ::close(std::exchange(socket_, -1));
}

void Probe::reset() {
  if (socket_ < 0) return;
  const linger now{1, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  ::close(std::exchange(socket_, -1));
}

bool Probe::resumable() const {
  const SSL_SESSION* session = SSL_get_session(ssl_.get());
  return session != nullptr && SSL_SESSION_is_resumable(session) == 1;
}

std::vector<std::byte> frame_bytes(const Frame& frame) {
  const auto head = encode_frame_header(frame.head);
  std::vector<std::byte> bytes(head.begin(), head.end());
  for (const auto part : {frame.header.span(), frame.body.span()}) bytes.insert(bytes.end(), part.begin(), part.end());
  return bytes;
}

int connect_tcp(const std::string& host, std::uint16_t port, Milliseconds limit) {
  const auto end = Clock::now() + limit;
  const Addresses addresses = resolve(host, port, 0);
  std::string trouble = "no address";
  for (const addrinfo* one = addresses.get(); one != nullptr; one = one->ai_next) {
    const int socket = ::socket(one->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (socket < 0) continue;
    int error = ::connect(socket, one->ai_addr, one->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      socklen_t size = sizeof error;
      if (!wait_for(socket, POLLOUT, end)) error = ETIMEDOUT;
      else ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (error == 0) return socket;
    trouble = words_of(error);
    ::close(socket);
  }
  throw ProbeEnded("cannot connect to " + host + ":" + std::to_string(port) + ": " + trouble);
}

std::vector<std::byte> answer_to_plain_bytes(const std::string& host, std::uint16_t port, std::span<const std::byte> bytes, Milliseconds limit) {
  const auto end = Clock::now() + limit;
  const int socket = connect_tcp(host, port, limit);
  std::vector<std::byte> answer(4096);
  std::size_t size = 0;
  if (::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0) {
    while (size < answer.size() && wait_for(socket, POLLIN, end)) {
      const auto got = ::recv(socket, answer.data() + size, answer.size() - size, 0);
      if (got <= 0) break;
      size += static_cast<std::size_t>(got);
    }
  }
  ::close(socket);
  answer.resize(size);
  return answer;
}

ProbeListener::ProbeListener(const std::string& host, std::uint16_t port) {
  const Addresses addresses = resolve(host, port, AI_PASSIVE);
  const addrinfo* one = addresses.get();
  socket_ = ::socket(one->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  if (socket_ >= 0) ::setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (socket_ < 0 || ::bind(socket_, one->ai_addr, one->ai_addrlen) != 0 || ::listen(socket_, 64) != 0) {
    const std::string trouble = words_of(errno);
    if (socket_ >= 0) ::close(socket_);
    throw IoError("cannot listen on " + host + ":" + std::to_string(port) + ": " + trouble + "; choose another address, or stop the program that has it");
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  ::getsockname(socket_, reinterpret_cast<sockaddr*>(&bound), &size);
  port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
}

ProbeListener::~ProbeListener() { ::close(socket_); }

int ProbeListener::accept(Milliseconds limit) {
  const auto end = Clock::now() + limit;
  while (wait_for(socket_, POLLIN, end)) {
    const int socket = ::accept4(socket_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket >= 0) return socket;
  }
  throw ProbeTimeout("no client connected within " + std::to_string(limit.count()) + " ms");
}

}  // namespace fl
