#include "aggregator/net/session.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <exception>

#include "fl_core/wire/limits.h"

namespace fl {
namespace {

using boost::asio::awaitable;
using std::chrono::milliseconds;

/// Frames that may wait for a peer that does not read.
constexpr std::size_t kQueuedFrames = 256;
/// A flooder may be ahead of its average by this many seconds.
constexpr double kBurstSeconds = 10;
/// Any single frame gets this long beside what its length needs.
constexpr double kFrameSeconds = 10;

/// After a refusal for a broken protocol this much more is read, and for this long.
constexpr std::size_t kIgnoredBytes = 16 * 1024;
constexpr int kIgnoredPieces = 256;
constexpr milliseconds kLastHearing{1000};

milliseconds seconds(double value) { return milliseconds(static_cast<std::int64_t>(value * 1000)); }

}  // namespace

Session::Session(boost::asio::ip::tcp::socket socket, std::shared_ptr<const TlsContext> context, SessionHost& host)
    : stream_(std::move(socket), std::move(context)), host_(host), frame_budget_(host.limits.frames_per_s * kBurstSeconds), budget_time_(host.now()) {}

milliseconds Session::time_for(std::uint64_t bytes) const {
  return seconds(kFrameSeconds + static_cast<double>(bytes) / host_.limits.minimum_bytes_per_s);
}

awaitable<void> Session::run() {
  const auto self = shared_from_this();
  try {
    co_await within(seconds(host_.limits.handshake_s), stream_, "the TLS handshake", stream_.handshake(std::string()));
    handshaken_ = true;
    co_await converse();
  } catch (const ProtocolError& error) {
    trouble_ = error.what();
    hears_out_ = stream_.open();
    refuse(Refused{Refusal::protocol, error.what(), 0});
  } catch (const std::exception& error) {
    trouble_ = error.what();
    stream_.abort();
  }
  if (hears_out_) co_await hear_out();
  if (welcomed_ && !left_) host_.desk.disconnected(*this, host_.unix_seconds(), host_.now());
}

/// What the peer had already sent must be read, or the system answers it with a reset that overtakes the refusal. A peer that has
/// read the refusal closes.
awaitable<void> Session::hear_out() {
  Bytes ignored = Bytes::uninitialised(kIgnoredBytes);
  try {
    for (int i = 0; i < kIgnoredPieces; ++i) {
      co_await within(kLastHearing, stream_, "the end of the connection", stream_.read_exactly(ignored.span()));
    }
  } catch (const std::exception&) {
    // It has closed, or had its time.
  }
  stream_.close();
}

awaitable<void> Session::converse() {
  const FrameHeader first = co_await within(seconds(host_.limits.handshake_s), stream_, "the hello", stream_.read_head());
  if (first.type != FrameType::hello) throw ProtocolError("expected hello, got " + frame_type_name(static_cast<std::uint8_t>(first.type)));
  check_size(first);
  const Frame greeting = co_await within(seconds(host_.limits.handshake_s), stream_, "the hello", stream_.read_rest(first));
  const Hello hello = parse_hello(greeting);
  auto no = host_.screen(peer());
  if (!no) no = host_.desk.connect(shared_from_this(), peer().name, hello, host_.unix_seconds(), host_.now());
  welcomed_ = !no;
  if (no) {
    refuse(*no);
  } else {
    host_.welcomed(*this);
  }
  while (!ending_) {
    const FrameHeader head = co_await within(seconds(3.0 * host_.limits.heartbeat_s), stream_, "the next heartbeat", stream_.read_head());
    if (head.type == FrameType::chunk) {
      co_await read_chunk(head);
      continue;
    }
    spend_frame();
    check_size(head);
    const Frame frame = co_await within(time_for(head.body_bytes), stream_, "a frame", stream_.read_rest(head));
    if (ending_) break;
    handle(frame);
    if (left_) break;
  }
}

/// What a client may send at all, before memory is given to it.
void Session::check_size(const FrameHeader& head) const {
  const bool answers = head.type == FrameType::update || head.type == FrameType::failed || head.type == FrameType::secure_answer;
  if (head.body_bytes > (answers ? limits::kInlineBytes : 0)) {
    throw ProtocolError(frame_type_name(static_cast<std::uint8_t>(head.type)) + " with a body of " + std::to_string(head.body_bytes) + " bytes");
  }
}

void Session::spend_frame() {
  const Seconds now = host_.now();
  const double rate = host_.limits.frames_per_s;
  frame_budget_ = std::min(rate * kBurstSeconds, frame_budget_ + (now - budget_time_) * rate);
  budget_time_ = now;
  if (--frame_budget_ >= 0) return;
  trouble_ = "more than " + std::to_string(static_cast<int>(rate)) + " frames a second";
  refuse(Refused{Refusal::flood, trouble_, 60});
}

void Session::handle(const Frame& frame) {
  switch (frame.head.type) {
    case FrameType::heartbeat:
      host_.desk.heartbeat(*this, parse_heartbeat(frame));
      send(encode_heartbeat_reply(frame.head.request));
      return;
    case FrameType::fetch:
      host_.desk.fetch(*this, frame.head.request, parse_fetch(frame));
      return;
    case FrameType::update:
    case FrameType::failed:
    case FrameType::secure_answer:
      host_.desk.answer(*this, frame, host_.now());
      return;
    case FrameType::goodbye:
      trouble_ = parse_goodbye(frame).reason;
      left_ = true;
      host_.desk.goodbye(*this, host_.unix_seconds(), host_.now());
      stream_.close();
      return;
    default:
      throw ProtocolError("a client may not send " + frame_type_name(static_cast<std::uint8_t>(frame.head.type)));
  }
}

awaitable<void> Session::read_chunk(FrameHeader head) {
  Bytes header(head.header_bytes);
  co_await within(time_for(head.header_bytes), stream_, "a chunk", stream_.read_exactly(header.span()));
  const std::uint64_t offset = parse_chunk(head, header.span());
  const Desk::Place place = host_.desk.chunk_place(*this, head, offset);
  if (place.bytes.empty()) {
    spend_frame();
    Bytes thrown_away(head.body_bytes);
    co_await within(time_for(head.body_bytes), stream_, "a chunk", stream_.read_exactly(thrown_away.span()));
    co_return;
  }
  co_await within(time_for(head.body_bytes), stream_, "a chunk", stream_.read_exactly(place.bytes));
  if (!ending_) host_.desk.chunk_done(*this, host_.now());
}

void Session::send(Frame frame) {
  if (ending_) return;
  if (queue_.size() >= kQueuedFrames) {
    trouble_ = "the client does not read";
    stream_.abort();
    return;
  }
  queue_.push_back(std::move(frame));
  wake_writer();
}

void Session::send_blob(std::uint64_t request, SharedBuffer bytes, std::uint64_t offset) {
  if (ending_ || offset >= bytes.size()) return;
  blob_ = std::make_unique<Blob>(Blob{request, std::move(bytes), offset});
  wake_writer();
}

void Session::stop_blob() { blob_.reset(); }

void Session::end(Frame last) {
  if (ending_) return;
  blob_.reset();
  send(std::move(last));
  ending_ = true;
  // A short frame is written at once, before anybody knew that it is the last.
  if (!writing_ && !hears_out_) stream_.close();
}

void Session::refuse(Refused refused) {
  host_.refused(handshaken_ ? peer().name : remote(), refused);
  end(encode(refused));
}

void Session::wake_writer() {
  if (writing_) return;
  writing_ = true;
  boost::asio::co_spawn(stream_.executor(), write_loop(), [self = shared_from_this()](const std::exception_ptr& error) {
    if (error) self->stream_.abort();
  });
}

awaitable<void> Session::write_loop() {
  const auto self = shared_from_this();
  try {
    while (!queue_.empty() || blob_) {
      std::vector<Frame> batch;
      batch.swap(queue_);
      if (batch.empty()) {
        const std::size_t left = blob_->bytes.size() - static_cast<std::size_t>(blob_->offset);
        const std::size_t piece = std::min(left, limits::kChunkBytes);
        batch.push_back(encode_chunk(blob_->request, blob_->offset, blob_->bytes.slice(static_cast<std::size_t>(blob_->offset), piece)));
        blob_->offset += piece;
        if (piece == left) blob_.reset();
      }
      std::uint64_t bytes = 0;
      for (const Frame& frame : batch) bytes += frame.body.size();
      const std::span<const Frame> frames(batch);
      co_await within(time_for(bytes), stream_, "sending", stream_.write_frames(frames));
    }
    if (ending_ && !hears_out_) stream_.close();
  } catch (const std::exception& error) {
    if (trouble_.empty()) trouble_ = error.what();
    stream_.abort();
  }
  writing_ = false;
}

}  // namespace fl
