#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "fl_core/wire/message.h"

/// What stands on a connection: frames. FORMAT.md is the grammar; tests/golden pins the bytes.
namespace fl {

/// Numbers on the wire: never renumber, only append. Below 64 a frame carries a Message of that MessageType; from 64 on it
/// belongs to the link itself (control.h).
enum class FrameType : std::uint8_t {
  train = 1,
  update = 2,
  failed = 3,
  evaluate = 4,
  secure_step = 5,
  secure_answer = 6,
  hello = 64,            ///< client -> server, first: who speaks, and what it holds
  welcome = 65,          ///< server -> client: the answer; the body is the plan
  refused = 66,          ///< server -> client, last: why this connection ends, and when to come back
  heartbeat = 67,        ///< client -> server: still here, ready or not
  heartbeat_reply = 68,  ///< server -> client, same request
  fetch = 69,            ///< client -> server: send this blob from this offset on
  chunk = 70,            ///< either way: a piece of a blob
  grant = 71,            ///< server -> client: now send the update of this request, from this offset on
  receipt = 72,          ///< server -> client: the task of this request is settled; forget it
  goodbye = 73,          ///< either way, last: the connection ends on purpose
};
/// "hello", … for errors and logs; "frame type 9" for a number that is none.
std::string frame_type_name(std::uint8_t type);

/// Flag bit 0: the body is a BlobReference to the message's real body, which travels as chunks.
inline constexpr std::uint16_t kFlagBlob = 1;

/// The fixed part of a frame.
struct FrameHeader {
  FrameType type = FrameType::hello;
  std::uint16_t flags = 0;
  std::uint32_t round = 0;         ///< of the message; 0 for the link's own frames
  std::uint32_t header_bytes = 0;  ///< CBOR that follows
  std::uint32_t body_bytes = 0;    ///< raw bytes after it
  std::uint64_t request = 0;       ///< ties an answer to its question
};
inline constexpr std::size_t kFrameHeaderBytes = 32;

std::array<std::byte, kFrameHeaderBytes> encode_frame_header(const FrameHeader& header);
/// Throws ProtocolError for another magic, version, an unknown type or flag, a reserved field that is not 0, a header above
/// limits::kHeaderBytes, or a body above what the type may have: limits::kInlineBytes for a message (40 bytes when it is a
/// blob reference), kPlanBytes for welcome, kChunkBytes for chunk, else none. Call it before allocating anything.
FrameHeader parse_frame_header(std::span<const std::byte, kFrameHeaderBytes> bytes);

/// A whole frame in memory. Copying shares the bytes.
class Frame {
 public:
  Frame() = default;
  /// Sizes in `head` are filled in.
  Frame(FrameHeader head, SharedBuffer header, SharedBuffer body);

  FrameHeader head;
  SharedBuffer header;
  SharedBuffer body;
};

/// Names the real body of a message: its SHA-256 and its length. 40 bytes: digest, then the length little-endian.
struct BlobReference {
  std::array<std::byte, 32> sha256{};
  std::uint64_t size_bytes = 0;

  bool operator==(const BlobReference&) const = default;
  std::string hex() const;
};
inline constexpr std::size_t kBlobReferenceBytes = 40;
SharedBuffer encode_blob_reference(const BlobReference& reference);
/// Throws ProtocolError unless there are 40 bytes and a length from 1 to limits::kBlobBytes.
BlobReference parse_blob_reference(std::span<const std::byte> bytes);
BlobReference reference_to(std::span<const std::byte> blob);

/// A message as a frame: whole when its body has at most limits::kInlineBytes, else with a reference in place of the body.
Frame frame_of(const Message& message, std::uint64_t request);
Frame frame_of(const Message& message, std::uint64_t request, const BlobReference& reference);
/// The message of a frame whose type is below 64. `body` is the real body when the frame only refers to it.
Message message_of(const Frame& frame, SharedBuffer body);

}  // namespace fl
