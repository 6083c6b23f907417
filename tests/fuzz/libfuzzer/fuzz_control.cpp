// The link's own frames from a peer. An input is the frame's type and whether it has a request number and a round (3 bytes), the
// length of its header (2, little-endian), the header, and the body. What a parser accepts must be written again as the same frame.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/wire/control.h"
#include "fl_core/wire/header.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

constexpr std::size_t kPrefixBytes = 5;

Frame frame_of_input(std::span<const std::byte> input) {
  const auto byte = [&](std::size_t at) { return std::to_integer<std::uint32_t>(input[at]); };
  FrameHeader head;
  head.type = static_cast<FrameType>(byte(0));
  head.request = byte(1);
  head.round = byte(2);
  const std::span<const std::byte> rest = input.subspan(kPrefixBytes);
  const std::size_t header_bytes = std::min<std::size_t>(byte(3) | byte(4) << 8, rest.size());
  return Frame(head, SharedBuffer::copy_of(rest.first(header_bytes)),
               SharedBuffer::copy_of(rest.subspan(header_bytes, std::min(rest.size() - header_bytes, limits::kChunkBytes))));
}

void check_text(const std::string& text, std::size_t limit) {
  FL_CHECK(text.size() <= limit && cleaned_text(text, limit) == text, "text with control characters, bad UTF-8, or too long");
}

/// Reads the frame as its type and writes it again.
Frame again(const Frame& frame) {
  switch (frame.head.type) {
    case FrameType::hello: {
      const Hello hello = parse_hello(frame);
      check_text(hello.software, limits::kNameBytes);
      check_text(hello.input, limits::kNameBytes);
      FL_CHECK(hello.examples <= static_cast<std::uint64_t>(limits::kClientExamples), "a count out of range");
      FL_CHECK(hello.plan_sha256.empty() || hello.plan_sha256.size() == 64, "a hash of another length");
      return encode(hello);
    }
    case FrameType::welcome: return encode(parse_welcome(frame));
    case FrameType::refused: {
      const Refused refused = parse_refused(frame);
      check_text(refused.reason, limits::kReasonBytes);
      FL_CHECK(refused.code <= Refusal::flood && refused.retry_s <= limits::kRetrySeconds, "a number out of range");
      return encode(refused);
    }
    case FrameType::heartbeat: return encode(parse_heartbeat(frame), frame.head.request);
    case FrameType::heartbeat_reply: parse_heartbeat_reply(frame); return encode_heartbeat_reply(frame.head.request);
    case FrameType::fetch: {
      const Fetch fetch = parse_fetch(frame);
      FL_CHECK(fetch.offset < fetch.blob.size_bytes && fetch.blob.size_bytes <= limits::kBlobBytes, "a fetch of nothing");
      return encode(fetch, frame.head.request);
    }
    case FrameType::chunk: {
      const std::uint64_t offset = parse_chunk(frame.head, frame.header.span());
      FL_CHECK(offset < limits::kBlobBytes && frame.body.size() > 0, "a chunk that cannot be");
      return encode_chunk(frame.head.request, offset, frame.body);
    }
    case FrameType::grant: return encode_grant(frame.head.request, parse_grant(frame));
    case FrameType::receipt: return encode(parse_receipt(frame), frame.head.request, frame.head.round);
    case FrameType::goodbye: {
      const Goodbye goodbye = parse_goodbye(frame);
      check_text(goodbye.reason, limits::kReasonBytes);
      return encode(goodbye);
    }
    default: throw ProtocolError("no frame of the link");
  }
}

/// Keys may come in any order, and are written in one: the bytes are the same but for that.
void check_same(const Frame& written, const Frame& read) {
  FL_CHECK(encode_frame_header(written.head) == encode_frame_header(read.head), "an accepted frame has two encodings");
  FL_CHECK(std::ranges::equal(written.body.span(), read.body.span()), "another body");
  std::vector<std::byte> left(written.header.span().begin(), written.header.span().end());
  std::vector<std::byte> right(read.header.span().begin(), read.header.span().end());
  std::sort(left.begin(), left.end());
  std::sort(right.begin(), right.end());
  FL_CHECK(left == right, "a header with other bytes");
}

/// Parsers of other types must refuse the frame, and nothing else.
void check_others(const Frame& frame) {
  const auto refuses = [&](FrameType type, const auto& parse) {
    if (frame.head.type == type) return;
    try {
      parse();
    } catch (const ProtocolError&) {
      return;
    }
    FL_CHECK(false, "a frame was read as one of another type");
  };
  refuses(FrameType::hello, [&] { parse_hello(frame); });
  refuses(FrameType::goodbye, [&] { parse_goodbye(frame); });
  refuses(FrameType::heartbeat_reply, [&] { parse_heartbeat_reply(frame); });
  refuses(FrameType::grant, [&] { parse_grant(frame); });
  refuses(FrameType::chunk, [&] { parse_chunk(frame.head, frame.header.span()); });
}

void fuzz_one(std::span<const std::byte> input) {
  if (input.size() < kPrefixBytes) return;
  const Frame frame = frame_of_input(input);
  check_others(frame);
  try {
    const Frame written = again(frame);
    check_same(written, frame);
    check_same(again(written), written);
  } catch (const ProtocolError&) {
  }
}

}  // namespace
}  // namespace fl

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fl::fuzz_one(std::as_bytes(std::span(data, size)));
  return 0;
}
