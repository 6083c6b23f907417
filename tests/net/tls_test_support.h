#pragma once

#include <gtest/gtest.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <ctime>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fl_core/base/file.h"
#include "fl_core/net/framed_stream.h"
#include "fl_core/net/pki_x509.h"
#include "tests/support/test_support.h"

namespace fl::test {

using Socket = boost::asio::ip::tcp::socket;

/// One authority with a server "hub" (localhost, 127.0.0.1) and a client "ada", made once for all tests of the program.
class TestAuthority {
 public:
  static TestAuthority& shared() {
    static TestAuthority made("ca");
    return made;
  }
  explicit TestAuthority(const std::string& name) : authority(Authority::create(folder / name)) {
    const std::vector<std::string> hosts = {"localhost", "127.0.0.1"};
    server = authority.issue_server("hub", hosts);
    client = authority.issue_client("ada");
  }

  /// A client with a P-256 key, as fl pki once made them; the index does not know it.
  IssuedFiles p256_client() const {
    const auto now = static_cast<std::int64_t>(std::time(nullptr));
    const pki::Key key = pki::make_key(KeyType::p256);
    const pki::Certificate certificate =
        pki::make_certificate({"pia", CertificateRole::client, pki::make_serial(), now - kClockSkew_s, now + kSecondsPerDay, {}}, key.get(), &signer());
    IssuedFiles files;
    files.certificate = folder / "pia.pem";
    files.key = folder / "pia.key";
    write_file_atomically(files.certificate, pki::to_pem(certificate.get()));
    pki::write_private_key(files.key, key.get());
    return files;
  }
  /// The root and its key.
  const pki::Signer& signer() const { return signer_; }

  /// What an end with this certificate needs.
  TlsFiles files(const IssuedFiles& issued) const {
    return {issued.certificate.string(), issued.key.string(), authority.certificate().string(), authority.revocation_list().string()};
  }
  std::shared_ptr<const TlsContext> server_context() const { return std::make_shared<const TlsContext>(TlsRole::server, files(server)); }
  std::shared_ptr<const TlsContext> client_context() const { return std::make_shared<const TlsContext>(TlsRole::client, files(client)); }

  TemporaryFolder folder;
  Authority authority;
  IssuedFiles server;
  IssuedFiles client;

 private:
  pki::Signer signer_{pki::load_certificate(authority.certificate()), pki::read_private_key(authority.folder() / "ca.key")};
};

/// Two ends of a TCP connection over loop-back.
inline std::pair<Socket, Socket> connected_sockets(boost::asio::io_context& io) {
  boost::asio::ip::tcp::acceptor acceptor(io, {boost::asio::ip::address_v4::loopback(), 0});
  Socket client(io);
  client.connect(acceptor.local_endpoint());
  return {acceptor.accept(), std::move(client)};
}

/// Makes the system take a few kilobytes at a time, so that every longer write has to wait. (With a narrow receive buffer the
/// system would only go on by its timer of 200 ms.)
inline void narrow(std::pair<Socket, Socket>& sockets) {
  sockets.first.set_option(boost::asio::socket_base::send_buffer_size(4096));
  sockets.second.set_option(boost::asio::socket_base::send_buffer_size(4096));
}

/// How a coroutine ended: `error` is empty when it returned.
struct Ending {
  bool ended = false;
  std::string error;
};

template <class Coroutine>
void spawn(boost::asio::io_context& io, Coroutine coroutine, Ending& ending) {
  boost::asio::co_spawn(io, std::move(coroutine), [&ending](std::exception_ptr failure) {
    ending.ended = true;
    if (!failure) return;
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      ending.error = error.what();
    }
  });
}

/// Two FramedStreams over one connection and one thread, handshake not done.
class Link {
 public:
  Link() : Link(TestAuthority::shared().server_context(), TestAuthority::shared().client_context()) {}
  Link(std::shared_ptr<const TlsContext> server_context, std::shared_ptr<const TlsContext> client_context, bool narrow_sockets = false) {
    auto sockets = connected_sockets(io);
    if (narrow_sockets) narrow(sockets);
    server = std::make_unique<FramedStream>(std::move(sockets.first), std::move(server_context));
    client = std::make_unique<FramedStream>(std::move(sockets.second), std::move(client_context));
  }

  /// Runs a coroutine (a callable) for each end until both have ended.
  template <class Server, class Client>
  void run(Server on_server, Client on_client) {
    server_ending = {};
    client_ending = {};
    spawn(io, std::move(on_server), server_ending);
    spawn(io, std::move(on_client), client_ending);
    io.restart();
    while (!(server_ending.ended && client_ending.ended) && io.run_one() > 0) continue;
    EXPECT_TRUE(server_ending.ended);
    EXPECT_TRUE(client_ending.ended);
  }
  void shake_hands(const std::string& host = "localhost") {
    run([this] { return server->handshake(""); }, [this, host]() -> boost::asio::awaitable<void> { co_await client->handshake(host); });
  }

  boost::asio::io_context io;
  std::unique_ptr<FramedStream> server;
  std::unique_ptr<FramedStream> client;
  Ending server_ending;
  Ending client_ending;
};

/// A frame whose body is recognisable by `seed`.
inline Frame frame_with(std::size_t header_bytes, std::size_t body_bytes, std::uint64_t seed) {
  FrameHeader head;
  head.type = FrameType::chunk;
  head.request = seed;
  const auto fill = [seed](std::size_t size) {
    Bytes bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 31 + seed * 7 + (i >> 8U)) & 0xffU);
    return SharedBuffer(std::move(bytes));
  };
  return Frame(head, fill(header_bytes), fill(body_bytes));
}

inline bool same(const Frame& a, const Frame& b) {
  const auto equal = [](const SharedBuffer& x, const SharedBuffer& y) {
    return x.size() == y.size() && std::equal(x.span().begin(), x.span().end(), y.span().begin());
  };
  return a.head.type == b.head.type && a.head.request == b.head.request && equal(a.header, b.header) && equal(a.body, b.body);
}

}  // namespace fl::test
