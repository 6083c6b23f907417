// How fast does one connection move bulk data over mutual TLS, and what does an idle one cost? A body of 1 MiB chunk frames goes
// over loop-back in both directions between two threads of this process. Beside it, from the same run: the record layer alone
// (one thread encrypts, the other decrypts, no sockets), and the same bytes through Asio's ssl::stream. Best of n.
// --idle N instead: resident memory of a server and of a client process with N connections that have nothing to do.

#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <barrier>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "benchmarks/tls_ends.h"
#include "fl_core/base/memory.h"
#include "fl_core/net/framed_stream.h"
#include "fl_core/wire/limits.h"

namespace {

namespace asio = boost::asio;
using asio::awaitable;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;

/// Wall time, and processor time of both threads: the latter means something even when the machine does other things.
class Stopwatch {
 public:
  double wall_s() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  double cpu_s() const { return process_s() - cpu_start_; }

 private:
  static double process_s() {
    ::timespec now{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
  }
  Clock::time_point start_ = Clock::now();
  double cpu_start_ = process_s();
};

void require(bool ok, const char* what) {
  if (!ok) throw fl::IoError(std::string("benchmark: ") + what + " failed");
}

void rethrow(std::exception_ptr failure) {
  if (failure) std::rethrow_exception(failure);
}

/// One way of one run.
struct Speed {
  double gb_s = 0;
  double cpu_s_per_gb = 0;  ///< both ends together

  void set(std::size_t bytes, const Stopwatch& watch) {
    gb_s = static_cast<double>(bytes) / watch.wall_s() / 1e9;
    cpu_s_per_gb = watch.cpu_s() * 1e9 / static_cast<double>(bytes);
  }
  void keep_best(const Speed& other) {
    if (gb_s == 0 || other.gb_s > gb_s) gb_s = other.gb_s;
    if (cpu_s_per_gb == 0 || other.cpu_s_per_gb < cpu_s_per_gb) cpu_s_per_gb = other.cpu_s_per_gb;
  }
};

/// From client to server, and back.
struct Speeds {
  Speed up;
  Speed down;
  void keep_best(const Speeds& other) {
    up.keep_best(other.up);
    down.keep_best(other.down);
  }
};

// ---- ours ----------------------------------------------------------------------------------------------------------------

awaitable<void> receive_chunks(fl::FramedStream& stream, std::span<std::byte> body) {
  std::vector<std::byte> header;
  for (std::size_t at = 0; at < body.size();) {
    const fl::FrameHeader head = co_await stream.read_head();
    header.resize(head.header_bytes);
    const std::span<std::byte> header_space(header);
    co_await stream.read_exactly(header_space);
    const auto place = body.subspan(at, head.body_bytes);
    co_await stream.read_exactly(place);
    at += head.body_bytes;
  }
}

std::vector<fl::Frame> chunks_of(const fl::SharedBuffer& body) {
  std::vector<fl::Frame> frames;
  const fl::SharedBuffer header{fl::Bytes(24)};
  for (std::size_t at = 0; at < body.size(); at += fl::limits::kChunkBytes) {
    fl::FrameHeader head;
    head.type = fl::FrameType::chunk;
    frames.emplace_back(head, header, body.slice(at, std::min(fl::limits::kChunkBytes, body.size() - at)));
  }
  return frames;
}

awaitable<void> serve_frames(fl::FramedStream& stream, const std::vector<fl::Frame>& frames, std::span<std::byte> received) {
  const std::string nobody;
  co_await stream.handshake(nobody);
  co_await receive_chunks(stream, received);
  const fl::Frame done = frames.back();
  co_await stream.write_frame(done);
  co_await stream.write_frames(frames);
  stream.close();
}

awaitable<void> use_frames(fl::FramedStream& stream, const std::vector<fl::Frame>& frames, std::span<std::byte> received, Speeds& speeds) {
  const std::string host = "localhost";
  co_await stream.handshake(host);
  Stopwatch watch;
  co_await stream.write_frames(frames);
  const fl::Frame done = co_await stream.read_frame();
  speeds.up.set(received.size(), watch);
  watch = {};
  co_await receive_chunks(stream, received);
  speeds.down.set(received.size(), watch);
}

/// Connects two sockets of two threads' contexts and runs a coroutine in each.
template <class Serve, class Use>
void run_pair(Serve serve, Use use) {
  asio::io_context server_io(1), client_io(1);
  tcp::acceptor acceptor(server_io, {asio::ip::address_v4::loopback(), 0});
  tcp::socket connected(client_io);
  connected.connect(acceptor.local_endpoint());
  tcp::socket accepted = acceptor.accept();
  std::exception_ptr failure;
  std::thread server([&] {
    try {
      auto task = serve(std::move(accepted));
      server_io.run();
    } catch (...) {
      failure = std::current_exception();
    }
  });
  auto task = use(std::move(connected));
  client_io.run();
  server.join();
  rethrow(failure);
}

Speeds measure_ours(const fl::TlsEnds& ends, const fl::SharedBuffer& body, std::span<std::byte> at_server, std::span<std::byte> at_client) {
  const std::vector<fl::Frame> frames = chunks_of(body);
  Speeds speeds;
  run_pair(
      [&](tcp::socket socket) {
        auto stream = std::make_unique<fl::FramedStream>(std::move(socket), ends.server);
        asio::co_spawn(stream->executor(), serve_frames(*stream, frames, at_server), rethrow);
        return stream;
      },
      [&](tcp::socket socket) {
        auto stream = std::make_unique<fl::FramedStream>(std::move(socket), ends.client);
        asio::co_spawn(stream->executor(), use_frames(*stream, frames, at_client, speeds), rethrow);
        return stream;
      });
  return speeds;
}

// ---- Asio's ssl::stream --------------------------------------------------------------------------------------------------

using AsioStream = asio::ssl::stream<tcp::socket>;

awaitable<void> write_pieces(AsioStream& stream, std::span<const std::byte> body) {
  for (std::size_t at = 0; at < body.size(); at += fl::limits::kChunkBytes) {
    const auto piece = body.subspan(at, std::min(fl::limits::kChunkBytes, body.size() - at));
    co_await asio::async_write(stream, asio::buffer(piece.data(), piece.size()), asio::use_awaitable);
  }
}

awaitable<void> read_pieces(AsioStream& stream, std::span<std::byte> body) {
  for (std::size_t at = 0; at < body.size(); at += fl::limits::kChunkBytes) {
    const auto piece = body.subspan(at, std::min(fl::limits::kChunkBytes, body.size() - at));
    co_await asio::async_read(stream, asio::buffer(piece.data(), piece.size()), asio::use_awaitable);
  }
}

awaitable<void> serve_asio(AsioStream& stream, std::span<const std::byte> body, std::span<std::byte> received) {
  co_await stream.async_handshake(asio::ssl::stream_base::server, asio::use_awaitable);
  co_await read_pieces(stream, received);
  const char done = 1;
  co_await asio::async_write(stream, asio::buffer(&done, 1), asio::use_awaitable);
  co_await write_pieces(stream, body);
}

awaitable<void> use_asio(AsioStream& stream, std::span<const std::byte> body, std::span<std::byte> received, Speeds& speeds) {
  co_await stream.async_handshake(asio::ssl::stream_base::client, asio::use_awaitable);
  Stopwatch watch;
  co_await write_pieces(stream, body);
  char done = 0;
  co_await asio::async_read(stream, asio::buffer(&done, 1), asio::use_awaitable);
  speeds.up.set(received.size(), watch);
  watch = {};
  co_await read_pieces(stream, received);
  speeds.down.set(received.size(), watch);
}

Speeds measure_asio(const fl::TlsEnds& ends, const fl::SharedBuffer& body, std::span<std::byte> at_server, std::span<std::byte> at_client) {
  SSL_CTX_up_ref(ends.server->native());
  SSL_CTX_up_ref(ends.client->native());
  asio::ssl::context server_context(ends.server->native()), client_context(ends.client->native());
  Speeds speeds;
  const auto stream_over = [](tcp::socket socket, asio::ssl::context& context) {
    socket.set_option(tcp::no_delay(true));
    return std::make_unique<AsioStream>(std::move(socket), context);
  };
  run_pair(
      [&](tcp::socket socket) {
        auto stream = stream_over(std::move(socket), server_context);
        asio::co_spawn(stream->get_executor(), serve_asio(*stream, body.span(), at_server), rethrow);
        return stream;
      },
      [&](tcp::socket socket) {
        auto stream = stream_over(std::move(socket), client_context);
        asio::co_spawn(stream->get_executor(), use_asio(*stream, body.span(), at_client, speeds), rethrow);
        return stream;
      });
  return speeds;
}

// ---- the record layer alone ----------------------------------------------------------------------------------------------

constexpr std::size_t kRecord = 16 * 1024;
constexpr std::size_t kBatch = 256 * 1024;

/// Encrypts `body`; `take` gets each batch of ciphertext, which is gone afterwards.
template <class Take>
void encrypt(SSL* ssl, std::span<const std::byte> body, Take take) {
  BIO* out = SSL_get_wbio(ssl);
  for (std::size_t at = 0; at < body.size(); at += kRecord) {
    require(SSL_write(ssl, body.data() + at, static_cast<int>(std::min(kRecord, body.size() - at))) > 0, "SSL_write");
    char* data = nullptr;
    const long size = BIO_get_mem_data(out, &data);
    if (size < static_cast<long>(kBatch) && at + kRecord < body.size()) continue;
    take(std::span<const char>(data, static_cast<std::size_t>(size)));
    BIO_reset(out);
  }
}

void decrypt(SSL* ssl, std::span<const char> ciphertext, std::span<std::byte> body) {
  BIO* in = SSL_get_rbio(ssl);
  std::size_t done = 0;
  for (std::size_t at = 0; at < ciphertext.size(); at += kBatch) {
    const std::size_t size = std::min(kBatch, ciphertext.size() - at);
    require(BIO_write(in, ciphertext.data() + at, static_cast<int>(size)) > 0, "BIO_write");
    for (;;) {
      std::size_t got = 0;
      if (SSL_read_ex(ssl, body.data() + done, body.size() - done, &got) != 1) break;
      done += got;
    }
  }
  require(done == body.size(), "decrypting all");
}

/// One thread encrypts while another one decrypts: no connection between two threads can be faster.
Speed measure_records(const fl::TlsEnds& ends, const fl::SharedBuffer& body, std::span<std::byte> plain) {
  fl::TlsMemoryPair encrypting(ends), decrypting(ends);
  std::vector<char> ciphertext;
  ciphertext.reserve(body.size() + body.size() / kRecord * 32 + kRecord);
  encrypt(decrypting.client, body.span(), [&](std::span<const char> batch) { ciphertext.insert(ciphertext.end(), batch.begin(), batch.end()); });
  std::barrier begin(2);
  std::thread other([&] {
    begin.arrive_and_wait();
    encrypt(encrypting.client, body.span(), [](std::span<const char>) {});
  });
  begin.arrive_and_wait();
  const Stopwatch watch;
  decrypt(decrypting.server, ciphertext, plain);
  other.join();
  Speed speed;
  speed.set(body.size(), watch);
  return speed;
}

// ---- idle connections ----------------------------------------------------------------------------------------------------

/// Waits for a frame that never comes; one of these is what an idle connection does.
awaitable<void> idle(fl::FramedStream& stream) {
  try {
    const fl::Frame frame = co_await stream.read_frame();
  } catch (const fl::LinkError&) {  // the other process has ended
  }
}

fl::Frame small_frame() {
  fl::FrameHeader head;
  head.type = fl::FrameType::heartbeat;
  return fl::Frame(head, fl::SharedBuffer(fl::Bytes(40)), fl::SharedBuffer());
}

using Streams = std::vector<std::unique_ptr<fl::FramedStream>>;

awaitable<void> accept_idle(tcp::acceptor& acceptor, const fl::TlsEnds& ends, std::size_t count, Streams& streams) {
  const std::string nobody;
  const fl::Frame frame = small_frame();
  for (std::size_t i = 0; i < count; ++i) {
    tcp::socket socket = co_await acceptor.async_accept(asio::use_awaitable);
    streams.push_back(std::make_unique<fl::FramedStream>(std::move(socket), ends.server));
    fl::FramedStream& stream = *streams.back();
    co_await stream.handshake(nobody);
    const fl::Frame question = co_await stream.read_frame();
    co_await stream.write_frame(frame);
    asio::co_spawn(stream.executor(), idle(stream), rethrow);
  }
}

awaitable<void> connect_idle(tcp::endpoint server, const fl::TlsEnds& ends, std::size_t count, Streams& streams) {
  const std::string host = "localhost";
  const fl::Frame frame = small_frame();
  const auto executor = co_await asio::this_coro::executor;
  for (std::size_t i = 0; i < count; ++i) {
    tcp::socket socket(executor);
    co_await socket.async_connect(server, asio::use_awaitable);
    streams.push_back(std::make_unique<fl::FramedStream>(std::move(socket), ends.client));
    fl::FramedStream& stream = *streams.back();
    co_await stream.handshake(host);
    co_await stream.write_frame(frame);
    const fl::Frame answer = co_await stream.read_frame();
    asio::co_spawn(stream.executor(), idle(stream), rethrow);
  }
}

/// Bytes of resident memory per connection that `connect(n)` adds, when it makes `count` after a first one.
template <class Connect>
double bytes_per_connection(asio::io_context& io, std::size_t count, Connect connect) {
  const auto run = [&](std::size_t n) {
    bool done = false;
    asio::co_spawn(io, connect(n), [&](std::exception_ptr failure) {
      rethrow(failure);
      done = true;
    });
    while (!done) io.run_one();
  };
  run(1);  // what the first one sets up belongs to the process
  const std::size_t before = fl::resident_bytes();
  run(count);
  return static_cast<double>(fl::resident_bytes() - before) / static_cast<double>(count);
}

nlohmann::json measure_idle(const fl::TlsEnds& ends, std::size_t count) {
  asio::io_context io(1);
  tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
  const tcp::endpoint endpoint = acceptor.local_endpoint();
  int pipe_ends[2];
  require(::pipe(pipe_ends) == 0, "pipe");
  Streams streams;
  const ::pid_t child = ::fork();
  require(child >= 0, "fork");
  double client_bytes = 0;
  if (child == 0) {
    acceptor.close();
    asio::io_context own(1);
    client_bytes = bytes_per_connection(own, count, [&](std::size_t n) { return connect_idle(endpoint, ends, n, streams); });
    const bool written = ::write(pipe_ends[1], &client_bytes, sizeof client_bytes) == sizeof client_bytes;
    ::_exit(written ? 0 : 1);
  }
  const double server_bytes = bytes_per_connection(io, count, [&](std::size_t n) { return accept_idle(acceptor, ends, n, streams); });
  require(::read(pipe_ends[0], &client_bytes, sizeof client_bytes) == sizeof client_bytes, "the client process");
  ::waitpid(child, nullptr, 0);
  return {{"connections", count}, {"server_bytes_per_connection", server_bytes}, {"client_bytes_per_connection", client_bytes}};
}

nlohmann::json measure_bulk(const fl::TlsEnds& ends, std::size_t size, int repeats) {
  fl::Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 2654435761U) >> 13U);
  const fl::SharedBuffer body(std::move(bytes));
  fl::Bytes at_server(size), at_client(size);
  Speeds ours, theirs;
  Speed records;
  for (int i = 0; i < repeats; ++i) {
    records.keep_best(measure_records(ends, body, at_server.span()));
    ours.keep_best(measure_ours(ends, body, at_server.span(), at_client.span()));
    const bool intact = std::memcmp(at_server.data(), body.span().data(), size) == 0 && std::memcmp(at_client.data(), body.span().data(), size) == 0;
    require(intact, "moving the body unchanged");
    theirs.keep_best(measure_asio(ends, body, at_server.span(), at_client.span()));
  }
  const auto both = [](const Speed& up, const Speed& down, const Speed& per_up, const Speed& per_down) {
    return nlohmann::json{{"up", up.gb_s / per_up.gb_s}, {"down", down.gb_s / per_down.gb_s}};
  };
  const auto speeds = [](const Speeds& s) {
    return nlohmann::json{{"up", {{"gb_s", s.up.gb_s}, {"cpu_s_per_gb", s.up.cpu_s_per_gb}}},
                          {"down", {{"gb_s", s.down.gb_s}, {"cpu_s_per_gb", s.down.cpu_s_per_gb}}}};
  };
  return {{"bytes", size},
          {"record_layer", speeds({records, records})},
          {"framed_stream", speeds(ours)},
          {"asio_ssl_stream", speeds(theirs)},
          {"ratio_to_record_layer", both(ours.up, ours.down, records, records)},
          {"ratio_to_asio", both(ours.up, ours.down, theirs.up, theirs.down)}};
}

void print_bulk(const nlohmann::json& result) {
  std::printf("%.0f MB in 1 MiB chunk frames    up GB/s  down GB/s   CPU s/GB up, down\n", result["bytes"].get<double>() / 1e6);
  for (const auto& [name, key] : {std::pair{"record layer alone", "record_layer"}, {"FramedStream", "framed_stream"}, {"Asio's ssl::stream", "asio_ssl_stream"}}) {
    const auto& way = result[key];
    std::printf("%-30s %9.2f %10.2f %12.2f %6.2f\n", name, way["up"]["gb_s"].get<double>(), way["down"]["gb_s"].get<double>(),
                way["up"]["cpu_s_per_gb"].get<double>(), way["down"]["cpu_s_per_gb"].get<double>());
  }
  for (const auto& [name, key] : {std::pair{"FramedStream / record layer", "ratio_to_record_layer"}, {"FramedStream / ssl::stream", "ratio_to_asio"}}) {
    std::printf("%-30s %9.2f %10.2f\n", name, result[key]["up"].get<double>(), result[key]["down"].get<double>());
  }
}

void print_idle(const nlohmann::json& result) {
  std::printf("%zu idle connections: %.1f KB each in the server, %.1f KB each in the client process\n", result["connections"].get<std::size_t>(),
              result["server_bytes_per_connection"].get<double>() / 1e3, result["client_bytes_per_connection"].get<double>() / 1e3);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Bulk transfer and idle connections over mutual TLS on loop-back");
  std::size_t megabytes = 400;
  std::size_t connections = 0;
  int repeats = 3;
  bool json = false;
  app.add_option("--megabytes", megabytes, "size of the body, 10^6 bytes")->check(CLI::PositiveNumber);
  app.add_option("--repeats", repeats, "the best of so many")->check(CLI::PositiveNumber);
  app.add_option("--idle", connections, "measure the memory of so many idle connections instead");
  app.add_flag("--json", json, "one JSON object");
  CLI11_PARSE(app, argc, argv);
  try {
    const fl::TlsEnds ends;
    const nlohmann::json result = connections > 0 ? measure_idle(ends, connections) : measure_bulk(ends, megabytes * 1'000'000, repeats);
    if (json) {
      std::printf("%s\n", result.dump().c_str());
    } else {
      connections > 0 ? print_idle(result) : print_bulk(result);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
