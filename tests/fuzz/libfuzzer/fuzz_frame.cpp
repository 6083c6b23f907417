// What stands on a connection: frames one after the other, up to the first that is malformed or cut. Every frame that is accepted must
// be written again as the same bytes, and announce no more than its type may have.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "fl_core/base/error.h"
#include "fl_core/wire/frame.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

bool is_message(FrameType type) { return static_cast<std::uint8_t>(type) < 64; }

void check_limits(const FrameHeader& head) {
  FL_CHECK(head.header_bytes <= limits::kHeaderBytes && head.body_bytes <= limits::kChunkBytes, "a length above every limit");
  FL_CHECK(!is_message(head.type) || head.body_bytes <= limits::kInlineBytes, "a message's body above its limit");
  FL_CHECK(head.flags == 0 || (head.flags == kFlagBlob && head.body_bytes == kBlobReferenceBytes), "a flag that means nothing");
  FL_CHECK(frame_type_name(static_cast<std::uint8_t>(head.type)).find(' ') == std::string::npos, "a type without a name");
}

void check_body(const Frame& frame) {
  if (!is_message(frame.head.type)) return;
  if (frame.head.flags == 0) {
    const Frame again = frame_of(message_of(frame, frame.body), frame.head.request);
    FL_CHECK(encode_frame_header(again.head) == encode_frame_header(frame.head), "an inline message becomes another frame");
    return;
  }
  try {
    const BlobReference blob = parse_blob_reference(frame.body.span());
    FL_CHECK(blob.size_bytes >= 1 && blob.size_bytes <= limits::kBlobBytes, "a blob of no length");
    FL_CHECK(std::ranges::equal(encode_blob_reference(blob).span(), frame.body.span()), "a blob reference becomes other bytes");
    const Frame again = frame_of(message_of(frame, SharedBuffer()), frame.head.request, blob);
    FL_CHECK(encode_frame_header(again.head) == encode_frame_header(frame.head), "a reference becomes another frame");
  } catch (const ProtocolError&) {
  }
}

void fuzz_one(std::span<const std::byte> bytes) {
  while (bytes.size() >= kFrameHeaderBytes) {
    FrameHeader head;
    try {
      head = parse_frame_header(bytes.first<kFrameHeaderBytes>());
    } catch (const ProtocolError&) {
      return;
    }
    check_limits(head);
    const auto written = encode_frame_header(head);
    FL_CHECK(std::ranges::equal(written, bytes.first<kFrameHeaderBytes>()), "an accepted frame header has two encodings");
    bytes = bytes.subspan(kFrameHeaderBytes);
    if (bytes.size() < std::size_t{head.header_bytes} + head.body_bytes) return;
    check_body(Frame(head, SharedBuffer::copy_of(bytes.first(head.header_bytes)), SharedBuffer::copy_of(bytes.subspan(head.header_bytes, head.body_bytes))));
    bytes = bytes.subspan(std::size_t{head.header_bytes} + head.body_bytes);
  }
}

}  // namespace
}  // namespace fl

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fl::fuzz_one(std::as_bytes(std::span(data, size)));
  return 0;
}
