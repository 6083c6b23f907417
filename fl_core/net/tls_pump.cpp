#include "fl_core/net/tls_pump.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/ip/address.hpp>
#include <cstring>
#include <string_view>

#include "fl_core/net/tls_words.h"

namespace fl {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::size_t kRecordBytes = 16 * 1024;   // most plaintext of one TLS record
constexpr std::size_t kRecordExtra = 5 + 1 + 16;  // its header, inner type and tag
/// A coroutine that always finds bytes lets the others of its thread run after this many.
constexpr std::size_t kTurnBytes = 8 * FramedStream::kBatchBytes;
/// Ciphertext of a batch. A socket that does not take all gets less the next time: what is left over is kept per stream.
constexpr std::size_t kLeastBatchBytes = 32 * 1024;
/// What a peer that never reads may make us keep in answers of the TLS layer itself.
constexpr std::size_t kUnsentLimitBytes = 2 * FramedStream::kBatchBytes;

/// Buffers that all streams of a thread share. They hold something only between two suspensions of one coroutine.
struct Scratch {
  std::vector<std::byte> input = std::vector<std::byte>(FramedStream::kBatchBytes);  ///< ciphertext from the socket
  std::vector<std::byte> output;                                                     ///< ciphertext for the socket
  std::vector<std::byte> record;                                                     ///< plaintext of small pieces
  Scratch() {
    output.reserve(FramedStream::kBatchBytes + 4 * kRecordBytes);
    record.reserve(kRecordBytes);
  }
};

// Never from a coroutine itself: compilers may keep a thread-local's address over a suspension.
Scratch& scratch() {
  static thread_local const std::unique_ptr<Scratch> buffers = std::make_unique<Scratch>();
  return *buffers;
}

/// Unlike clear() and `= {}`, gives the memory back: idle streams keep none.
void release(std::vector<std::byte>& bytes) { std::vector<std::byte>().swap(bytes); }

// OpenSSL's side of the pump. It is called within a step only, so `output` is this stream's.
struct PumpBio {
  static int write(BIO* bio, const char* data, std::size_t size, std::size_t* written) noexcept;
  static int read(BIO* bio, char* data, std::size_t size, std::size_t* taken) noexcept;
  static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }
  static int create(BIO* bio) {
    BIO_set_init(bio, 1);
    return 1;
  }
  static const BIO_METHOD* method();
};

int PumpBio::write(BIO* bio, const char* data, std::size_t size, std::size_t* written) noexcept {
  BIO_clear_retry_flags(bio);
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  scratch().output.insert(scratch().output.end(), bytes, bytes + size);
  *written = size;
  return 1;
}

int PumpBio::read(BIO* bio, char* data, std::size_t size, std::size_t* taken) noexcept {
  BIO_clear_retry_flags(bio);
  auto& input = *static_cast<std::span<const std::byte>*>(BIO_get_data(bio));
  *taken = std::min(size, input.size());
  if (*taken == 0) {
    BIO_set_retry_read(bio);
    return 0;
  }
  std::memcpy(data, input.data(), *taken);
  input = input.subspan(*taken);
  return 1;
}

const BIO_METHOD* PumpBio::method() {
  static const BIO_METHOD* const made = [] {
    BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "tributary pump");
    FL_CHECK(method != nullptr && BIO_meth_set_write_ex(method, write) == 1 && BIO_meth_set_read_ex(method, read) == 1 &&
                 BIO_meth_set_ctrl(method, control) == 1 && BIO_meth_set_create(method, create) == 1,
             "OpenSSL has no BIO methods");
    return method;
  }();
  return made;
}

}  // namespace

TlsPump::TlsPump(tcp::socket connected, std::shared_ptr<const TlsContext> shared)
    : socket_(std::move(connected)), context_(std::move(shared)) {
  error_code ignored;  // a socket that is broken already says so at the first read
  socket_.set_option(tcp::no_delay(true), ignored);
  socket_.non_blocking(true, ignored);
  const tcp::endpoint end = socket_.remote_endpoint(ignored);
  if (!ignored) {
    const std::string address = end.address().to_string();
    remote_ = (end.address().is_v6() ? "[" + address + "]" : address) + ":" + std::to_string(end.port());
  }
  ssl_ = SSL_new(context_->native());
  BIO* bio = ssl_ == nullptr ? nullptr : BIO_new(PumpBio::method());
  if (bio == nullptr) {
    SSL_free(ssl_);
    throw std::bad_alloc();
  }
  BIO_set_data(bio, &input_);
  SSL_set_bio(ssl_, bio, bio);
  SSL_set_app_data(ssl_, &noted_);
}

TlsPump::~TlsPump() { SSL_free(ssl_); }

void TlsPump::prepare(const std::string& host) {
  if (context_->role() == TlsRole::server) {
    SSL_set_accept_state(ssl_);
    return;
  }
  SSL_set_connect_state(ssl_);
  error_code no_address;
  asio::ip::make_address(host, no_address);
  X509_VERIFY_PARAM* expected = SSL_get0_param(ssl_);
  bool set = false;
  if (!no_address) {
    set = X509_VERIFY_PARAM_set1_ip_asc(expected, host.c_str()) == 1;
  } else if (!host.empty() && host.find('\0') == std::string::npos) {
    X509_VERIFY_PARAM_set_hostflags(expected, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    set = X509_VERIFY_PARAM_set1_host(expected, host.data(), host.size()) == 1 && SSL_set_tlsext_host_name(ssl_, host.c_str()) == 1;
  }
  ERR_clear_error();
  if (!set) fail("'" + host + "' is neither a host name nor an IP address, so no server's certificate can be for it");
}

void TlsPump::require_open() const {
  if (!socket_.is_open()) throw LinkError("the connection to " + remote_ + " is closed");
}

void TlsPump::waited(const error_code& error) {
  read_turn_ = 0;
  write_turn_ = 0;
  if (!error && socket_.is_open()) return;
  if (error == asio::error::operation_aborted || !socket_.is_open()) {
    close_socket();
    throw LinkError("the connection to " + remote_ + " was closed on this side");
  }
  fail("the connection to " + remote_ + " broke: " + error.message());
}

void TlsPump::fail(const std::string& words) {
  error_code ignored;
  auto& output = scratch().output;
  if (!output.empty() && unsent_.empty() && socket_.is_open()) socket_.write_some(asio::buffer(output), ignored);
  output.clear();
  close_socket();
  throw LinkError(words);
}

void TlsPump::close_socket() {
  input_ = {};
  release(unread_);
  release(unsent_);
  if (!socket_.is_open()) return;
  // Bytes that nobody read would turn the end into a reset, which may overtake what was sent last (an alert, a refusal).
  error_code error;
  for (int i = 0; i < 16 && !error; ++i) socket_.read_some(asio::buffer(scratch().input), error);
  socket_.close(error);
}

void TlsPump::close() {
  if (socket_.is_open() && established_) {
    ERR_clear_error();
    SSL_shutdown(ssl_);
    try {
      if (send_unsent()) send_output();
    } catch (const LinkError&) {  // nobody is left to be told
    }
    ERR_clear_error();
    scratch().output.clear();
  }
  close_socket();
}

void TlsPump::abort() {
  error_code ignored;
  // A peer that does not read would keep the system's buffers alive for minutes.
  socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  socket_.close(ignored);
}

bool TlsPump::receive(std::size_t wanted, const char* where) {
  release(unread_);
  auto& space = scratch().input;
  // Little more than what is wanted, so that little has to be kept when it has come.
  const std::size_t most = std::min(space.size(), wanted + (wanted / kRecordBytes + 2) * kRecordExtra + kRecordBytes);
  error_code error;
  const std::size_t size = socket_.read_some(asio::buffer(space.data(), most), error);
  if (error == asio::error::would_block || error == asio::error::try_again) return false;
  if (error == asio::error::eof) fail("the connection to " + remote_ + " ended " + where + " without a close_notify");
  if (error) fail("the connection to " + remote_ + " broke " + where + ": " + error.message());
  counters_.bytes_in += size;
  input_ = {space.data(), size};
  return true;
}

void TlsPump::keep_input() {
  if (input_.empty()) {
    release(unread_);
  } else if (unread_.empty()) {
    unread_.assign(input_.begin(), input_.end());
    input_ = unread_;
  }
}

bool TlsPump::shake_hands() {
  require_open();
  for (;;) {
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_);
    if (result == 1) break;
    const int error = SSL_get_error(ssl_, result);
    if (error == SSL_ERROR_ZERO_RETURN) fail("the peer closed the connection during the TLS handshake");
    if (error != SSL_ERROR_WANT_READ) fail(tls::error_words(context_->role(), established_, noted_));
    send_output();
    if (!receive(kRecordBytes, "during the TLS handshake")) return false;
  }
  send_output();
  check_peer();
  keep_input();
  return true;
}

void TlsPump::check_peer() {
  const unsigned char* protocol = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(ssl_, &protocol, &size);
  if (std::string_view(reinterpret_cast<const char*>(protocol), size) != kAlpn) fail(std::string("the server does not speak ") + kAlpn);
  X509* certificate = SSL_get0_peer_certificate(ssl_);
  FL_CHECK(certificate != nullptr && SSL_get_verify_result(ssl_) == X509_V_OK, "an unverified peer passed the handshake");
  try {
    peer_ = tls::identify(certificate, tls::other(context_->role()));
  } catch (const ConfigError& error) {
    fail(error.what());
  }
  // OpenSSL keeps the certificate as long as the connection, with 2 KB of unpacked public key that TLS 1.3 has no more use for.
  X509_set_pubkey(certificate, X509_get0_pubkey(SSL_get_certificate(ssl_)));
  established_ = true;
}

bool TlsPump::read(std::span<std::byte> out, std::size_t& done, bool inside) {
  require_open();
  while (done < out.size()) {
    std::size_t size = 0;
    ERR_clear_error();
    const int result = SSL_read_ex(ssl_, out.data() + done, out.size() - done, &size);
    done += size;
    if (result == 1) continue;
    const char* where = inside || done > 0 ? "inside a frame" : "between two frames";
    const int error = SSL_get_error(ssl_, result);
    if (error == SSL_ERROR_ZERO_RETURN) fail(inside || done > 0 ? "the peer closed the connection inside a frame" : "the peer closed the connection");
    if (error != SSL_ERROR_WANT_READ) fail(tls::error_words(context_->role(), established_, noted_));
    if (read_turn_ >= kTurnBytes || !receive(out.size() - done, where)) break;
    read_turn_ += input_.size();
  }
  send_output();
  keep_input();
  return done == out.size();
}

bool TlsPump::write(FrameCursor& cursor) {
  require_open();
  if (!send_unsent()) return false;
  while (!cursor.done()) {
    if (write_turn_ >= kTurnBytes) return false;
    auto& output = scratch().output;
    while (!cursor.done() && output.size() < batch_bytes_) encrypt_next(cursor);
    write_turn_ += output.size();
    send_output();
    if (!unsent_.empty()) return false;
  }
  return true;
}

void TlsPump::encrypt_next(FrameCursor& cursor) {
  const std::size_t whole = cursor.rest().size() / kRecordBytes * kRecordBytes;
  if (whole > 0) {
    const std::size_t room = batch_bytes_ - scratch().output.size();
    const auto plain = cursor.rest().first(std::min(whole, (room + kRecordBytes - 1) / kRecordBytes * kRecordBytes));
    encrypt(plain);
    cursor.skip(plain.size());
    return;
  }
  // Small pieces share a record: it costs the same whether it is full or not.
  auto& record = scratch().record;
  record.clear();
  while (!cursor.done() && record.size() < kRecordBytes) {
    const auto piece = cursor.rest().first(std::min(cursor.rest().size(), kRecordBytes - record.size()));
    record.insert(record.end(), piece.begin(), piece.end());
    cursor.skip(piece.size());
  }
  encrypt(record);
}

void TlsPump::encrypt(std::span<const std::byte> plain) {
  std::size_t written = 0;
  ERR_clear_error();
  // The pump takes everything, so it is all or an error.
  if (SSL_write_ex(ssl_, plain.data(), plain.size(), &written) != 1 || written != plain.size()) fail(tls::error_words(context_->role(), established_, noted_));
}

std::size_t TlsPump::send(std::span<const std::byte> bytes) {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    error_code error;
    sent += socket_.write_some(asio::buffer(bytes.data() + sent, bytes.size() - sent), error);
    if (error == asio::error::would_block || error == asio::error::try_again) break;
    if (error) {
      const std::string words = last_words("the connection to " + remote_ + " broke: " + error.message());
      scratch().output.clear();
      fail(words);
    }
  }
  counters_.bytes_out += sent;
  return sent;
}

void TlsPump::send_output() {
  auto& output = scratch().output;
  if (output.empty()) return;
  if (!unsent_.empty()) {  // a writer waits, or nobody has written since; the order must stay
    if (unsent_.size() + output.size() > kUnsentLimitBytes) fail(remote_ + " sends without reading");
    unsent_.insert(unsent_.end(), output.begin(), output.end());
  } else if (const std::size_t sent = send(output); sent < output.size()) {
    unsent_.assign(output.begin() + static_cast<std::ptrdiff_t>(sent), output.end());
    unsent_begin_ = 0;
    batch_bytes_ = std::max(batch_bytes_ / 2, kLeastBatchBytes);
  } else if (output.size() >= batch_bytes_) {
    batch_bytes_ = std::min(batch_bytes_ * 2, FramedStream::kBatchBytes);
  }
  output.clear();
}

bool TlsPump::send_unsent() {
  if (unsent_.empty()) return true;
  unsent_begin_ += send(std::span<const std::byte>(unsent_).subspan(unsent_begin_));
  if (unsent_begin_ < unsent_.size()) return false;
  release(unsent_);
  return true;
}

std::string TlsPump::last_words(const std::string& otherwise) {
  // A peer that refuses our certificate says so in an alert and closes; a write may see the reset before a read sees the alert.
  std::array<std::byte, 4096> ignored;
  for (int i = 0; i < 64; ++i) {
    ERR_clear_error();
    std::size_t size = 0;
    const int result = SSL_read_ex(ssl_, ignored.data(), ignored.size(), &size);
    if (result == 1) continue;
    const int error = SSL_get_error(ssl_, result);
    if (error == SSL_ERROR_SSL) return tls::error_words(context_->role(), established_, noted_);
    if (error != SSL_ERROR_WANT_READ) break;
    error_code end;
    const std::size_t received = socket_.read_some(asio::buffer(scratch().input), end);
    if (end || received == 0) break;
    input_ = {scratch().input.data(), received};
  }
  return otherwise;
}

}  // namespace fl
