#include "fl_core/wire/frame.h"

#include <cstring>

#include "fl_core/base/error.h"
#include "fl_core/base/hex.h"
#include "fl_core/base/sha256.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

constexpr std::array<std::byte, 4> kMagic = {std::byte{'T'}, std::byte{'R'}, std::byte{'B'}, std::byte{'T'}};
constexpr std::uint8_t kFrameVersion = 1;

// Byte by byte, so that the format does not depend on the machine.
template <class Integer>
void put(std::span<std::byte> out, std::size_t offset, Integer value) {
  for (std::size_t i = 0; i < sizeof(Integer); ++i) out[offset + i] = static_cast<std::byte>(value >> (8 * i) & 0xff);
}

template <class Integer>
Integer get(std::span<const std::byte> bytes, std::size_t offset) {
  Integer value = 0;
  for (std::size_t i = 0; i < sizeof(Integer); ++i) {
    value = static_cast<Integer>(value | static_cast<Integer>(std::to_integer<Integer>(bytes[offset + i]) << (8 * i)));
  }
  return value;
}

bool known(std::uint8_t type) { return (type >= 1 && type <= 6) || (type >= 64 && type <= 73); }

bool may_refer_to_a_blob(FrameType type) {
  return type == FrameType::train || type == FrameType::update || type == FrameType::evaluate || type == FrameType::secure_step || type == FrameType::secure_answer;
}

/// The longest body of a frame that is no blob reference. As tight as each type allows: what a peer announces is allocated
/// before anybody knows what it is good for.
std::size_t body_limit(FrameType type) {
  if (may_refer_to_a_blob(type)) return limits::kInlineBytes;
  if (type == FrameType::welcome) return limits::kPlanBytes;
  return type == FrameType::chunk ? limits::kChunkBytes : 0;
}

}  // namespace

std::string frame_type_name(std::uint8_t type) {
  switch (static_cast<FrameType>(type)) {
    case FrameType::train: return "train";
    case FrameType::update: return "update";
    case FrameType::failed: return "failed";
    case FrameType::evaluate: return "evaluate";
    case FrameType::secure_step: return "secure_step";
    case FrameType::secure_answer: return "secure_answer";
    case FrameType::hello: return "hello";
    case FrameType::welcome: return "welcome";
    case FrameType::refused: return "refused";
    case FrameType::heartbeat: return "heartbeat";
    case FrameType::heartbeat_reply: return "heartbeat_reply";
    case FrameType::fetch: return "fetch";
    case FrameType::chunk: return "chunk";
    case FrameType::grant: return "grant";
    case FrameType::receipt: return "receipt";
    case FrameType::goodbye: return "goodbye";
  }
  return "frame type " + std::to_string(type);
}

std::array<std::byte, kFrameHeaderBytes> encode_frame_header(const FrameHeader& header) {
  std::array<std::byte, kFrameHeaderBytes> bytes{};
  std::memcpy(bytes.data(), kMagic.data(), kMagic.size());
  put(bytes, 4, kFrameVersion);
  put(bytes, 5, static_cast<std::uint8_t>(header.type));
  put(bytes, 6, header.flags);
  put(bytes, 8, header.round);
  put(bytes, 12, header.header_bytes);
  put(bytes, 16, header.body_bytes);
  put(bytes, 24, header.request);
  return bytes;
}

FrameHeader parse_frame_header(std::span<const std::byte, kFrameHeaderBytes> bytes) {
  const auto fail = [](const std::string& what) { throw ProtocolError("malformed frame: " + what); };
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) fail("it does not begin with TRBT");
  if (const auto version = get<std::uint8_t>(bytes, 4); version != kFrameVersion) {
    fail("version " + std::to_string(version) + ", this program speaks version " + std::to_string(kFrameVersion));
  }
  const auto type = get<std::uint8_t>(bytes, 5);
  if (!known(type)) fail(frame_type_name(type) + " is unknown");
  FrameHeader header;
  header.type = static_cast<FrameType>(type);
  header.flags = get<std::uint16_t>(bytes, 6);
  header.round = get<std::uint32_t>(bytes, 8);
  header.header_bytes = get<std::uint32_t>(bytes, 12);
  header.body_bytes = get<std::uint32_t>(bytes, 16);
  header.request = get<std::uint64_t>(bytes, 24);
  const bool refers = header.flags == kFlagBlob;
  if (header.flags != 0 && !(refers && may_refer_to_a_blob(header.type))) {
    fail("flags " + std::to_string(header.flags) + " in " + frame_type_name(type));
  }
  if (refers && header.body_bytes != kBlobReferenceBytes) fail("a blob reference of another length");
  if (get<std::uint32_t>(bytes, 20) != 0) fail("the reserved field is not 0");
  if (header.header_bytes > limits::kHeaderBytes) {
    fail("header of " + std::to_string(header.header_bytes) + " bytes, the limit is " + std::to_string(limits::kHeaderBytes));
  }
  if (const std::size_t limit = body_limit(header.type); !refers && header.body_bytes > limit) {
    fail(frame_type_name(type) + " with a body of " + std::to_string(header.body_bytes) + " bytes, the limit is " + std::to_string(limit));
  }
  return header;
}

Frame::Frame(FrameHeader fixed, SharedBuffer header_bytes, SharedBuffer body_bytes)
    : head(fixed), header(std::move(header_bytes)), body(std::move(body_bytes)) {
  FL_CHECK(header.size() <= limits::kHeaderBytes && body.size() <= limits::kChunkBytes, "a frame above its limits");
  head.header_bytes = static_cast<std::uint32_t>(header.size());
  head.body_bytes = static_cast<std::uint32_t>(body.size());
}

std::string BlobReference::hex() const { return to_hex(sha256); }

SharedBuffer encode_blob_reference(const BlobReference& reference) {
  std::array<std::byte, kBlobReferenceBytes> bytes{};
  std::memcpy(bytes.data(), reference.sha256.data(), reference.sha256.size());
  put(bytes, 32, reference.size_bytes);
  return SharedBuffer::copy_of(bytes);
}

BlobReference parse_blob_reference(std::span<const std::byte> bytes) {
  if (bytes.size() != kBlobReferenceBytes) throw ProtocolError("malformed blob reference: " + std::to_string(bytes.size()) + " bytes, expected 40");
  BlobReference reference;
  std::memcpy(reference.sha256.data(), bytes.data(), reference.sha256.size());
  reference.size_bytes = get<std::uint64_t>(bytes, 32);
  if (reference.size_bytes == 0 || reference.size_bytes > limits::kBlobBytes) {
    throw ProtocolError("malformed blob reference: a blob of " + std::to_string(reference.size_bytes) + " bytes");
  }
  return reference;
}

BlobReference reference_to(std::span<const std::byte> blob) {
  BlobReference reference;
  reference.sha256 = Sha256().add(blob).finish();
  reference.size_bytes = blob.size();
  return reference;
}

Frame frame_of(const Message& message, std::uint64_t request) {
  if (message.body().size() > limits::kInlineBytes) return frame_of(message, request, reference_to(message.body().span()));
  FrameHeader head;
  head.type = static_cast<FrameType>(message.type());
  head.round = message.round();
  head.request = request;
  return Frame(head, message.header(), message.body());
}

Frame frame_of(const Message& message, std::uint64_t request, const BlobReference& reference) {
  FrameHeader head;
  head.type = static_cast<FrameType>(message.type());
  head.flags = kFlagBlob;
  head.round = message.round();
  head.request = request;
  return Frame(head, message.header(), encode_blob_reference(reference));
}

Message message_of(const Frame& frame, SharedBuffer body) {
  return Message(static_cast<MessageType>(frame.head.type), frame.head.round, frame.header, std::move(body));
}

}  // namespace fl
