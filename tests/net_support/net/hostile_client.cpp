#include "tests/net_support/net/hostile_client.h"

#include <csignal>
#include <cstring>

#include "fl_core/base/error.h"
#include "fl_core/config/plan.h"
#include "tests/net_support/net/recount.h"

namespace fl::test {
namespace {

/// Long after anything that works.
constexpr std::chrono::milliseconds kPatience{60'000};
constexpr std::uint64_t kHeartbeat = 0xbea7;

}  // namespace

Hello fitting_hello(const Loopback& federation) {
  Hello hello;
  hello.software = "hostile";
  hello.examples = 1;
  hello.input = shape_text(federation.prepared().data.train->shape());
  hello.classes = static_cast<std::uint32_t>(federation.prepared().data.train->shape().classes);
  return hello;
}

KnockResult knock(std::uint16_t port, const TlsContext& context, const ProbeManners& manners) {
  KnockResult result;
  try {
    Probe probe = Probe::connect("127.0.0.1", port, "127.0.0.1", context, kPatience, manners);
    Hello hello;
    hello.software = "knocking";
    hello.examples = 1;
    hello.input = "1";
    hello.classes = 1;
    // A server that refuses the certificate says so only now: a TLS 1.3 client is through with its handshake before.
    probe.write(encode(hello), kPatience);
    const Frame frame = probe.read_frame(kPatience);
    result.answered = true;
    result.welcomed = frame.head.type == FrameType::welcome;
    if (frame.head.type == FrameType::refused) result.words = parse_refused(frame).reason;
  } catch (const Error& error) {
    result.words = error.what();
  }
  return result;
}

HostileClient::HostileClient(const Loopback& federation, std::size_t number)
    : federation_(federation),
      number_(number),
      context_(std::make_shared<const TlsContext>(TlsRole::client, federation.client_config(number).tls)),
      probe_(Probe::connect("127.0.0.1", federation.port(), "127.0.0.1", *context_, kPatience)) {
  // It writes to connections that the server has ended.
  std::signal(SIGPIPE, SIG_IGN);
  send(encode(fitting_hello(federation)));
  welcome_ = parse_welcome(await(FrameType::welcome));
}

void HostileClient::send(const Frame& frame) {
  try {
    probe_.write(frame, kPatience);
  } catch (const ProbeEnded&) {
    // The server may have ended it before all was written; what it said is still there to read.
  }
}
void HostileClient::send_bytes(std::span<const std::byte> bytes) { probe_.write(bytes, kPatience); }

Frame HostileClient::await(FrameType type) {
  for (;;) {
    const Frame frame = probe_.read_frame(kPatience);
    if (frame.head.type == type) return frame;
    if (frame.head.type == FrameType::refused) throw Error("refused: " + parse_refused(frame).reason);
    if (frame.head.type == FrameType::goodbye) throw Error("goodbye: " + parse_goodbye(frame).reason);
  }
}

Message HostileClient::await_task() {
  task_ = await(FrameType::train);
  if ((task_.head.flags & kFlagBlob) == 0) return message_of(task_, task_.body);
  const BlobReference blob = parse_blob_reference(task_.body.span());
  send(encode(Fetch{blob, 0}, 1));
  Bytes bytes(static_cast<std::size_t>(blob.size_bytes));
  for (std::size_t done = 0; done < bytes.size();) {
    const Frame chunk = await(FrameType::chunk);
    const auto offset = static_cast<std::size_t>(parse_chunk(chunk.head, chunk.header.span()));
    std::memcpy(bytes.data() + offset, chunk.body.span().data(), chunk.body.size());
    done = offset + chunk.body.size();
  }
  return message_of(task_, SharedBuffer(std::move(bytes)));
}

Frame HostileClient::honest_update(const Message& task, std::uint64_t request) const {
  return frame_of(honest_answer(federation_.prepared(), welcome_.client, task), request);
}

Frame HostileClient::tampered_update(const Message& task, std::uint64_t request, const Tamper& tamper) const {
  const Message honest = honest_answer(federation_.prepared(), welcome_.client, task);
  UpdateHeader header = parse_update_header(honest);
  std::vector<float> delta(honest.body().size() / sizeof(float));
  std::memcpy(delta.data(), honest.body().span().data(), honest.body().size());
  tamper(header, delta);
  return frame_of(encode_update(header, SharedBuffer::copy_of(std::as_bytes(std::span(delta)))), request);
}

std::string HostileClient::verdict() {
  try {
    send(encode(Heartbeat{}, kHeartbeat));
  } catch (const Error&) {
    // It is closed already; the refusal may still be there to read.
  }
  try {
    for (;;) {
      const Frame frame = probe_.read_frame(kPatience);
      if (frame.head.type == FrameType::refused) return parse_refused(frame).reason;
      if (frame.head.type == FrameType::heartbeat_reply && frame.head.request == kHeartbeat) return "welcome to stay";
    }
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace fl::test
